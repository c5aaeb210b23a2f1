//! A copy of the counts for one scrape.

use tracer_core::{
    event::{Nanos, SourceCounts},
    lifecycle::{Thresholds, TrackerCounts},
};

use crate::{
    agent::metrics::{
        queues::ArrivedAt,
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
    pub(super) source: SourceCounts,
    pub(super) coverage: Coverage,
    pub(super) tracker: TrackerCounts,
    pub(super) live: usize,
    pub(super) bpf_run_time: Option<Nanos>,
}

impl MetricsSnapshot {
    /// Returns the snapshot with this coverage, which is all 0 otherwise.
    #[must_use]
    pub fn with_coverage(self, coverage: Coverage) -> Self {
        Self { coverage, ..self }
    }
}
