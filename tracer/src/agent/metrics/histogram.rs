//! A distribution of durations in fixed arrays: classic buckets, and native ones of schema 3.
//!
//! The native buckets are those of Prometheus's standard exponential schemas: bucket `i` holds what is
//! above `2^((i-1)/8)` seconds and at most `2^(i/8)`, so each is 9 % wide.

/// Upper bounds for openings and round trips, nanoseconds. Those from 0.95 s on bracket the moments at which
/// Linux sends a SYN again (1, 3, 7, 15, 31, 63 s after the first) and gives up (127 s).
pub const HANDSHAKE_BOUNDS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    150_000_000,
    250_000_000,
    500_000_000,
    950_000_000,
    1_500_000_000,
    2_500_000_000,
    3_500_000_000,
    7_500_000_000,
    15_500_000_000,
    31_500_000_000,
    67_500_000_000,
    131_000_000_000,
];

/// Upper bounds for states and whole connections, nanoseconds: from 100 µs to a day.
pub const LIFETIME_BOUNDS: &[u64] = &[
    100_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    61_000_000_000,
    120_000_000_000,
    300_000_000_000,
    900_000_000_000,
    3_600_000_000_000,
    14_400_000_000_000,
    86_400_000_000_000,
];

/// The resolution of the native buckets: 2^3 in each doubling.
pub(super) const SCHEMA: i32 = 3;
/// What is not above this, 2^-20 s (954 ns), is in the native zero bucket.
pub(super) const ZERO_THRESHOLD: f64 = 1.0 / 1_048_576.0;
/// The first native bucket, above the threshold.
const FIRST: i32 = -20 * 8 + 1;
/// The last one, up to 2^26 s (two years); what is longer is in it too.
const LAST: i32 = 26 * 8;
const NATIVE: usize = (LAST - FIRST + 1) as usize;
/// The most classic buckets, the one without an upper bound included.
const CLASSIC: usize = 24;

const _: () = assert!(HANDSHAKE_BOUNDS.len() < CLASSIC && LIFETIME_BOUNDS.len() < CLASSIC);

/// A distribution of durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// By the number of a duration's binary digits: the first bound that it may be below. Between it and the one that it
    /// is below lie two at most.
    first_bounds: [u8; 65],
    classic: [u64; CLASSIC],
    native: [u64; NATIVE],
    native_zero: u64,
    count: u64,
    sum_ns: u128,
}

impl Histogram {
    /// An empty one with these classic upper bounds, nanoseconds, ascending, at most 23.
    pub fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.len() < CLASSIC);
        let first_bounds = std::array::from_fn(|digits| {
            let least = digits.checked_sub(1).map_or(0, |place| 1 << place);
            u8::try_from(bounds.partition_point(|&bound| bound < least)).unwrap_or(0)
        });
        let (classic, native) = ([0; CLASSIC], [0; NATIVE]);
        Self { bounds, first_bounds, classic, native, native_zero: 0, count: 0, sum_ns: 0 }
    }

    /// Takes in a duration, nanoseconds.
    pub fn observe(&mut self, nanoseconds: u64) {
        self.count += 1;
        self.sum_ns += u128::from(nanoseconds);
        let digits = (u64::BITS - nanoseconds.leading_zeros()) as usize;
        let first = usize::from(self.first_bounds[digits]);
        let further = self.bounds[first..].iter().take_while(|&&bound| bound < nanoseconds).count();
        self.classic[(first + further).min(CLASSIC - 1)] += 1;
        match native_index(nanoseconds) {
            None => self.native_zero += 1,
            Some(index) => {
                let place = usize::try_from(index.clamp(FIRST, LAST) - FIRST).unwrap_or(0);
                self.native[place] += 1;
            }
        }
    }

    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, seconds.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in f64")]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Each classic upper bound in seconds with the count of its bucket alone; the last is infinite.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().map(|&bound| seconds(bound)).chain([f64::INFINITY]);
        bounds.zip(self.classic).collect()
    }

    /// The count of the native zero bucket.
    pub(super) fn native_zero(&self) -> u64 {
        self.native_zero
    }

    /// The native buckets as Prometheus takes them: runs of buckets as the distance from the run before
    /// and a length, and the difference of each bucket's count to the one before.
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
            // By this Prometheus knows an empty native histogram from one without native buckets.
            spans.push((0, 0));
        }
        (spans, deltas)
    }
}

/// Which native bucket a duration belongs to; none for the zero bucket.
fn native_index(nanoseconds: u64) -> Option<i32> {
    /// 2^(k/8)
    #[expect(clippy::unreadable_literal, reason = "the digits are not read")]
    const STEPS: [f64; 8] = [
        1.0,
        1.0905077326652577,
        1.189207115002721,
        1.2968395546510096,
        std::f64::consts::SQRT_2,
        1.5422108254079407,
        1.681792830507429,
        1.8340080864093424,
    ];
    let value = seconds(nanoseconds);
    if value <= ZERO_THRESHOLD {
        return None;
    }
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> 52).unwrap_or(0) - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let step = STEPS.iter().filter(|&&step| mantissa > step).count();
    Some(exponent * 8 + i32::try_from(step).unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in f64")]
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
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
    fn a_duration_on_a_bound_is_in_its_bucket() {
        let mut histogram = Histogram::new(HANDSHAKE_BOUNDS);
        for duration in [50_000, 50_001, 950_000_000, 950_000_001, 131_000_000_001] {
            histogram.observe(duration);
        }
        let filled: Vec<_> = histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(5e-5, 1), (1e-4, 1), (0.95, 1), (1.5, 1), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum_seconds() - 132.900_100_003).abs() < 1e-9);
    }

    #[test]
    fn longer_than_the_last_native_bucket_is_in_it() {
        let mut histogram = Histogram::new(LIFETIME_BOUNDS);
        histogram.observe(u64::MAX);
        assert_eq!(histogram.native_buckets(), (vec![(LAST, 1)], vec![1]));
        assert_eq!(Histogram::new(LIFETIME_BOUNDS).native_buckets(), (vec![(0, 0)], vec![]));
    }

    #[test]
    fn every_duration_is_in_the_first_bucket_that_it_fits() {
        for bounds in [HANDSHAKE_BOUNDS, LIFETIME_BOUNDS] {
            let powers = (0..64).map(|place| 1_u64 << place);
            for duration in powers.chain(bounds.iter().copied()).flat_map(|at| [at - 1, at, at + 1]) {
                let mut histogram = Histogram::new(bounds);
                histogram.observe(duration);
                let place = histogram.classic.iter().position(|&count| count == 1);
                assert_eq!(place, Some(bounds.partition_point(|&bound| bound < duration)), "{duration}");
            }
        }
    }

    proptest! {
        /// Any set of durations gives the very buckets that the library's own histogram makes.
        #[test]
        fn the_native_buckets_are_the_librarys(
            durations in prop::collection::vec(prop_oneof![0..100_000_u64, 0..1_000_000_000_000_u64, 0..1_u64 << 55], 1..60),
        ) {
            let config = NativeHistogramConfig::with_schema(3).zero_threshold(ZERO_THRESHOLD);
            let reference = Reference::new_native(config);
            let mut histogram = Histogram::new(HANDSHAKE_BOUNDS);
            for &duration in &durations {
                reference.observe(seconds(duration));
                histogram.observe(duration);
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
