//! Counts the stuck connections by scanning the connection table in parts.

use crate::{
    event::{Nanos, Timestamp},
    lifecycle::{Age, Thresholds, Tracker},
};

/// Table slots scanned per batch of events; takes well under a millisecond.
const PART: usize = 8192;
/// Shortest time between the starts of two scans.
const INTERVAL: Nanos = Nanos::from_secs(1);

/// The progress of the scan, and the result of the last whole one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StuckScan {
    next: Option<usize>,
    begun: Timestamp,
    counting: u64,
    found: u64,
}

impl StuckScan {
    /// Scans the next part, or starts a scan when one is due.
    pub(super) fn advance(&mut self, tracker: &Tracker, thresholds: &Thresholds, now: Timestamp) {
        if self.next.is_none() && now.since(self.begun) >= INTERVAL {
            (self.begun, self.next, self.counting) = (now, Some(0), 0);
        }
        let Some(from) = self.next else { return };
        let counting = &mut self.counting;
        self.next = tracker.walk(from, PART, &mut |connection| {
            let stuck = thresholds.is_exceeded(connection.state(), Age::of(connection, now));
            *counting += u64::from(stuck);
        });
        if self.next.is_none() {
            self.found = self.counting;
        }
    }

    /// Returns the number that the last whole scan found.
    pub(super) fn found(self) -> u64 {
        self.found
    }
}
