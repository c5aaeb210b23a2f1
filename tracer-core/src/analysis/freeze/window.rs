//! The counts and durations of a sliding window.

use crate::{
    analysis::{
        DurationSketch, HandshakeAttempt, HandshakeOutcome,
        freeze::condition::{FreezeCount, FreezeMeasure, Measured},
    },
    event::{Nanos, SourceCounts, Timestamp},
    lifecycle::{CloseReason, ClosedConnection, HandshakeCaveat, Observation},
};

/// Fewest handshakes of which a percentile is taken. The percentile is the value at the rank rounded down, so that one slow
/// handshake is no 99th percentile.
pub const MIN_HANDSHAKES: u64 = 20;

/// The window slides in steps of a tenth.
const PARTS: usize = 10;

/// A tenth of the window.
#[derive(Clone, Debug, Default)]
struct Part {
    counts: [u64; FreezeCount::ALL.len()],
    durations: DurationSketch,
}

/// What happened in the last seconds: between nine and ten tenths of the window.
#[derive(Clone, Debug)]
pub(super) struct FreezeWindow {
    /// The length of a part.
    step: Nanos,
    parts: [Part; PARTS],
    current: usize,
    /// The end of the current part; none before the first [`advance`](Self::advance).
    ends: Option<Timestamp>,
    /// The source's missed events at the last [`advance`](Self::advance); none before the first.
    missed: Option<u64>,
}

impl FreezeWindow {
    pub(super) fn new(length: Nanos) -> Self {
        Self {
            step: Nanos((length.0 / PARTS as u64).max(1)),
            parts: Default::default(),
            current: 0,
            ends: None,
            missed: None,
        }
    }

    /// Counts an observation into the current part.
    pub(super) fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Closed(closed) => self.closed(closed),
            Observation::SegmentDropped(_) => self.add(FreezeCount::DroppedSegments, 1),
            _ => {}
        }
        if let Some(attempt) = HandshakeAttempt::ended_by(observation).filter(|attempt| !attempt.unserved) {
            self.attempt(&attempt);
        }
    }

    fn closed(&mut self, closed: &ClosedConnection<'_>) {
        if !closed.close_seen {
            return;
        }
        let reason = closed.close_cause.reason;
        if reason.is_failure() {
            self.add(FreezeCount::Failures, 1);
        }
        match reason {
            CloseReason::ResetByPeer => self.add(FreezeCount::Resets, 1),
            CloseReason::TimedOut
            | CloseReason::RetransmissionTimeout
            | CloseReason::KeepaliveTimeout
            | CloseReason::UserTimeout
            | CloseReason::PeerVanished => self.add(FreezeCount::Timeouts, 1),
            _ => {}
        }
    }

    fn attempt(&mut self, attempt: &HandshakeAttempt) {
        let failed = match attempt.outcome {
            HandshakeOutcome::Established => false,
            HandshakeOutcome::Failed(reason) => reason.is_failure(),
            HandshakeOutcome::Abandoned => true,
        };
        self.add(FreezeCount::HandshakeFailures, u64::from(failed));
        self.add(FreezeCount::ResentSyns, attempt.retransmits.unwrap_or(0).into());
        self.add(FreezeCount::HandshakeLosses, u64::from(attempt.lost == Some(true)));
        // Time that the client may have waited for data is not the network's.
        let is_exact = attempt.caveat != Some(HandshakeCaveat::FirstData);
        if let Some(duration) = attempt.duration.filter(|_| is_exact)
            && attempt.outcome == HandshakeOutcome::Established
        {
            self.parts[self.current].durations.add(duration);
        }
    }

    fn add(&mut self, count: FreezeCount, number: u64) {
        let value = &mut self.parts[self.current].counts[count as usize];
        *value = value.saturating_add(number);
    }

    /// Moves the window to a time, and counts the events that the source missed since the last call.
    pub(super) fn advance(&mut self, now: Timestamp, source: &SourceCounts) {
        self.move_to(now);
        let missed =
            source.lost.saturating_add(source.others_lost).saturating_add(source.skipped.unwrap_or(0));
        let before = self.missed.replace(missed).unwrap_or(missed);
        self.add(FreezeCount::LostEvents, missed.saturating_sub(before));
    }

    /// Moves the window to a time.
    pub(super) fn move_to(&mut self, now: Timestamp) {
        let mut ends = self.ends.unwrap_or_else(|| now.saturating_add(self.step));
        let mut steps = 0;
        while now >= ends && steps < PARTS {
            self.current = (self.current + 1) % PARTS;
            self.parts[self.current] = Part::default();
            ends = ends.saturating_add(self.step);
            steps += 1;
        }
        if now >= ends {
            // Nothing happened for longer than the window.
            ends = now.saturating_add(self.step);
        }
        self.ends = Some(ends);
    }

    /// Returns the value of a measure in the window; none without enough handshakes, and for stuck connections, which have
    /// no window.
    pub(super) fn measure(&self, measure: FreezeMeasure) -> Option<Measured> {
        match measure {
            FreezeMeasure::Count(count) => {
                let sum =
                    self.parts.iter().map(|part| part.counts[count as usize]).fold(0, u64::saturating_add);
                Some(Measured::Count(sum))
            }
            FreezeMeasure::HandshakePercentile(percent) => {
                let durations = self.durations();
                let value = durations.quantile(f64::from(percent) / 100.0)?;
                let handshakes = durations.count();
                (handshakes >= MIN_HANDSHAKES).then_some(Measured::Duration { value, handshakes })
            }
            FreezeMeasure::HandshakeMax => {
                let longest = self.parts.iter().filter_map(|part| part.durations.max()).max()?;
                let handshakes = self.parts.iter().map(|part| part.durations.count()).sum();
                Some(Measured::Duration { value: longest, handshakes })
            }
            FreezeMeasure::Stuck => None,
        }
    }

    fn durations(&self) -> DurationSketch {
        let mut all = DurationSketch::default();
        for part in &self.parts {
            all.merge(&part.durations);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn window() -> FreezeWindow {
        let mut window = FreezeWindow::new(Nanos::from_secs(10));
        window.advance(Timestamp(0), &SourceCounts::ZERO);
        window
    }

    fn count(window: &FreezeWindow, count: FreezeCount) -> u64 {
        match window.measure(FreezeMeasure::Count(count)) {
            Some(Measured::Count(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_percentile_needs_handshakes_and_more_than_one_slow_one() {
        let p99 = FreezeMeasure::HandshakePercentile(99);
        let mut window = window();
        assert_eq!((window.measure(p99), window.measure(FreezeMeasure::HandshakeMax)), (None, None));
        let slow = Nanos::from_secs(3);
        window.parts[0].durations.add(slow);
        for _ in 2..MIN_HANDSHAKES {
            window.parts[0].durations.add(Nanos::from_millis(1));
        }
        assert_eq!(window.measure(p99), None, "one too few");
        let longest = Measured::Duration { value: slow, handshakes: MIN_HANDSHAKES - 1 };
        assert_eq!(window.measure(FreezeMeasure::HandshakeMax), Some(longest));
        window.parts[1].durations.add(Nanos::from_millis(1));
        let value = |window: &FreezeWindow| window.measure(p99).unwrap().number();
        assert!(value(&window) < 2_000_000, "one slow handshake of {MIN_HANDSHAKES}: {}", value(&window));
        window.parts[2].durations.add(slow);
        assert!(value(&window) > 2 * SECOND, "two slow handshakes: {}", value(&window));
    }

    #[test]
    fn missed_events_count_from_the_first_call_on() {
        let counts = |lost, skipped| SourceCounts { lost, skipped, others_lost: 1, ..SourceCounts::ZERO };
        let mut window = FreezeWindow::new(Nanos::from_secs(10));
        window.advance(Timestamp(1), &counts(5, Some(2)));
        assert_eq!(count(&window, FreezeCount::LostEvents), 0, "they were missed before");
        window.advance(Timestamp(2), &counts(6, Some(4)));
        assert_eq!(count(&window, FreezeCount::LostEvents), 3);
        window.advance(Timestamp(3), &counts(6, None));
        assert_eq!(count(&window, FreezeCount::LostEvents), 3, "a decrease is not a loss");
    }

    proptest! {
        /// Against a list of all times: everything of the last nine tenths is counted, and nothing older than the window.
        #[test]
        fn the_window_has_the_last_seconds(steps in proptest::collection::vec(0_u64..4 * SECOND, 1..60)) {
            let mut window = window();
            let (mut now, mut times) = (0, Vec::new());
            for step in steps {
                now += step;
                window.advance(Timestamp(now), &SourceCounts::ZERO);
                window.add(FreezeCount::Resets, 1);
                times.push(now);
                let within = |span| times.iter().filter(|&&time| time + span > now).count() as u64;
                let counted = count(&window, FreezeCount::Resets);
                prop_assert!(counted >= within(9 * SECOND), "{counted} at {now}");
                prop_assert!(counted <= within(10 * SECOND + 1), "{counted} at {now}");
            }
        }
    }
}
