//! The distribution of handshake durations, with a bucket boundary at every retransmission timeout.

use crate::event::Nanos;

/// The lower bounds of the buckets: 1, 2 and 5 in every decade up to a second, then the times at
/// which the kernel retransmits SYNs and SYN-ACKs.
const BOUNDS: [Nanos; 26] = [
    Nanos::ZERO,
    Nanos::from_micros(10),
    Nanos::from_micros(20),
    Nanos::from_micros(50),
    Nanos::from_micros(100),
    Nanos::from_micros(200),
    Nanos::from_micros(500),
    Nanos::from_millis(1),
    Nanos::from_millis(2),
    Nanos::from_millis(5),
    Nanos::from_millis(10),
    Nanos::from_millis(20),
    Nanos::from_millis(50),
    Nanos::from_millis(100),
    Nanos::from_millis(200),
    Nanos::from_millis(500),
    Nanos::from_secs(1),
    Nanos::from_secs(2),
    Nanos::from_secs(3),
    Nanos::from_secs(4),
    Nanos::from_secs(5),
    Nanos::from_secs(7),
    Nanos::from_secs(11),
    Nanos::from_secs(15),
    Nanos::from_secs(31),
    Nanos::from_secs(63),
];

/// A bucket of the histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The lower bound; inclusive.
    pub from: Nanos,
    /// The upper bound; exclusive, none for the last bucket.
    pub below: Option<Nanos>,
    /// The number of handshakes.
    pub count: u64,
    /// The number of those with a retransmission.
    pub lost: u64,
}

impl Bucket {
    /// Returns whether the kernel retransmits a SYN or a SYN-ACK at the lower bound.
    pub fn begins_with_retransmit(&self) -> bool {
        self.from >= Nanos::from_secs(1)
    }
}

/// A histogram of handshake durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [(u64, u64); BOUNDS.len()],
}

impl Histogram {
    /// Adds the duration of a handshake; `lost` means that it had a retransmission.
    pub(super) fn add(&mut self, duration: Nanos, lost: bool) {
        let index = BOUNDS.partition_point(|&bound| bound <= duration) - 1;
        self.counts[index].0 += 1;
        self.counts[index].1 += u64::from(lost);
    }

    /// Adds the counts of another histogram.
    pub(super) fn merge(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().zip(other.counts) {
            own.0 += other.0;
            own.1 += other.1;
        }
    }

    /// Iterates over the buckets from the first to the last nonempty one.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let first = self.counts.iter().position(|&(count, _)| count > 0).unwrap_or(0);
        let last = self.counts.iter().rposition(|&(count, _)| count > 0).map_or(0, |last| last + 1);
        (first..last).map(|index| Bucket {
            from: BOUNDS[index],
            below: BOUNDS.get(index + 1).copied(),
            count: self.counts[index].0,
            lost: self.counts[index].1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = Nanos::from_secs(1);

    #[test]
    fn lower_bounds_are_inclusive() {
        let mut histogram = Histogram::default();
        for (duration, lost) in [
            (SECOND.saturating_sub(Nanos(1)), false),
            (SECOND, true),
            (Nanos::ZERO, false),
            (Nanos::MAX, true),
        ] {
            histogram.add(duration, lost);
        }
        let filled: Vec<_> = histogram.buckets().filter(|bucket| bucket.count > 0).collect();
        let bounds: Vec<_> = filled.iter().map(|bucket| (bucket.from, bucket.below, bucket.lost)).collect();
        assert_eq!(
            bounds,
            [
                (Nanos::ZERO, Some(Nanos::from_micros(10)), 0),
                (Nanos::from_millis(500), Some(SECOND), 0),
                (SECOND, Some(Nanos::from_secs(2)), 1),
                (Nanos::from_secs(63), None, 1)
            ]
        );
        assert_eq!(histogram.buckets().count(), BOUNDS.len(), "empty buckets in between are included");
        assert_eq!(Histogram::default().buckets().count(), 0);
    }
}
