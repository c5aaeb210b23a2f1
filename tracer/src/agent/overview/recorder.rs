//! Counts on the tracing thread, and copies for a request.

use std::sync::Arc;

use tracer_core::{
    event::Timestamp,
    lifecycle::{Observation, Thresholds, Tracker},
};

use crate::agent::overview::{
    history::History,
    listening::Listening,
    live::{LiveScan, LiveTable},
};

/// Counts the last hour.
#[derive(Debug)]
pub struct OverviewRecorder {
    thresholds: Thresholds,
    history: History,
    scan: LiveScan,
}

/// A copy of the last hour, for [`overview`](super::overview). It shares all minutes but the current one.
#[derive(Clone, Debug)]
pub struct OverviewSnapshot {
    pub(super) now: Timestamp,
    pub(super) thresholds: Thresholds,
    pub(super) history: History,
    /// None until the first scan of a large table ends.
    pub(super) live: Option<Arc<LiveTable>>,
    pub(super) listening: Listening,
}

impl OverviewRecorder {
    /// Creates a recorder without counts. `thresholds` are those of stuck connections.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, history: History::new(), scan: LiveScan::new() }
    }

    /// Counts an observation.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        self.history.observe(observation);
    }

    /// Runs the periodic work. Call it after each batch of events.
    pub fn advance(&mut self, tracker: &Tracker, now: Timestamp) {
        self.history.advance(now);
        self.scan.advance(tracker, &self.thresholds, now);
    }

    /// Copies the last hour for a request.
    pub fn snapshot(&mut self, tracker: &Tracker, now: Timestamp) -> OverviewSnapshot {
        OverviewSnapshot {
            now,
            thresholds: self.thresholds,
            history: self.history.clone(),
            live: self.scan.request(tracker, &self.thresholds, now),
            listening: Listening::of(tracker),
        }
    }
}
