//! How the durations of handshakes are distributed, with a border at every resend.

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const SECOND: u64 = 1_000 * MS;

/// The lower borders, nanoseconds: 1, 2, 5 in every decade up to a second, and from there the moments at which
/// SYNs and SYN-ACKs are sent again.
const BORDERS: [u64; 26] = [
    0,
    10 * US,
    20 * US,
    50 * US,
    100 * US,
    200 * US,
    500 * US,
    MS,
    2 * MS,
    5 * MS,
    10 * MS,
    20 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    500 * MS,
    SECOND,
    2 * SECOND,
    3 * SECOND,
    4 * SECOND,
    5 * SECOND,
    7 * SECOND,
    11 * SECOND,
    15 * SECOND,
    31 * SECOND,
    63 * SECOND,
];

/// The durations between two borders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// From here on, nanoseconds.
    pub from_ns: u64,
    /// Below this, nanoseconds; none for the last.
    pub below_ns: Option<u64>,
    /// How many handshakes.
    pub count: u64,
    /// How many of them with a resend.
    pub lost: u64,
}

impl Bucket {
    /// Whether a SYN or a SYN-ACK is sent again at its beginning.
    pub fn begins_with_resend(&self) -> bool {
        self.from_ns >= SECOND
    }
}

/// Counts of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [(u64, u64); BORDERS.len()],
}

impl Histogram {
    /// Takes in the duration of a handshake, and whether it had a resend.
    pub fn add(&mut self, nanoseconds: u64, lost: bool) {
        let index = BORDERS.partition_point(|&border| border <= nanoseconds) - 1;
        self.counts[index].0 += 1;
        self.counts[index].1 += u64::from(lost);
    }

    /// The buckets from the first to the last that holds something.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let first = self.counts.iter().position(|&(count, _)| count > 0).unwrap_or(0);
        let last = self.counts.iter().rposition(|&(count, _)| count > 0).map_or(0, |last| last + 1);
        (first..last).map(|index| Bucket {
            from_ns: BORDERS[index],
            below_ns: BORDERS.get(index + 1).copied(),
            count: self.counts[index].0,
            lost: self.counts[index].1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_belong_to_what_begins_there() {
        let mut histogram = Histogram::default();
        for (duration, lost) in [(SECOND - 1, false), (SECOND, true), (0, false), (u64::MAX, true)] {
            histogram.add(duration, lost);
        }
        let filled: Vec<_> = histogram.buckets().filter(|bucket| bucket.count > 0).collect();
        let borders: Vec<_> =
            filled.iter().map(|bucket| (bucket.from_ns, bucket.below_ns, bucket.lost)).collect();
        assert_eq!(
            borders,
            [
                (0, Some(10 * US), 0),
                (500 * MS, Some(SECOND), 0),
                (SECOND, Some(2 * SECOND), 1),
                (63 * SECOND, None, 1)
            ]
        );
        assert_eq!(histogram.buckets().count(), BORDERS.len(), "the empty ones in between are there");
        assert_eq!(Histogram::default().buckets().count(), 0);
    }
}
