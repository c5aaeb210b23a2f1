//! MetricsConsumer who is there by going through the table of connections, a part at a time.

use tracer_core::{
    event::Timestamp,
    lifecycle::{Connection, Thresholds, Tracker},
};

use crate::agent::metrics::owners::{LabelInputs, Owners};

/// Places of the table that are looked at in one go: well below a millisecond, also of the largest table.
const PART: usize = 8192;
/// The same with opt-in labels, each of which is looked up.
const LABELLED_PART: usize = 512;
/// How often it is begun anew at most, nanoseconds.
const INTERVAL_NS: u64 = 1_000_000_000;

/// A look at every connection that may be under way.
#[derive(Debug, Default)]
pub(super) struct GaugeScan {
    next: Option<usize>,
    begun: Timestamp,
}

impl GaugeScan {
    /// Goes on with the look, or begins one when it is time.
    pub(super) fn advance(
        &mut self,
        tracker: &Tracker,
        owners: &mut Owners,
        thresholds: &Thresholds,
        now: Timestamp,
    ) {
        if self.next.is_none() && now.since(self.begun) >= INTERVAL_NS {
            self.begin(owners, now);
        }
        if self.next.is_some() {
            self.part(tracker, owners, thresholds, now);
        }
    }

    /// Makes the counts as new as possible: a table that can be looked through in one go is.
    pub(super) fn refresh(
        &mut self,
        tracker: &Tracker,
        owners: &mut Owners,
        thresholds: &Thresholds,
        now: Timestamp,
    ) {
        if tracker.places() <= part_of(owners) {
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
            let stuck = is_stuck(connection, thresholds, now);
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

fn is_stuck(connection: &Connection, thresholds: &Thresholds, now: Timestamp) -> bool {
    let Some(limit) = thresholds.of(connection.state()) else { return false };
    // Of one that was there before it is known since when it is certainly in its state; after a gap nothing is.
    let since = connection.history.since().or((!connection.gap).then_some(connection.first_seen));
    since.is_some_and(|since| now.since(since) >= limit)
}
