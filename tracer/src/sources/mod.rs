//! The sources of events: the live kernel and recordings. Consumers do not depend on the kind of source.

pub mod live;
pub mod recording;
pub mod sock_diag;

use std::io;

use tracer_core::{
    event::{ClockOffset, Event, Nanos, SourceCounts},
    lifecycle::TimeWaitModel,
};

use crate::host::{CgroupCounts, CgroupResolver, HostNames};

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

    /// Returns what the source could not read on the host so far.
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

/// What a source could not read on the host, because of a limit, a missing privilege or an error. All 0 when nothing is
/// missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Processes whose network namespace or file descriptors could not be read.
    pub unreadable_processes: u64,
    /// Processes whose file descriptors were not searched, or only in part, because a limit was reached.
    pub omitted_processes: u64,
    /// Network namespaces whose existing sockets could not be dumped, or only in part.
    pub unreadable_namespaces: u64,
    /// Processes and mounts whose network namespace was not dumped because a limit was reached.
    pub omitted_namespaces: u64,
    /// Network namespaces that a resync leaves out because a limit was reached.
    pub namespaces_without_resync: u64,
    /// Existing sockets that could not be decoded.
    pub undecoded_sockets: u64,
    /// Lookups of a cgroup id that found no path.
    pub unresolved_cgroups: u64,
    /// Cgroups dropped from a full cache.
    pub evicted_cgroups: u64,
    /// Walks of the cgroup tree that stopped at a limit.
    pub truncated_cgroup_walks: u64,
}

impl Coverage {
    /// The names of the counts, in the order of [`counts`](Self::counts).
    pub const NAMES: [&'static str; 9] = [
        "unreadable_processes",
        "omitted_processes",
        "unreadable_namespaces",
        "omitted_namespaces",
        "namespaces_without_resync",
        "undecoded_sockets",
        "unresolved_cgroups",
        "evicted_cgroups",
        "truncated_cgroup_walks",
    ];

    /// Returns the counts in the order of [`NAMES`](Self::NAMES).
    pub fn counts(&self) -> [u64; 9] {
        [
            self.unreadable_processes,
            self.omitted_processes,
            self.unreadable_namespaces,
            self.omitted_namespaces,
            self.namespaces_without_resync,
            self.undecoded_sockets,
            self.unresolved_cgroups,
            self.evicted_cgroups,
            self.truncated_cgroup_walks,
        ]
    }

    /// Returns this coverage with the counts of cgroup lookups.
    #[must_use]
    pub(crate) fn with_cgroups(self, counts: CgroupCounts) -> Self {
        let CgroupCounts { evicted, truncated_walks, unresolved, .. } = counts;
        Self {
            unresolved_cgroups: unresolved,
            evicted_cgroups: evicted,
            truncated_cgroup_walks: truncated_walks,
            ..self
        }
    }
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
