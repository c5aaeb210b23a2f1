//! Quantiles of durations in bounded memory.

use sketches_ddsketch::{Config, DDSketch};

use crate::event::Nanos;

/// The relative error of a quantile: 1 %.
pub(super) const RELATIVE_ERROR: f64 = 0.01;
/// Covers durations from a nanosecond to 18 years within the error bound. A bin takes 8 bytes and bins are
/// allocated in blocks of 128, so a sketch of values over three decades takes 3 KiB.
const MAX_BINS: u32 = 2048;

/// A sketch of durations (DDSketch, Masson et al., VLDB 2019).
///
/// A quantile is within 1 % of the value at its rank. Count, sum and maximum are exact.
#[derive(Clone)]
pub struct DurationSketch {
    sketch: DDSketch,
    sum_ns: u128,
    max: Nanos,
}

impl Default for DurationSketch {
    fn default() -> Self {
        // The smallest value is 0.1 ns; lower values count as 0.
        let config = Config::new(RELATIVE_ERROR, MAX_BINS, 0.1);
        Self { sketch: DDSketch::new(config), sum_ns: 0, max: Nanos::ZERO }
    }
}

impl std::fmt::Debug for DurationSketch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DurationSketch")
            .field("count", &self.count())
            .field("sum_ns", &self.sum_ns)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl DurationSketch {
    /// Adds a duration.
    #[expect(clippy::cast_precision_loss, reason = "far below the error of the sketch")]
    pub(super) fn add(&mut self, duration: Nanos) {
        self.sketch.add(duration.0 as f64);
        self.sum_ns += u128::from(duration.0);
        self.max = self.max.max(duration);
    }

    /// Adds all durations of another sketch.
    pub(super) fn merge(&mut self, other: &Self) {
        // Merging fails only for different configurations, and all sketches have the same.
        let merged = self.sketch.merge(&other.sketch);
        debug_assert!(merged.is_ok(), "{merged:?}");
        self.sum_ns += other.sum_ns;
        self.max = self.max.max(other.max);
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.sketch.count() as u64
    }

    /// Returns the sum of the durations.
    pub fn sum(&self) -> Nanos {
        saturate(self.sum_ns)
    }

    /// Returns the longest duration; none for an empty sketch.
    pub fn max(&self) -> Option<Nanos> {
        (self.count() > 0).then_some(self.max)
    }

    /// Returns the quantile `q` (0 to 1), within 1 %; none for an empty sketch.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub fn quantile(&self, q: f64) -> Option<Nanos> {
        let value = self.sketch.quantile(q.clamp(0.0, 1.0)).ok().flatten()?;
        Some(Nanos(value.round() as u64).min(self.max))
    }
}

/// Converts a sum of nanoseconds that may exceed 64 bits.
pub(super) fn saturate(nanoseconds: u128) -> Nanos {
    Nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_sketch_has_no_quantiles() {
        let sketch = DurationSketch::default();
        assert_eq!((sketch.count(), sketch.sum(), sketch.max()), (0, Nanos::ZERO, None));
        assert_eq!(sketch.quantile(0.5), None);
    }

    #[test]
    fn a_duration_of_zero_is_kept() {
        let mut sketch = DurationSketch::default();
        sketch.add(Nanos::ZERO);
        assert_eq!((sketch.quantile(0.5), sketch.max()), (Some(Nanos::ZERO), Some(Nanos::ZERO)));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_documented_error(
            mut durations in proptest::collection::vec(1_000_u64..100_000_000_000, 1..400),
            thousandths in 0..=1000_usize,
            cut in 0_usize..400,
        ) {
            // Adds a part of the durations through a second sketch.
            let (mut sketch, mut other) = (DurationSketch::default(), DurationSketch::default());
            let cut = cut.min(durations.len());
            durations[..cut].iter().for_each(|&it| sketch.add(Nanos(it)));
            durations[cut..].iter().for_each(|&it| other.add(Nanos(it)));
            sketch.merge(&other);
            durations.sort_unstable();
            let last = f64::from(u32::try_from(durations.len() - 1).unwrap());
            let rank = durations.len().saturating_sub(1) * thousandths / 1000;
            let exact = durations[rank];
            // The middle between two ranks, so that rounding does not select the lower rank.
            let q = (f64::from(u32::try_from(rank).unwrap()) + 0.5) / last.max(1.0);
            let shown = sketch.quantile(q).unwrap().0;
            // 1 %, and the rounding to whole nanoseconds.
            prop_assert!(shown.abs_diff(exact) <= exact / 100 + 2, "{shown} for {exact}");
            prop_assert_eq!(sketch.count(), durations.len() as u64);
            prop_assert_eq!(sketch.sum(), Nanos(durations.iter().sum::<u64>()));
            prop_assert_eq!(sketch.max(), durations.last().copied().map(Nanos));
        }
    }
}
