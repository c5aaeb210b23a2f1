//! The recording source: delivers the events of a recording.

pub use crate::recording::reader::{Missing, NotARecording, Reader};
pub use crate::recording::reader::{RowContent, Rows};

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use tracer_core::{
    counted::counted_as,
    event::{Event, Nanos, SourceCounts, Timestamp},
};

use crate::{
    host::{CgroupResolver, RecordedCgroups},
    recording::Header,
    sources::{Origin, Polled, Source},
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
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A file is not a recording.
    #[error("cannot read {} as a recording: {cause}", path.display())]
    NotARecording {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: NotARecording,
    },
    /// The files are of different runs.
    #[error(
        "{} and {} cannot be read together because they are of different runs; pass the files of one run",
        first.display(), other.display()
    )]
    DifferentRuns {
        /// The first file.
        first: PathBuf,
        /// A file of another run.
        other: PathBuf,
    },
    /// Two files are the same part of the run.
    #[error("{} is the same part of the run as another file; pass each file once", .0.display())]
    Twice(PathBuf),
    /// No file was given.
    #[error("no recording is given; pass at least one file")]
    None,
}

type Input = BufReader<Box<dyn Read + Send>>;

/// An open file.
struct Part {
    path: PathBuf,
    reader: Reader<Input>,
    size: u64,
}

/// Delivers the events of a recording, which has one or more files of one run.
pub struct RecordingSource {
    parts: VecDeque<Part>,
    header: Header,
    cgroups: RecordedCgroups,
    /// Events after this time are not delivered.
    until: Option<Timestamp>,
    last: Timestamp,
    /// The part before the current one, if its end was complete.
    previous: Option<u32>,
    /// The socket dump at the start of the file is skipped, because the file continues the previous one.
    skipping_dump: bool,
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
    /// Opens the files of one run, in any order; `-` is stdin. `limit` is the recorded time to deliver.
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
                    "between {} and {}, {} not given",
                    part.path.display(),
                    next.path.display(),
                    counted_as(
                        following.part - header.part - 1,
                        "file of the recording was",
                        "files of the recording were"
                    )
                ));
            }
        }
        let header = parts.first().map(|part| part.reader.header().clone()).ok_or(OpenError::None)?;
        Ok(Self {
            until: limit.map(|limit| header.started.saturating_add(Nanos::from_duration(limit))),
            last: header.started,
            size: parts.iter().map(|part| part.size).sum(),
            header,
            parts: parts.into(),
            cgroups: RecordedCgroups::default(),
            previous: None,
            skipping_dump: false,
            seen: 0,
            unknown_rows: 0,
            before: SourceCounts::ZERO,
            in_part: SourceCounts::ZERO,
            read_before: 0,
            problems,
            ended: false,
        })
    }

    /// Returns the header of the first file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns how many bytes were read, and the total; the total is 0 for a pipe.
    pub fn progress(&self) -> (u64, u64) {
        (self.read_before + self.parts.front().map_or(0, |part| part.reader.position()), self.size)
    }

    /// Returns the problems found since the last call, one sentence each.
    pub fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// Delivers the next batch. Returns false at the end.
    fn deliver_batch(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<bool> {
        let Some(part) = self.parts.front_mut() else { return Ok(false) };
        let number = part.reader.header().part;
        if self.previous != Some(number) {
            // Every part starts with a socket dump. After its predecessor, it is redundant.
            self.skipping_dump = self.previous.and_then(|previous| previous.checked_add(1)) == Some(number);
            self.previous = Some(number);
        }
        let clock = part.reader.header().clock;
        let Some(batch) = part.reader.next_batch()? else {
            self.end_part();
            return Ok(!self.parts.is_empty());
        };
        let Some(mut rows) = Rows::new(&batch, clock, &self.header.host.name) else {
            self.unknown_rows += batch.num_rows() as u64;
            return Ok(true);
        };
        for row in 0..rows.len() {
            match rows.content(row, &self.cgroups) {
                RowContent::Event(event) => {
                    if self.until.is_some_and(|until| event.time() > until) {
                        return Ok(false);
                    }
                    if self.skipping_dump
                        && matches!(
                            event,
                            Event::Existing(_)
                                | Event::ExistingTimewait(_)
                                | Event::DumpScope { .. }
                                | Event::DumpEnd { .. }
                        )
                    {
                        self.skipping_dump = !matches!(event, Event::DumpEnd { .. });
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
            // The next part may have sockets of the missing events.
            self.previous = None;
        }
        self.before = self.before.plus(&self.in_part);
        self.in_part = SourceCounts::ZERO;
    }

    fn end(&mut self, deliver: &mut dyn FnMut(&Event)) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.unknown_rows != 0 {
            let rows = counted_as(
                self.unknown_rows,
                "row of the recording was skipped because it",
                "rows of the recording were skipped because they",
            );
            self.problems.push(format!("{rows} could not be decoded"));
        }
        if let Some(until) = self.until
            && !self.parts.is_empty()
        {
            deliver(&Event::Time(until));
        }
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

    /// Delivers nothing: the user ended the replay early.
    fn finish(&mut self, _deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        let counts = self.before.plus(&self.in_part);
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
            resolver: CgroupResolver::recorded(self.cgroups.clone()),
            host: self.header.host.clone(),
        }
    }
}
