//! Writes the content of the ring to a file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tracer_core::{
    analysis::{FreezeMeasure, FreezeReason, Measured},
    counted::counted,
    event::{Event, Nanos, Timestamp},
};

use crate::{
    flight_recorder::{files::FrozenFiles, ring::RingContent},
    host::{CgroupResolver, RecordedCgroups},
    recording::{FrozenBy, Header, Writer},
    report::duration_text,
};

/// Why a file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FreezeCause {
    /// A condition held.
    Condition(FreezeReason),
    /// The process got SIGUSR1.
    Signal,
    /// A request over HTTP.
    Http,
}

impl FreezeCause {
    /// Returns the cause as metadata of the file.
    fn frozen_by(&self, window: Nanos, time: Timestamp) -> FrozenBy {
        let (cause, measured) = match self {
            Self::Condition(FreezeReason { condition, measured }) => {
                let window = Duration::from(window);
                let measured = match measured {
                    Measured::Duration { value, handshakes } => {
                        let value = duration_text(Some(*value));
                        let handshakes = usize::try_from(*handshakes).unwrap_or(usize::MAX);
                        format!("{value} over {} in {window:?}", counted(handshakes, "handshake"))
                    }
                    Measured::Count(count) if condition.measure == FreezeMeasure::Stuck => {
                        format!("{count} now")
                    }
                    Measured::Count(count) => format!("{count} in {window:?}"),
                };
                (condition.text.clone(), Some(measured))
            }
            Self::Signal => ("SIGUSR1".to_owned(), None),
            Self::Http => ("HTTP".to_owned(), None),
        };
        FrozenBy { cause, measured, time }
    }
}

/// Why nothing was frozen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    /// Another file is being written.
    #[error("the last file is still being written; try again in some seconds")]
    Busy,
    /// The recorder has ended, or could not start the thread that writes.
    #[error("no file was written; the log of the tracer has the cause")]
    Dropped,
    /// The file cannot be written.
    #[error("the recording {} cannot be frozen: {cause}; free space on its disk, or name another folder", path.display())]
    Write {
        /// The file, or the pattern of its name.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// A frozen file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its size, bytes.
    pub(crate) bytes: u64,
    /// The start of its events.
    pub(crate) from: Timestamp,
    /// Why and when it was written.
    pub(crate) by: FrozenBy,
}

impl Frozen {
    /// Returns the line that reports the file.
    pub(super) fn line(&self) -> String {
        let Self { path, bytes, from, by } = self;
        let why = match &by.measured {
            Some(measured) => format!("{}: {measured}", by.cause),
            None => by.cause.clone(),
        };
        let span = duration_text(Some(by.time.since(*from)));
        format!("froze the last {span} to {} ({why}; {bytes} bytes)", path.display())
    }
}

/// Everything that a frozen file needs.
pub(super) struct FreezeJob {
    pub(super) content: RingContent,
    /// A header without the start and the cause.
    pub(super) header: Header,
    pub(super) cause: FreezeCause,
    pub(super) window: Nanos,
    pub(super) now: Timestamp,
}

impl FreezeJob {
    /// Writes the file, and removes the oldest beyond the limit. Nothing remains of a file that cannot be written.
    pub(super) fn write(self, files: &FrozenFiles) -> Result<Frozen, FreezeError> {
        let created = files.create(self.now, self.header.clock);
        let (path, file) =
            created.map_err(|cause| FreezeError::Write { path: PathBuf::from(files.shown()), cause })?;
        match self.write_to(&path, file) {
            Ok(frozen) => {
                files.prune();
                Ok(frozen)
            }
            Err(cause) => {
                // The error is reported, and a part of a file would keep the disk full.
                let _ = fs::remove_file(&path);
                Err(FreezeError::Write { path, cause })
            }
        }
    }

    fn write_to(self, path: &Path, file: File) -> io::Result<Frozen> {
        let Self { content, header, cause, window, now } = self;
        let by = cause.frozen_by(window, now);
        let header = Header { started: content.started, frozen_by: Some(by.clone()), ..header };
        let mut resolver = CgroupResolver::recorded(RecordedCgroups::default());
        let mut writer = Writer::new(file, &header)?;
        for batch in &content.batches {
            writer.append_encoded(batch)?;
        }
        // The ring ends at the trigger, although nothing may have happened for a while.
        writer.event(&Event::Time(now), &mut resolver)?;
        writer.flush(&content.counts, &mut resolver)?;
        let file = writer.finish(&content.counts, &mut resolver)?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        Ok(Frozen { path: path.to_owned(), bytes, from: content.started, by })
    }
}
