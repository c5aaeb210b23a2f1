//! The sources of events: the live kernel and recordings. Consumers do not depend on the kind of source.

mod conntrack;
mod coverage;
pub mod live;
pub mod recording;
pub mod sock_diag;

use std::io;

use tracer_core::{
    event::{ClockOffset, Event, Nanos, SourceCounts, Timestamp},
    lifecycle::{ObservedDrops, TimeWaitModel},
};

pub use coverage::Coverage;

use crate::{
    host::{CgroupResolver, HostNames},
    recording::Header,
    sources::live::Hook,
};

/// The result of [`Source::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// All available events were delivered. More may follow.
    Drained,
    /// The source has ended.
    End,
}

/// A stream of events, with counts of delivered and missed events.
pub trait Source {
    /// Waits a limited time for events and delivers all that are available, in order.
    ///
    /// # Errors
    ///
    /// When the source can no longer be read.
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled>;

    /// Stops the stream and delivers the remaining events. Afterwards the counts are final.
    ///
    /// # Errors
    ///
    /// When the source can no longer be read.
    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()>;

    /// Returns the counts of delivered and missed events so far.
    fn counts(&self) -> SourceCounts;

    /// Returns what could not be read on the host so far.
    fn coverage(&self) -> Coverage {
        Coverage::default()
    }

    /// Returns the CPU time of the program that runs at every transition; `None` if it is not counted.
    fn run_time(&self) -> Option<Nanos> {
        None
    }

    /// Returns the properties of the traced host. Called once, before the first event.
    fn origin(&mut self) -> Origin;
}

/// The properties of the traced host that outputs need.
#[derive(Debug)]
pub struct Origin {
    /// The offset between its monotonic clock and UTC.
    pub clock: ClockOffset,
    /// How long its kernel keeps timewait sockets.
    pub time_wait: TimeWaitModel,
    /// The resolver of its cgroups and containers.
    pub resolver: CgroupResolver,
    /// The names of the host, its kernel and the tracing mode.
    pub host: HostNames,
}

impl Origin {
    /// Returns the header of a new recording of this host that starts at a time, with a run id of its own.
    pub(crate) fn recording_header(&self, started: Timestamp) -> Header {
        Header {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: tracer_ebpf::WIRE_VERSION,
            host: self.host.clone(),
            clock: self.clock,
            time_wait: self.time_wait,
            started,
            run: new_run(),
            part: 1,
            frozen_by: None,
        }
    }
}

/// Returns a random id for the files of a run.
pub(crate) fn new_run() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("{:016x}", RandomState::new().hash_one(crate::host::now()))
}

/// Returns which drops the hooks of a traced host observe.
pub(crate) fn observed_drops(host: &HostNames) -> ObservedDrops {
    match (host.has_hook(Hook::Drop.name()), host.has_hook(Hook::AcceptQueueFull.name())) {
        (true, true) => ObservedDrops::All,
        (true, false) => ObservedDrops::ExceptFullQueues,
        (false, _) => ObservedDrops::None,
    }
}
