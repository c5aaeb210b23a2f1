//! The counts of one moment, copied out of the thread that makes them.

use tracer_core::{
    event::SourceCounts,
    lifecycle::{Thresholds, TrackerCounts},
};

use crate::agent::metrics::{
    queues::ArrivedAt,
    tally::{Gauges, Tally},
    totals::Totals,
};

/// The counts of one combination of opt-in labels.
#[derive(Clone, Debug)]
pub(super) struct OwnerCounts {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) tally: Tally,
    pub(super) gauges: Gauges,
}

/// The counts of one moment.
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
    pub(super) source: SourceCounts,
    pub(super) tracker: TrackerCounts,
    pub(super) live: usize,
    pub(super) bpf_run_ns: Option<u64>,
}
