//! What a command does with what the core reports.

use std::io;

use tracer_core::{
    event::{Event, SourceCounts, Timestamp},
    lifecycle::{Observation, Tracker},
};

use crate::report::Summary;

/// How far tracing has come, at the end of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Progress<'a> {
    /// The table of live connections, with its counts.
    pub(crate) tracker: &'a Tracker,
    /// The source's account.
    pub(crate) source: SourceCounts,
    /// Processor time that the program at every transition took, nanoseconds; none unless the kernel keeps
    /// BPF statistics.
    pub(crate) run_time_ns: Option<u64>,
    /// The traced host's time.
    pub(crate) now: Timestamp,
}

/// Takes in what one run of a source brings, on the thread that reads the source.
pub(crate) trait Consumer: Send + 'static {
    /// Called once, before the first event.
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes in one event as the source delivered it, before the core does.
    fn event(&mut self, _event: &Event) -> io::Result<()> {
        Ok(())
    }

    /// Takes in one observation.
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()>;

    /// Called after each batch, so that what was written can be seen.
    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()>;

    /// Whether it has had enough.
    fn done(&self) -> bool;

    /// Whether it goes on when the source has ended, with [`Consumer::flush`] called from time to time.
    fn stays(&self) -> bool {
        false
    }

    /// Whether the run ends when nobody reads stdout any more.
    fn writes_to_stdout(&self) -> bool {
        true
    }

    /// Called once, after the last batch, with the table as the run leaves it.
    fn finish(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Called once, at the very end.
    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        Ok(())
    }
}
