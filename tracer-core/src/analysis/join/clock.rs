//! The offset between the clocks of two hosts, as handshakes bound it.
//!
//! A server answers after the client has sent its SYN and before the client is ESTABLISHED, and it is ESTABLISHED after the
//! client. Each of these orders bounds the offset, however long the segments took and however many were lost. Nothing is
//! assumed about the network: no symmetry, no shortest time.

/// How fast two clocks may drift apart: 200 ppm, twice what a crystal without correction drifts. A clock that is being
/// stepped or slewed faster shows as bounds that contradict each other.
pub const MAX_DRIFT: f64 = 200e-6;

/// The nanoseconds in which two clocks drift apart by one, at most.
const NS_PER_DRIFT: i64 = 5_000;

/// Without a bound. Far from the limits of the type, so that a drift can be added.
const NONE: i64 = i64::MAX / 4;

/// Bounds of the offset of the other host's clock from this host's, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBounds {
    /// The least that the other clock is ahead.
    pub low: i64,
    /// The most that the other clock is ahead.
    pub high: i64,
}

impl ClockBounds {
    const UNBOUNDED: Self = Self { low: -NONE, high: NONE };

    /// Creates bounds; none if they contradict each other. A missing bound is far away.
    pub(super) fn new(low: Option<i64>, high: Option<i64>) -> Option<Self> {
        let low = low.unwrap_or(-NONE).clamp(-NONE, NONE);
        let high = high.unwrap_or(NONE).clamp(-NONE, NONE);
        (low <= high).then_some(Self { low, high })
    }

    /// Returns the offset in the middle of the bounds.
    pub const fn middle(self) -> i64 {
        self.low + (self.high - self.low) / 2
    }

    /// Returns how far the true offset may be from the middle.
    pub const fn uncertainty(self) -> i64 {
        (self.high - self.low + 1) / 2
    }

    /// Returns the bounds of the offset in the opposite direction.
    pub(super) const fn reversed(self) -> Self {
        Self { low: -self.high, high: -self.low }
    }

    fn intersection(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    /// Returns the bounds at a time that differs by `span`.
    pub(super) fn after(self, span: i64) -> Self {
        let drift = span.saturating_abs().saturating_add(NS_PER_DRIFT - 1) / NS_PER_DRIFT;
        Self {
            low: self.low.saturating_sub(drift).max(-NONE),
            high: self.high.saturating_add(drift).min(NONE),
        }
    }

    fn is_bounded(self) -> bool {
        self.low > -NONE && self.high < NONE && self.low <= self.high
    }
}

/// Bounds at a time of this host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) at: i64,
    pub(super) bounds: ClockBounds,
}

/// The offset of the clocks over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Clocks {
    /// Each with the bounds that this handshake and all earlier ones give, and those that it and all later ones give.
    bounds: Vec<(Bound, ClockBounds, ClockBounds)>,
    contradictions: u64,
}

impl Clocks {
    pub(super) fn new(mut bounds: Vec<Bound>) -> Self {
        bounds.sort_unstable_by_key(|bound| bound.at);
        let mut bounds: Vec<_> =
            bounds.into_iter().map(|bound| (bound, bound.bounds, bound.bounds)).collect();
        let mut running: Option<Bound> = None;
        let mut contradictions = 0;
        for (bound, from_earlier, _) in &mut bounds {
            let with_earlier = carried(running, *bound);
            contradictions += u64::from(with_earlier.is_none());
            *from_earlier = with_earlier.unwrap_or(bound.bounds);
            running = Some(Bound { at: bound.at, bounds: *from_earlier });
        }
        running = None;
        for (bound, _, from_later) in bounds.iter_mut().rev() {
            *from_later = carried(running, *bound).unwrap_or(bound.bounds);
            running = Some(Bound { at: bound.at, bounds: *from_later });
        }
        Self { bounds, contradictions }
    }

    /// Returns the bounds at a time; none without any, and where they contradict each other.
    pub(super) fn at(&self, time: i64) -> Option<ClockBounds> {
        let next = self.bounds.partition_point(|(bound, ..)| bound.at < time);
        let after = self.bounds.partition_point(|(bound, ..)| bound.at <= time);
        let before = after.checked_sub(1).and_then(|index| self.bounds.get(index));
        let mut bounds = ClockBounds::UNBOUNDED;
        if let Some((bound, from_earlier, _)) = before {
            bounds = bounds.intersection(from_earlier.after(time.saturating_sub(bound.at)));
        }
        if let Some((bound, _, from_later)) = self.bounds.get(next) {
            bounds = bounds.intersection(from_later.after(bound.at.saturating_sub(time)));
        }
        bounds.is_bounded().then_some(bounds)
    }

    /// Returns the estimate to state.
    pub(super) fn estimate(&self) -> Option<ClockEstimate> {
        let at = |bound: &Bound| Some((bound.at, self.at(bound.at)?));
        let all = || self.bounds.iter().filter_map(|(bound, ..)| at(bound));
        let (at, bounds) = all().min_by_key(|(_, bounds)| bounds.high - bounds.low)?;
        let contradictions = self.contradictions;
        Some(ClockEstimate { at, bounds, first: all().next()?.1, last: all().next_back()?.1, contradictions })
    }
}

/// Returns the bounds of `bound` and of an earlier or later one; none if they contradict each other, because a clock was
/// stepped between them.
fn carried(neighbor: Option<Bound>, bound: Bound) -> Option<ClockBounds> {
    let Some(neighbor) = neighbor else { return Some(bound.bounds) };
    let both = bound.bounds.intersection(neighbor.bounds.after(bound.at.saturating_sub(neighbor.at)));
    (both.low <= both.high).then_some(both)
}

/// The estimated offset of the other host's clock from this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockEstimate {
    /// When the bounds are the tightest, on this host's wall clock, nanoseconds.
    pub(super) at: i64,
    /// The bounds at that time.
    pub bounds: ClockBounds,
    /// The bounds at the first matched handshake.
    pub first: ClockBounds,
    /// The bounds at the last one.
    pub last: ClockBounds,
    /// How often the bounds of a handshake contradict those of the earlier ones: a clock was stepped, or slewed faster than
    /// [`MAX_DRIFT`]. Each side of the step has bounds of its own.
    pub contradictions: u64,
}

impl ClockEstimate {
    /// Returns whether the offset certainly changed between the first and the last handshake.
    pub const fn drifts(&self) -> bool {
        self.first.high < self.last.low || self.last.high < self.first.low
    }

    /// Returns when the bounds are the tightest, on this host's wall clock, nanoseconds since 1970-01-01T00:00:00Z.
    pub const fn at(&self) -> i64 {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bound(at: i64, low: i64, high: i64) -> Bound {
        Bound { at, bounds: ClockBounds { low, high } }
    }

    #[test]
    fn the_tightest_bounds_of_all_handshakes_are_stated() {
        let clocks = Clocks::new(vec![bound(0, -50, 40), bound(10, 5, 90), bound(20, -10, 20)]);
        let estimate = clocks.estimate().unwrap();
        let ClockBounds { low, high } = estimate.bounds;
        assert!((3..=5).contains(&low) && (20..=22).contains(&high), "{estimate:?}");
        assert_eq!((estimate.contradictions, estimate.drifts()), (0, false));
        assert_eq!(Clocks::new(Vec::new()).estimate(), None);
    }

    #[test]
    fn a_drift_is_told_from_the_first_and_the_last_handshake() {
        const HOUR: i64 = 3_600_000_000_000;
        let clocks = Clocks::new(vec![bound(0, -1_000, 1_000), bound(HOUR, 1_000_000, 1_002_000)]);
        let estimate = clocks.estimate().unwrap();
        assert!(estimate.drifts() && estimate.contradictions == 0, "{estimate:?}");
        assert_eq!(estimate.first, ClockBounds { low: -1_000, high: 1_000 });
    }

    #[test]
    fn a_stepped_clock_is_counted_as_a_contradiction() {
        const SECOND: i64 = 1_000_000_000;
        let clocks = Clocks::new(vec![bound(0, -10, 10), bound(1, SECOND, SECOND + 10)]);
        assert_eq!(clocks.at(0), Some(ClockBounds { low: -10, high: 10 }));
        assert_eq!(clocks.at(1), Some(ClockBounds { low: SECOND, high: SECOND + 10 }));
        let estimate = clocks.estimate().unwrap();
        assert!(estimate.contradictions == 1 && estimate.drifts(), "{estimate:?}");
    }

    proptest! {
        #[test]
        fn the_true_offset_is_within_the_bounds(
            offset in -1_000_000_000_000_i64..1_000_000_000_000,
            drift_ppm in -200_i64..=200,
            handshakes in prop::collection::vec((0..3_600_000_000_000_i64, 0..5_000_000_000_i64, 0..5_000_000_000_i64), 1..40),
            asked in 0..3_600_000_000_000_i64,
        ) {
            let truth = |at: i64| offset + at / 1_000_000 * drift_ppm;
            let bounds = handshakes.iter().map(|&(at, below, above)| bound(at, truth(at) - below - 200, truth(at) + above + 200));
            let clocks = Clocks::new(bounds.collect());
            let at_asked = clocks.at(asked).unwrap();
            // The truth is rounded to whole parts.
            prop_assert!(at_asked.low <= truth(asked) + 200 && truth(asked) - 200 <= at_asked.high, "{:?} {}", at_asked, truth(asked));
            let estimate = clocks.estimate().unwrap();
            let stated = truth(estimate.at);
            prop_assert!(estimate.bounds.low <= stated + 200 && stated - 200 <= estimate.bounds.high);
            prop_assert!((estimate.bounds.middle() - stated).abs() <= estimate.bounds.uncertainty() + 200);
            prop_assert_eq!(estimate.contradictions, 0);
        }

        #[test]
        fn any_bounds_are_taken_without_a_panic(all in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>()), 0..20), at: i64) {
            let limit = |value: i64| value.clamp(-NONE, NONE);
            let clocks = Clocks::new(all.into_iter().map(|(at, low, high)| bound(limit(at), limit(low), limit(high))).collect());
            let _ = (clocks.at(limit(at)), clocks.estimate().map(|estimate| (estimate.drifts(), estimate.bounds.middle())));
        }
    }
}
