//! A recording as a source: what was recorded on a host, delivered as it was then.

mod check;
mod frames;
mod reader;
mod rows;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

pub use reader::{Missing, NotARecording, Reader};
pub use rows::{RowContent, Rows};

use super::{Origin, Polled, Source};
use crate::{
    event::{Event, SourceCounts, Timestamp},
    owner::{Attribution, RecordedCgroups},
    recording::Header,
};

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file cannot be opened.
    #[error("cannot open the recording {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file is no recording.
    #[error("cannot read {} as a recording: {cause}", path.display())]
    NotARecording {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: NotARecording,
    },
    /// Files that do not belong together.
    #[error(
        "{} and {} are of different runs, whose times cannot be compared: read the files of one run at a time",
        first.display(), other.display()
    )]
    DifferentRuns {
        /// A file.
        first: PathBuf,
        /// One that does not belong to it.
        other: PathBuf,
    },
    /// The same file twice.
    #[error("{} is given twice", .0.display())]
    Twice(PathBuf),
    /// No file.
    #[error("no recording is given")]
    None,
}

type Input = BufReader<Box<dyn Read + Send>>;

/// A file that has been opened.
struct Part {
    path: PathBuf,
    reader: Reader<Input>,
    size: u64,
}

/// Delivers the events of a recording, of one file or of several of one run.
pub struct RecordingSource {
    parts: VecDeque<Part>,
    header: Header,
    cgroups: RecordedCgroups,
    /// Nothing after this moment is delivered.
    until: Option<Timestamp>,
    last: Timestamp,
    /// The part that was read last, whose end the next one continues.
    previous: Option<u32>,
    /// The rows at the beginning of a file tell what the files before it have told already.
    skipping_snapshot: bool,
    seen: u64,
    unknown_rows: u64,
    before: SourceCounts,
    in_part: SourceCounts,
    read_before: u64,
    size: u64,
    problems: Vec<String>,
    ended: bool,
}

impl RecordingSource {
    /// Opens the files of one run, in any order; `-` is stdin. `limit` is how much of the recorded time is
    /// delivered.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(paths: &[PathBuf], limit: Option<Duration>) -> Result<Self, OpenError> {
        let mut parts = paths.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        parts.sort_by_key(|part| part.reader.header().part);
        let mut problems = Vec::new();
        for (part, next) in parts.iter().zip(parts.iter().skip(1)) {
            let (header, following) = (part.reader.header(), next.reader.header());
            if header.run != following.run {
                return Err(OpenError::DifferentRuns { first: part.path.clone(), other: next.path.clone() });
            }
            if header.part == following.part {
                return Err(OpenError::Twice(next.path.clone()));
            }
            if header.part.checked_add(1) != Some(following.part) {
                problems.push(format!(
                    "between {} and {} there are {} files that were not given",
                    part.path.display(),
                    next.path.display(),
                    following.part - header.part - 1
                ));
            }
        }
        let header = parts.first().map(|part| part.reader.header().clone()).ok_or(OpenError::None)?;
        let limit = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        Ok(Self {
            until: limit.map(|limit| Timestamp(header.started.0.saturating_add(limit))),
            last: header.started,
            size: parts.iter().map(|part| part.size).sum(),
            header,
            parts: parts.into(),
            cgroups: RecordedCgroups::default(),
            previous: None,
            skipping_snapshot: false,
            seen: 0,
            unknown_rows: 0,
            before: NOTHING,
            in_part: NOTHING,
            read_before: 0,
            problems,
            ended: false,
        })
    }

    /// What the first file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes were read, and of how many; 0 of 0 for a pipe.
    pub fn progress(&self) -> (u64, u64) {
        (self.read_before + self.parts.front().map_or(0, |part| part.reader.position()), self.size)
    }

    /// What is missing, one sentence each, as far as it has been noticed; each is told once.
    pub fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// Delivers the next batch; false at the end.
    fn deliver_batch(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<bool> {
        let Some(part) = self.parts.front_mut() else { return Ok(false) };
        let number = part.reader.header().part;
        if self.previous != Some(number) {
            // A part that continues another begins with what is known; one that does not, with all there is.
            self.skipping_snapshot =
                self.previous.and_then(|previous| previous.checked_add(1)) == Some(number);
            self.previous = Some(number);
        }
        let clock = part.reader.header().clock;
        let Some(batch) = part.reader.next_batch()? else {
            self.end_part();
            return Ok(!self.parts.is_empty());
        };
        let Some(mut rows) = Rows::new(&batch, clock) else {
            self.unknown_rows += batch.num_rows() as u64;
            return Ok(true);
        };
        for row in 0..rows.len() {
            match rows.content(row, &self.cgroups) {
                RowContent::Event(event) => {
                    if self.until.is_some_and(|until| event.time() > until) {
                        return Ok(false);
                    }
                    if self.skipping_snapshot
                        && matches!(
                            event,
                            Event::Existing(_) | Event::SnapshotScope { .. } | Event::SnapshotEnd { .. }
                        )
                    {
                        self.skipping_snapshot = !matches!(event, Event::SnapshotEnd { .. });
                        continue;
                    }
                    self.last = self.last.max(event.time());
                    self.seen += u64::from(matches!(event, Event::Transition(_)));
                    deliver(&event);
                }
                RowContent::Counts(counts) => self.in_part = counts,
                RowContent::Unknown => self.unknown_rows += 1,
            }
        }
        Ok(true)
    }

    fn end_part(&mut self) {
        let Some(part) = self.parts.pop_front() else { return };
        self.read_before += part.reader.position();
        if let Some(missing) = part.reader.missing() {
            self.problems.push(format!("{}: {missing}", part.path.display()));
            // What the next one begins with has not all been told.
            self.previous = None;
        }
        self.before = sum(&self.before, &self.in_part);
        self.in_part = NOTHING;
    }

    fn end(&mut self, deliver: &mut dyn FnMut(&Event)) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.unknown_rows != 0 {
            self.problems.push(format!(
                "{} rows of the recording could not be understood and were left out",
                self.unknown_rows
            ));
        }
        if let Some(until) = self.until
            && !self.parts.is_empty()
        {
            deliver(&Event::Time(until));
        }
    }
}

const NOTHING: SourceCounts = SourceCounts {
    seen: 0,
    lost: 0,
    skipped: Some(0),
    others_lost: 0,
    renewed: 0,
    malformed: 0,
    recovered: 0,
    duplicates: 0,
};

fn sum(a: &SourceCounts, b: &SourceCounts) -> SourceCounts {
    SourceCounts {
        seen: a.seen.saturating_add(b.seen),
        lost: a.lost.saturating_add(b.lost),
        skipped: a.skipped.zip(b.skipped).map(|(a, b)| a.saturating_add(b)),
        others_lost: a.others_lost.saturating_add(b.others_lost),
        renewed: a.renewed.saturating_add(b.renewed),
        malformed: a.malformed.saturating_add(b.malformed),
        recovered: a.recovered.saturating_add(b.recovered),
        duplicates: a.duplicates.saturating_add(b.duplicates),
    }
}

fn open(path: &Path) -> Result<Part, OpenError> {
    let cannot = |cause| OpenError::Open { path: path.to_owned(), cause };
    let (input, size): (Box<dyn Read + Send>, u64) = if path == Path::new("-") {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(path).map_err(cannot)?;
        let size = file.metadata().map_err(cannot)?.len();
        (Box::new(file), size)
    };
    let reader = Reader::new(BufReader::with_capacity(1 << 20, input))
        .map_err(|cause| OpenError::NotARecording { path: path.to_owned(), cause })?;
    Ok(Part { path: path.to_owned(), reader, size })
}

impl Source for RecordingSource {
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled> {
        if self.deliver_batch(deliver)? {
            return Ok(Polled::Drained);
        }
        self.end(deliver);
        Ok(Polled::End)
    }

    /// What has not been delivered yet stays so: whoever ends a replay early wants no more of it.
    fn finish(&mut self, _deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        let counts = sum(&self.before, &self.in_part);
        SourceCounts {
            seen: self.seen,
            malformed: counts.malformed.saturating_add(self.unknown_rows),
            ..counts
        }
    }

    fn origin(&mut self) -> Origin {
        Origin {
            clock: self.header.clock,
            time_wait: self.header.time_wait,
            attribution: Attribution::recorded(self.cgroups.clone()),
            host: self.header.host.clone(),
        }
    }
}
