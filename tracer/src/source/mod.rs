//! Where events come from. Nothing downstream can tell one source from another.

pub mod kernel;
pub mod recording;
pub mod snapshot;

use std::io;

use crate::{
    event::{Event, SourceCounts, Timestamp},
    lifecycle::TimeWaitModel,
    owner::Attribution,
};

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
    /// How long its kernel keeps what remains of a closed connection.
    pub time_wait: TimeWaitModel,
    /// Its cgroups and containers.
    pub attribution: Attribution,
    /// Its names.
    pub host: Host,
}

/// The names of a host and of what traced it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its node name, as `uname -n` gives it.
    pub name: String,
    /// The release of its kernel, as `uname -r` gives it.
    pub kernel: String,
    /// The mode it was traced in.
    pub mode: String,
}

impl Host {
    /// This host, traced in `mode`.
    pub fn this(mode: &str) -> Self {
        let names = rustix::system::uname();
        Self {
            name: names.nodename().to_string_lossy().into_owned(),
            kernel: names.release().to_string_lossy().into_owned(),
            mode: mode.to_owned(),
        }
    }
}

/// The distance from `CLOCK_MONOTONIC` to UTC on the traced host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Nanoseconds to add to a monotonic time to get nanoseconds since 1970-01-01T00:00:00Z.
    pub to_utc_ns: i128,
}

impl ClockOffset {
    /// Measures the offset now. Taking the monotonic time on both sides of the wall clock's bounds the
    /// error by half the time in between.
    pub fn measure() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let nanoseconds = |id| {
            let time = clock_gettime(id);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let before = i128::from(Timestamp::now().0);
        let utc = nanoseconds(ClockId::Realtime);
        let after = i128::from(Timestamp::now().0);
        Self { to_utc_ns: utc - i128::midpoint(before, after) }
    }
}
