//! Quantiles of durations in bounded memory.

use sketches_ddsketch::{Config, DDSketch};

/// The relative error of a quantile: 1 %.
pub(super) const RELATIVE_ERROR: f64 = 0.01;
/// Enough for every duration from a nanosecond to 18 years without giving up the error bound; each takes 8 bytes
/// and they are added by 128, so a sketch of what spans three decades takes 3 KiB.
const MAX_BINS: u32 = 2048;

/// A sketch of durations (DDSketch, Masson et al., VLDB 2019): a quantile is within 1 % of the value at its
/// rank; count, sum and maximum are exact.
#[derive(Clone)]
pub struct DurationSketch {
    sketch: DDSketch,
    sum_ns: u128,
    max_ns: u64,
}

impl Default for DurationSketch {
    fn default() -> Self {
        // The least value is a tenth of a nanosecond: below it a duration counts as 0.
        let config = Config::new(RELATIVE_ERROR, MAX_BINS, 0.1);
        Self { sketch: DDSketch::new(config), sum_ns: 0, max_ns: 0 }
    }
}

impl std::fmt::Debug for DurationSketch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DurationSketch")
            .field("count", &self.count())
            .field("sum_ns", &self.sum_ns)
            .field("max_ns", &self.max_ns)
            .finish_non_exhaustive()
    }
}

impl DurationSketch {
    /// Takes in a duration.
    #[expect(clippy::cast_precision_loss, reason = "far below the error of the sketch")]
    pub fn add(&mut self, nanoseconds: u64) {
        self.sketch.add(nanoseconds as f64);
        self.sum_ns += u128::from(nanoseconds);
        self.max_ns = self.max_ns.max(nanoseconds);
    }

    /// Takes in all of another.
    pub fn merge(&mut self, other: &Self) {
        // They have the same configuration, the only thing that it can fail for.
        let merged = self.sketch.merge(&other.sketch);
        debug_assert!(merged.is_ok(), "{merged:?}");
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.sketch.count() as u64
    }

    /// Their sum, nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        u64::try_from(self.sum_ns).unwrap_or(u64::MAX)
    }

    /// The longest, nanoseconds; none when there is none.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.max_ns)
    }

    /// The value at the rank `q` (0 to 1) of all of them, nanoseconds, within 1 %; none when there is none.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let value = self.sketch.quantile(q.clamp(0.0, 1.0)).ok().flatten()?;
        Some((value.round() as u64).min(self.max_ns))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_one_knows_nothing() {
        let sketch = DurationSketch::default();
        assert_eq!((sketch.count(), sketch.sum_ns(), sketch.max_ns()), (0, 0, None));
        assert_eq!(sketch.quantile_ns(0.5), None);
    }

    #[test]
    fn nothing_takes_no_time() {
        let mut sketch = DurationSketch::default();
        sketch.add(0);
        assert_eq!((sketch.quantile_ns(0.5), sketch.max_ns()), (Some(0), Some(0)));
    }

    proptest! {
        #[test]
        fn quantiles_keep_the_documented_bound(
            mut durations in proptest::collection::vec(1_000_u64..100_000_000_000, 1..400),
            thousandths in 0..=1000_usize,
            cut in 0_usize..400,
        ) {
            // Half of them through another sketch.
            let (mut sketch, mut other) = (DurationSketch::default(), DurationSketch::default());
            let cut = cut.min(durations.len());
            durations[..cut].iter().for_each(|&it| sketch.add(it));
            durations[cut..].iter().for_each(|&it| other.add(it));
            sketch.merge(&other);
            durations.sort_unstable();
            let last = f64::from(u32::try_from(durations.len() - 1).unwrap());
            let rank = durations.len().saturating_sub(1) * thousandths / 1000;
            let exact = durations[rank];
            // Between two ranks, so that rounding cannot lead to the one below.
            let q = (f64::from(u32::try_from(rank).unwrap()) + 0.5) / last.max(1.0);
            let shown = sketch.quantile_ns(q).unwrap();
            // One in a hundred, and one for the rounding to whole nanoseconds.
            prop_assert!(shown.abs_diff(exact) <= exact / 100 + 2, "{shown} for {exact}");
            prop_assert_eq!(sketch.count(), durations.len() as u64);
            prop_assert_eq!(sketch.sum_ns(), durations.iter().sum::<u64>());
            prop_assert_eq!(sketch.max_ns(), durations.last().copied());
        }
    }
}
