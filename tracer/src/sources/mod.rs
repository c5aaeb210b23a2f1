//! Where events come from. Nothing downstream can tell one source from another.

pub mod live;
pub mod recording;
pub mod sock_diag;

use std::io;

use tracer_core::{
    event::{ClockOffset, Event, SourceCounts},
    lifecycle::TimeWaitModel,
};

use crate::host::{CgroupResolver, HostNames};

/// What one look at a source brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Everything there was has been delivered; more may come.
    Drained,
    /// The source has ended; nothing more will come.
    End,
}

/// A stream of events with its own account of what it delivered and what it could not.
pub trait Source {
    /// Waits a bounded time for events and delivers all that are there, in order.
    ///
    /// # Errors
    ///
    /// When the source cannot be read any more.
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled>;

    /// Stops the stream and delivers what is still in it, so that the counts are final.
    ///
    /// # Errors
    ///
    /// When the source cannot be read any more.
    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()>;

    /// What was delivered and what was missed so far.
    fn counts(&self) -> SourceCounts;

    /// Processor time that the program at every transition took, nanoseconds; none where nothing counts it.
    fn run_time_ns(&self) -> Option<u64> {
        None
    }

    /// What is known of the host the events come from. Asked for once, before the first event.
    fn origin(&mut self) -> Origin;
}

/// The host that events come from, as far as showing them needs it.
#[derive(Debug)]
pub struct Origin {
    /// How its monotonic clock stands to UTC.
    pub clock: ClockOffset,
    /// How long its kernel keeps what timewait_sockets of a closed connection.
    pub time_wait: TimeWaitModel,
    /// Its cgroups and containers.
    pub resolver: CgroupResolver,
    /// Its names.
    pub host: HostNames,
}
