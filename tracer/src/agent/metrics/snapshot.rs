//! A copy of the counts for one scrape.

use tracer_core::{
    event::{Nanos, SourceCounts, TcpState},
    lifecycle::{Thresholds, TrackerCounts},
};

use crate::{
    agent::metrics::{
        LiveQueues,
        queues::{ArrivedAt, PortQueue, join},
        tally::{Gauges, Tally},
        totals::Totals,
    },
    sources::Coverage,
};

/// The counts of one combination of opt-in labels.
#[derive(Clone, Debug)]
pub(super) struct OwnerCounts {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) tally: Tally,
    pub(super) gauges: Gauges,
}

/// A copy of the counts at one moment, for [`render`](super::render).
#[derive(Clone, Debug)]
pub struct MetricsSnapshot {
    pub(super) totals: Box<Totals>,
    pub(super) owners: Vec<OwnerCounts>,
    pub(super) labelled: bool,
    pub(super) thresholds: Thresholds,
    pub(super) listeners: usize,
    pub(super) time_wait: usize,
    pub(super) fin_wait_2: usize,
    pub(super) queues: Vec<ArrivedAt>,
    pub(super) overflows: Vec<(&'static str, u64)>,
    pub(crate) source: SourceCounts,
    pub(crate) coverage: Coverage,
    pub(crate) tracker: TrackerCounts,
    pub(crate) live: usize,
    pub(super) bpf_run_time: Option<Nanos>,
}

impl MetricsSnapshot {
    /// Returns the snapshot with this coverage, which is all 0 otherwise.
    #[must_use]
    pub fn with_coverage(self, coverage: Coverage) -> Self {
        Self { coverage, ..self }
    }

    /// Returns the transitions since the start, as `tcptrace_transitions_total` counts them.
    pub(crate) fn transitions(&self, from: TcpState, to: TcpState) -> u64 {
        self.totals.transitions[from as usize][to as usize]
    }

    /// Returns the sockets in a state, as `tcptrace_connections` counts them.
    pub(crate) fn connections(&self, state: TcpState) -> u64 {
        let owned: u64 =
            self.owners.iter().map(|owner| u64::from(owner.gauges.connections[state as usize])).sum();
        owned + self.unowned(state)
    }

    /// Returns the stuck connections in a state, as `tcptrace_stuck_connections` counts them.
    pub(crate) fn stuck(&self, state: TcpState) -> u64 {
        self.owners.iter().map(|owner| u64::from(owner.gauges.stuck[state as usize])).sum()
    }

    /// Returns the accept queues by port, from a listener dump and from arriving connections.
    pub(crate) fn accept_queues(&self, live: &LiveQueues) -> Vec<PortQueue> {
        join(live, &self.queues)
    }

    /// Returns the sockets in a state that are not in the connection table: listeners and timewait sockets.
    pub(super) fn unowned(&self, state: TcpState) -> u64 {
        let count = match state {
            TcpState::Listen => self.listeners,
            TcpState::TimeWait => self.time_wait,
            TcpState::FinWait2 => self.fin_wait_2,
            _ => 0,
        };
        count as u64
    }
}
