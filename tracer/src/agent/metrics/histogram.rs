//! A histogram of durations in fixed arrays, with classic buckets and native buckets of schema 3.
//!
//! Native bucket `i` counts durations above `2^((i-1)/8)` and up to `2^(i/8)` seconds, so each bucket is 9 % wide.
//! This is Prometheus's standard exponential schema.

use std::sync::LazyLock;

use tracer_core::event::Nanos;

/// Upper bounds for handshakes and round trips. From 0.95 s on they bracket the times at which Linux
/// retransmits a SYN (1, 3, 7, 15, 31, 63 s after the first) and gives up (127 s).
pub(super) static HANDSHAKE_BOUNDS: ClassicBounds = ClassicBounds::new(&[
    Nanos::from_micros(50),
    Nanos::from_micros(100),
    Nanos::from_micros(250),
    Nanos::from_micros(500),
    Nanos::from_millis(1),
    Nanos::from_micros(2_500),
    Nanos::from_millis(5),
    Nanos::from_millis(10),
    Nanos::from_millis(25),
    Nanos::from_millis(50),
    Nanos::from_millis(100),
    Nanos::from_millis(150),
    Nanos::from_millis(250),
    Nanos::from_millis(500),
    Nanos::from_millis(950),
    Nanos::from_millis(1_500),
    Nanos::from_millis(2_500),
    Nanos::from_millis(3_500),
    Nanos::from_millis(7_500),
    Nanos::from_millis(15_500),
    Nanos::from_millis(31_500),
    Nanos::from_millis(67_500),
    Nanos::from_secs(131),
]);

/// Upper bounds for states and connections: 100 µs to 1 day.
pub(super) static LIFETIME_BOUNDS: ClassicBounds = ClassicBounds::new(&[
    Nanos::from_micros(100),
    Nanos::from_millis(1),
    Nanos::from_millis(5),
    Nanos::from_millis(10),
    Nanos::from_millis(50),
    Nanos::from_millis(100),
    Nanos::from_millis(500),
    Nanos::from_secs(1),
    Nanos::from_secs(5),
    Nanos::from_secs(10),
    Nanos::from_secs(30),
    Nanos::from_secs(61),
    Nanos::from_secs(120),
    Nanos::from_secs(300),
    Nanos::from_secs(900),
    Nanos::from_secs(3_600),
    Nanos::from_secs(14_400),
    Nanos::from_secs(86_400),
]);

/// The resolution of the native buckets: 2^3 buckets per doubling.
pub(super) const SCHEMA: i32 = 3;
/// The native zero bucket counts durations up to 2^-20 s (954 ns).
pub(super) const ZERO_THRESHOLD: f64 = 1.0 / 1_048_576.0;
/// The first native bucket, above the threshold.
const FIRST: i32 = -20 * 8 + 1;
/// The last native bucket, up to 2^26 s (two years); it also counts longer durations.
const LAST: i32 = 26 * 8;
const NATIVE: usize = (LAST - FIRST + 1) as usize;
/// Most classic buckets, including the unbounded one.
const CLASSIC: usize = 24;

/// Durations with the same number of binary digits and the same four leading digits: an eighth of a doubling.
///
/// The greatest duration of a group is less than 1.125 times the least. So at most one classic bound and two native bounds
/// lie inside it, and a table of groups replaces a search or a logarithm.
#[derive(Clone, Copy)]
struct Group(usize);

impl Group {
    /// Number of groups.
    const COUNT: usize = 64 * 8;

    /// Returns the group of a duration. Durations of fewer than four digits have a group each.
    #[inline]
    fn of(duration: Nanos) -> Self {
        let shift = (u64::BITS - duration.0.leading_zeros()).saturating_sub(4);
        // At most 15: the leading digits of a duration.
        Self(shift as usize * 8 + usize::try_from(duration.0 >> shift).unwrap_or(0))
    }

    /// Returns the least duration of the group, or the greatest possible duration if no group has the number.
    const fn least(self) -> Nanos {
        if self.0 < 8 {
            return Nanos(self.0 as u64);
        }
        let (shift, digits) = (self.0 / 8 - 1, self.0 % 8 + 8);
        Nanos(if shift < 61 { (digits as u64) << shift } else { u64::MAX })
    }
}

/// Classic upper bounds, ascending. At most one lies inside a [`Group`].
#[derive(Debug)]
pub(super) struct ClassicBounds {
    upper: &'static [Nanos],
    /// The first bucket of each group.
    first: [u8; Group::COUNT],
}

impl ClassicBounds {
    const fn new(upper: &'static [Nanos]) -> Self {
        assert!(upper.len() < CLASSIC);
        let mut first = [0; Group::COUNT];
        let (mut group, mut bucket) = (0, 0_u8);
        while group < Group::COUNT {
            let least = Group(group).least();
            while (bucket as usize) < upper.len() && upper[bucket as usize].0 < least.0 {
                bucket += 1;
            }
            first[group] = bucket;
            group += 1;
        }
        Self { upper, first }
    }

    /// Returns the upper bounds without the infinite one.
    pub(super) fn upper(&self) -> &'static [Nanos] {
        self.upper
    }
}

/// The native upper bounds.
struct NativeBounds {
    /// The greatest whole number of nanoseconds in the zero bucket and in each native bucket.
    upper: [Nanos; NATIVE + 1],
    /// The first bucket of each group.
    first: [u16; Group::COUNT],
}

static NATIVE_BOUNDS: LazyLock<NativeBounds> = LazyLock::new(|| {
    // The bound before the first one is the zero bucket's: 2^-20.
    let upper = std::array::from_fn(|bucket| {
        let index = FIRST - 1 + i32::try_from(bucket).unwrap_or(0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "two years in nanoseconds fit"
        )]
        Nanos((f64::exp2(f64::from(index) / 8.0) * 1e9) as u64)
    });
    let first = std::array::from_fn(|group| {
        let least = Group(group).least();
        u16::try_from(upper.partition_point(|&bound| bound < least)).unwrap_or(0)
    });
    NativeBounds { upper, first }
});

/// A histogram of durations.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bounds: &'static ClassicBounds,
    classic: [u64; CLASSIC],
    native: [u64; NATIVE],
    native_zero: u64,
    count: u64,
    sum_ns: u128,
}

impl Histogram {
    /// Creates an empty histogram.
    pub(super) fn new(bounds: &'static ClassicBounds) -> Self {
        let (classic, native) = ([0; CLASSIC], [0; NATIVE]);
        Self { bounds, classic, native, native_zero: 0, count: 0, sum_ns: 0 }
    }

    /// Counts a duration.
    pub(super) fn observe(&mut self, duration: Nanos) {
        self.count += 1;
        self.sum_ns += u128::from(duration.0);
        let group = Group::of(duration);
        let classic = usize::from(self.bounds.first[group.0]);
        let above = self.bounds.upper.get(classic).is_some_and(|&bound| bound < duration);
        self.classic[(classic + usize::from(above)).min(CLASSIC - 1)] += 1;
        let native = usize::from(NATIVE_BOUNDS.first[group.0]);
        let above = |further: usize| {
            usize::from(NATIVE_BOUNDS.upper.get(native + further).is_some_and(|&bound| bound < duration))
        };
        // The bounds ascend, so the sum is the number of bounds below the duration.
        match native + above(0) + above(1) {
            0 => self.native_zero += 1,
            bucket => self.native[bucket.min(NATIVE) - 1] += 1,
        }
    }

    /// Returns the number of durations.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum of the durations, seconds.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are f64")]
    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Returns each classic upper bound in seconds with its bucket's own count. The last bound is infinite.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.upper.iter().map(|&bound| seconds(bound)).chain([f64::INFINITY]);
        bounds.zip(self.classic).collect()
    }

    /// Returns the count of the native zero bucket.
    pub(super) fn native_zero(&self) -> u64 {
        self.native_zero
    }

    /// Returns the native buckets in Prometheus's encoding: spans as (offset from the previous span, length), and each
    /// bucket's count as the difference from the previous bucket.
    pub(super) fn native_buckets(&self) -> (Vec<(i32, u32)>, Vec<i64>) {
        let mut spans: Vec<(i32, u32)> = Vec::new();
        let mut deltas = Vec::new();
        let (mut next, mut last) = (0, 0);
        for (index, &count) in (FIRST..=LAST).zip(&self.native) {
            if count == 0 {
                continue;
            }
            match spans.last_mut() {
                Some((_, length)) if index == next => *length += 1,
                _ => spans.push((index - next, 1)),
            }
            next = index + 1;
            let count = count.cast_signed();
            deltas.push(count - last);
            last = count;
        }
        if spans.is_empty() {
            // An empty span marks a native histogram without observations.
            spans.push((0, 0));
        }
        (spans, deltas)
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are f64")]
pub(super) fn seconds(duration: Nanos) -> f64 {
    duration.0 as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        encoding::prometheus_protobuf::encode,
        metrics::histogram::{Histogram as Reference, NativeHistogramConfig},
        registry::Registry,
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_upper_bound_is_inclusive() {
        let mut histogram = Histogram::new(&HANDSHAKE_BOUNDS);
        for duration in [50_000, 50_001, 950_000_000, 950_000_001, 131_000_000_001] {
            histogram.observe(Nanos(duration));
        }
        let filled: Vec<_> = histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(5e-5, 1), (1e-4, 1), (0.95, 1), (1.5, 1), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum_seconds() - 132.900_100_003).abs() < 1e-9);
    }

    #[test]
    fn the_last_native_bucket_takes_longer_durations() {
        let mut histogram = Histogram::new(&LIFETIME_BOUNDS);
        histogram.observe(Nanos::MAX);
        assert_eq!(histogram.native_buckets(), (vec![(LAST, 1)], vec![1]));
        assert_eq!(Histogram::new(&LIFETIME_BOUNDS).native_buckets(), (vec![(0, 0)], vec![]));
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_fits() {
        for bounds in [&HANDSHAKE_BOUNDS, &LIFETIME_BOUNDS] {
            let powers = (0..64).map(|bit| 1_u64 << bit);
            for duration in
                powers.chain(bounds.upper().iter().map(|bound| bound.0)).flat_map(|at| [at - 1, at, at + 1])
            {
                let mut histogram = Histogram::new(bounds);
                histogram.observe(Nanos(duration));
                let bucket = histogram.classic.iter().position(|&count| count == 1);
                assert_eq!(
                    bucket,
                    Some(bounds.upper().partition_point(|&bound| bound < Nanos(duration))),
                    "{duration}"
                );
            }
        }
    }

    proptest! {
        /// The native buckets equal those of the library's histogram.
        #[test]
        fn the_native_buckets_match_the_library(
            durations in prop::collection::vec(prop_oneof![0..100_000_u64, 0..1_000_000_000_000_u64, 0..1_u64 << 55], 1..60),
        ) {
            let config = NativeHistogramConfig::with_schema(3).zero_threshold(ZERO_THRESHOLD);
            let reference = Reference::new_native(config);
            let mut histogram = Histogram::new(&HANDSHAKE_BOUNDS);
            for &duration in &durations {
                reference.observe(seconds(Nanos(duration)));
                histogram.observe(Nanos(duration));
            }
            let mut registry = Registry::default();
            registry.register("a", "A", reference);
            let family = encode(&registry).unwrap().remove(0);
            let expected = family.metric[0].histogram.clone().unwrap();
            prop_assert_eq!(expected.schema, SCHEMA);
            prop_assert_eq!(expected.zero_count, histogram.native_zero());
            let counts = |spans: Vec<(i32, u32)>, deltas: &[i64]| {
                let (mut at, mut count, mut deltas) = (0, 0, deltas.iter());
                let mut all = Vec::new();
                for (offset, length) in spans {
                    at += offset;
                    for _ in 0..length {
                        count += deltas.next().unwrap();
                        if count > 0 {
                            all.push((at, count));
                        }
                        at += 1;
                    }
                }
                all
            };
            let spans = expected.positive_span.iter().map(|span| (span.offset, span.length)).collect();
            let (own_spans, own_deltas) = histogram.native_buckets();
            prop_assert_eq!(counts(own_spans, &own_deltas), counts(spans, &expected.positive_delta));
            let total: u64 = histogram.buckets().iter().map(|(_, count)| count).sum();
            prop_assert_eq!(total, durations.len() as u64);
        }
    }
}
