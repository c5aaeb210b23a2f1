//! Fisher's exact test of a table with two rows and two columns.

/// Events of two samples: in each, `count` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) before: (u64, u64),
    pub(super) after: (u64, u64),
}

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FisherTest {
    /// The probability of a table at most as probable as this one, if both samples have the same share (two-sided).
    pub(super) p: f64,
    /// The smallest `p` of any table with the same margins.
    pub(super) min_p: f64,
}

/// Probabilities that differ by less are equal, as in R's `fisher.test`.
const EQUAL: f64 = 1.0 + 1e-7;

/// Performs the test. A sample without trials gives 1.
///
/// Computes the hypergeometric probabilities relative to the most probable table, by the ratio of neighbours, so that nothing
/// overflows. The walk ends where they underflow, after a number of steps that grows with the root of the sample sizes.
pub(super) fn fisher(table: Table) -> FisherTest {
    let ((observed, before), (other, after)) = (table.before, table.after);
    let events = observed.saturating_add(other);
    let (low, high) = (events.saturating_sub(after), events.min(before));
    // The mode is (events + 1) * (before + 1) / (before + after + 2), which always is in the support.
    let mode =
        (u128::from(events) + 1) * (u128::from(before) + 1) / (u128::from(before) + u128::from(after) + 2);
    let mode = u64::try_from(mode).unwrap_or(high).clamp(low, high);
    // The probability of `at + 1` events before, relative to that of `at`.
    let ratio = |at: u64| {
        let up = float(before - at) * float(events - at);
        let down = float(at + 1) * float(after.saturating_add(at + 1).saturating_sub(events));
        up / down
    };
    let mut weights = Weights::default();
    weights.add(mode, 1.0, observed);
    let mut weight = 1.0;
    for at in mode..high {
        weight *= ratio(at);
        if weight == 0.0 {
            break;
        }
        weights.add(at + 1, weight, observed);
    }
    let highest = if weights.last == high { weight.min(1.0) } else { 0.0 };
    weight = 1.0;
    for at in (low..mode).rev() {
        weight /= ratio(at);
        if weight == 0.0 {
            break;
        }
        weights.add(at, weight, observed);
    }
    let lowest = if weights.first == low { weight.min(1.0) } else { 0.0 };
    let total: f64 = weights.all.iter().map(|&(_, weight)| weight).sum();
    let at_most = |limit: f64| {
        // From the smallest to the largest, so that small ones count.
        let mut kept: Vec<f64> =
            weights.all.iter().map(|&(_, weight)| weight).filter(|&it| it <= limit * EQUAL).collect();
        kept.sort_by(f64::total_cmp);
        (kept.iter().sum::<f64>() / total).min(1.0)
    };
    FisherTest { p: at_most(weights.observed), min_p: at_most(lowest.min(highest)) }
}

/// The relative probabilities around the mode.
#[derive(Default)]
struct Weights {
    all: Vec<(u64, f64)>,
    first: u64,
    last: u64,
    /// That of the observed table; 0 if it underflows.
    observed: f64,
}

impl Weights {
    fn add(&mut self, at: u64, weight: f64, observed: u64) {
        if self.all.is_empty() {
            (self.first, self.last) = (at, at);
        }
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        if at == observed {
            self.observed = weight;
        }
        self.all.push((at, weight));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a recording are below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn test(before: (u64, u64), after: (u64, u64)) -> FisherTest {
        fisher(Table { before, after })
    }

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 1e-9
    }

    #[test]
    fn published_values_are_reproduced() {
        // The lady tasting tea: 3 of 4 cups right.
        assert!(is_near(test((3, 4), (1, 4)).p, 34.0 / 70.0));
        // All cups right is the best result that eight cups allow.
        assert!(is_near(test((4, 4), (0, 4)).p, 2.0 / 70.0));
        assert!(is_near(test((3, 4), (1, 4)).min_p, 2.0 / 70.0));
    }

    #[test]
    fn samples_without_events_or_trials_prove_nothing() {
        for (before, after) in [((0, 10), (0, 20)), ((10, 10), (20, 20)), ((0, 0), (5, 9)), ((0, 0), (0, 0))]
        {
            assert_eq!(test(before, after), FisherTest { p: 1.0, min_p: 1.0 });
        }
    }

    #[test]
    fn large_samples_neither_overflow_nor_take_long() {
        let equal = test((10_000, 1_000_000), (10_000, 1_000_000));
        assert!(equal.p > 0.999, "{equal:?}");
        let different = test((0, 1_000_000), (900_000, 1_000_000));
        assert_eq!(different, FisherTest { p: 0.0, min_p: 0.0 });
        // 20 lost of 1,000 and none: 2 * C(1000, 20) / C(2000, 20).
        let expected: f64 =
            2.0 * (0..20).map(|at| f64::from(1_000 - at) / f64::from(2_000 - at)).product::<f64>();
        assert!(is_near(test((0, 1_000), (20, 1_000)).p, expected));
    }

    /// Returns the number of ways to choose, exactly.
    fn choose(of: u64, count: u64) -> u128 {
        (0..count).fold(1, |ways, at| ways * u128::from(of - at) / u128::from(at + 1))
    }

    proptest! {
        #[test]
        fn it_equals_the_sum_of_all_tables(before in 0..=30_u64, after in 0..=30_u64, a in 0..=30_u64, b in 0..=30_u64) {
            let (a, b) = (a.min(before), b.min(after));
            let events = a + b;
            let ways = |at: u64| choose(before, at) * choose(after, events - at);
            let tables = events.saturating_sub(after)..=events.min(before);
            let all: u128 = tables.clone().map(ways).sum();
            let at_most = |limit: u128| {
                let kept: u128 = tables.clone().map(ways).filter(|&it| it <= limit).sum();
                #[expect(clippy::cast_precision_loss, reason = "the comparison allows for it")]
                let share = kept as f64 / all as f64;
                share
            };
            let tested = test((a, before), (b, after));
            let least = tables.clone().map(ways).min().unwrap();
            prop_assert!(is_near(tested.p, at_most(ways(a))), "{tested:?}");
            prop_assert!(is_near(tested.min_p, at_most(least)), "{tested:?}");
            prop_assert!(tested.min_p <= tested.p);
            prop_assert!(is_near(test((b, after), (a, before)).p, tested.p));
        }
    }
}
