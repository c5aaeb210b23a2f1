//! Shares of two periods, and the test of their difference.

use crate::{
    analysis::compare::fisher::{FisherTest, Table, fisher},
    event::Timestamp,
};

/// Number of time slices of a period.
const SLICES: usize = 32;

/// How many of the trials of each time slice had an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    slices: [(u64, u64); SLICES],
}

impl Share {
    /// Counts trials; `true` is an event. The slices divide the time from the first to the last trial.
    pub(super) fn of(trials: impl Iterator<Item = (Timestamp, bool)> + Clone) -> Self {
        let mut share = Self::default();
        let times = trials.clone().map(|(at, _)| at.0);
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return share };
        let slices = u128::from(SLICES as u64);
        for (at, is_event) in trials {
            let index = u128::from(at.0 - first) * slices / (u128::from(last - first) + 1);
            // Less than SLICES, because the divisor is larger than the first factor.
            let Some(slice) = usize::try_from(index).ok().and_then(|index| share.slices.get_mut(index))
            else {
                continue;
            };
            slice.0 += u64::from(is_event);
            slice.1 += 1;
        }
        share
    }

    /// Returns the number of events and of trials.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.slices.iter().fold((0, 0), |sum, slice| (sum.0 + slice.0, sum.1 + slice.1))
    }

    /// Returns Pearson's statistic of the slices against the share of the period, and its degrees of freedom; none if the
    /// share is 0 or 1, which says nothing about how it varies.
    fn variation(&self) -> Option<(f64, f64)> {
        let (events, of) = self.counts();
        if events == 0 || events == of {
            return None;
        }
        let share = float(events) / float(of);
        let occupied = self.slices.iter().filter(|slice| slice.1 > 0);
        let statistic = occupied
            .clone()
            .map(|&(events, of)| {
                let difference = float(events) - float(of) * share;
                difference * difference / (float(of) * share * (1.0 - share))
            })
            .sum();
        Some((statistic, float(occupied.count().saturating_sub(1) as u64)))
    }
}

/// The tested difference of two shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    /// How much more a share varies between time slices than independent events do; at least 1.
    pub(super) design_effect: f64,
    /// Fisher's test of the counts, divided by the design effect.
    pub(super) test: FisherTest,
}

/// Tests whether two shares differ.
pub(super) fn difference(before: &Share, after: &Share) -> Difference {
    let (statistic, freedom) = [before, after]
        .into_iter()
        .filter_map(Share::variation)
        .fold((0.0, 0.0), |sum, variation| (sum.0 + variation.0, sum.1 + variation.1));
    let design_effect = if freedom > 0.0 { (statistic / freedom).max(1.0) } else { 1.0 };
    let table = Table {
        before: effective(before.counts(), design_effect),
        after: effective(after.counts(), design_effect),
    };
    Difference { design_effect, test: fisher(table) }
}

/// Divides counts by the design effect.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the counts only get smaller")]
fn effective((events, of): (u64, u64), design_effect: f64) -> (u64, u64) {
    if design_effect <= 1.0 {
        return (events, of);
    }
    let of = (float(of) / design_effect).floor() as u64;
    let events = (float(events) / design_effect).round() as u64;
    (events.min(of), of)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a recording are below 2^53")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(events: impl IntoIterator<Item = bool, IntoIter: Clone>) -> Share {
        Share::of(events.into_iter().zip(0..).map(|(is_event, at)| (Timestamp(at * 1_000), is_event)))
    }

    #[test]
    fn slices_divide_the_time_of_a_period() {
        let even = share((0..64).map(|at| at < 2));
        assert_eq!(even.slices[0], (2, 2));
        assert_eq!(even.slices[31], (0, 2));
        assert_eq!(even.counts(), (2, 64));
        assert_eq!(share([]).counts(), (0, 0));
        assert_eq!(share([true]).counts(), (1, 1));
    }

    #[test]
    fn a_burst_counts_less_than_the_same_number_of_independent_events() {
        let none = share((0..1_000).map(|_| false));
        let spread = share((0..1_000).map(|at| at % 40 == 0));
        let burst = share((0..1_000).map(|at| (500..525).contains(&at)));
        let (of_spread, of_burst) = (difference(&none, &spread), difference(&none, &burst));
        assert!(of_spread.design_effect <= 1.0 + 1e-9, "{of_spread:?}");
        assert!(of_spread.test.p < 1e-7, "{of_spread:?}");
        assert!(of_burst.design_effect > 10.0, "{of_burst:?}");
        assert!(of_burst.test.p > 0.1, "{of_burst:?}");
    }

    proptest! {
        #[test]
        fn equal_shares_do_not_differ(events in proptest::collection::vec(any::<bool>(), 0..300)) {
            let share = share(events);
            let difference = difference(&share, &share);
            prop_assert!(difference.test.p > 0.9, "{difference:?}");
            prop_assert!(difference.design_effect >= 1.0);
        }
    }
}
