//! Counts live and stuck connections by scanning the connection table in parts.

use tracer_core::{
    event::{Nanos, Timestamp},
    lifecycle::{Age, Thresholds, Tracker},
};

use crate::agent::metrics::{label_sources::LabelInputs, owners::Owners};

/// Table slots scanned per batch of events; takes well under a millisecond.
const PART: usize = 8192;
/// The same with opt-in labels, whose values have to be resolved.
const LABELLED_PART: usize = 512;
/// Shortest time between the starts of two scans.
const INTERVAL: Nanos = Nanos::from_secs(1);

/// The progress of the scan.
#[derive(Debug, Default)]
pub(super) struct GaugeScan {
    next: Option<usize>,
    begun: Timestamp,
}

impl GaugeScan {
    /// Scans the next part, or starts a scan when one is due.
    pub(super) fn advance(
        &mut self,
        tracker: &Tracker,
        owners: &mut Owners,
        thresholds: &Thresholds,
        now: Timestamp,
    ) {
        if self.next.is_none() && now.since(self.begun) >= INTERVAL {
            self.begin(owners, now);
        }
        if self.next.is_some() {
            self.part(tracker, owners, thresholds, now);
        }
    }

    /// Rescans a table that fits into one part, so that its counts are current.
    pub(super) fn refresh(
        &mut self,
        tracker: &Tracker,
        owners: &mut Owners,
        thresholds: &Thresholds,
        now: Timestamp,
    ) {
        if tracker.slots() <= part_of(owners) {
            self.begin(owners, now);
            self.part(tracker, owners, thresholds, now);
        }
    }

    fn begin(&mut self, owners: &mut Owners, now: Timestamp) {
        self.begun = now;
        self.next = Some(0);
        for slot in owners.slots_mut() {
            slot.next_gauges = super::tally::Gauges::default();
        }
    }

    fn part(&mut self, tracker: &Tracker, owners: &mut Owners, thresholds: &Thresholds, now: Timestamp) {
        let Some(from) = self.next else { return };
        self.next = tracker.walk(from, part_of(owners), &mut |connection| {
            let stuck = thresholds.is_exceeded(connection.state(), Age::of(connection, now));
            owners.gauge_slot(LabelInputs::of(connection), now).next_gauges.add(connection.state(), stuck);
        });
        if self.next.is_none() {
            for slot in owners.slots_mut() {
                slot.gauges = slot.next_gauges;
            }
        }
    }
}

fn part_of(owners: &Owners) -> usize {
    if owners.labelled() { LABELLED_PART } else { PART }
}
