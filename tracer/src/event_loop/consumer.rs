//! The interface between the event loop and a command's output.

use std::io;

use tracer_core::{
    event::{Event, Nanos, SourceCounts, Timestamp},
    lifecycle::{Observation, Tracker},
};

use crate::{report::Summary, sources::Coverage};

/// The state of tracing at the end of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Progress<'a> {
    /// The table of live connections, with its counts.
    pub(crate) tracker: &'a Tracker,
    /// The source's counts.
    pub(crate) source: SourceCounts,
    /// What the source could not read on the host.
    pub(crate) coverage: Coverage,
    /// CPU time of the eBPF program that runs at every transition; `None` unless the kernel keeps BPF
    /// statistics.
    pub(crate) run_time: Option<Nanos>,
    /// The traced host's time.
    pub(crate) now: Timestamp,
}

/// Consumes the events and observations of one run, on the tracing thread.
pub(crate) trait Consumer: Send + 'static {
    /// Called once, before the first event.
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Consumes an event, before the core does.
    fn event(&mut self, _event: &Event) -> io::Result<()> {
        Ok(())
    }

    /// Consumes an observation of the core.
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()>;

    /// Called after each batch, to make written data visible.
    fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Returns whether the run should end.
    fn done(&self) -> bool {
        false
    }

    /// Returns whether the run continues after the end of the source, with regular calls of [`Consumer::flush`].
    fn stays(&self) -> bool {
        false
    }

    /// Returns whether the run ends when the reader of stdout is gone.
    fn writes_to_stdout(&self) -> bool {
        true
    }

    /// Called once, after the last batch, with the final state of the table.
    fn finish(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Called once, at the end of the run.
    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        Ok(())
    }
}
