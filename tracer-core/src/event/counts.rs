//! Counters of a source.

/// Events that a source delivered and events that it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Transitions delivered to the core.
    pub seen: u64,
    /// Transitions dropped because the buffer was full.
    pub lost: u64,
    /// Runs of the BPF program that the kernel skipped because it would have interrupted another one
    /// (`recursion_misses`). None where the kernel does not count them: before 5.12, and on a classic tracepoint
    /// before 6.7.
    pub skipped: Option<u64>,
    /// Other records, such as SYN-ACK retransmissions, dropped because the buffer was full.
    pub others_lost: u64,
    /// Resyncs: socket dumps taken after transitions were missed.
    pub resyncs: u64,
    /// Records that could not be decoded. Always 0 unless the BPF object and the program differ in version.
    pub malformed: u64,
    /// Transitions for which the kernel skipped the program and that the twin program recorded. They are part of `seen`.
    pub recovered: u64,
    /// Transitions that both programs recorded. The source dropped the second record of each.
    pub duplicates: u64,
}

impl SourceCounts {
    /// The counters of a new source whose kernel counts skips.
    pub const ZERO: Self = Self {
        seen: 0,
        lost: 0,
        skipped: Some(0),
        others_lost: 0,
        resyncs: 0,
        malformed: 0,
        recovered: 0,
        duplicates: 0,
    };

    /// Returns the increase since `earlier`, older counters of the same source.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combine(earlier, u64::saturating_sub)
    }

    /// Returns the sum of the counters of two sources. `skipped` is none if either is none.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combine(other, u64::saturating_add)
    }

    fn combine(&self, other: &Self, operation: fn(u64, u64) -> u64) -> Self {
        let Self { seen, lost, skipped, others_lost, resyncs, malformed, recovered, duplicates } = *self;
        Self {
            seen: operation(seen, other.seen),
            lost: operation(lost, other.lost),
            skipped: skipped.zip(other.skipped).map(|(a, b)| operation(a, b)),
            others_lost: operation(others_lost, other.others_lost),
            resyncs: operation(resyncs, other.resyncs),
            malformed: operation(malformed, other.malformed),
            recovered: operation(recovered, other.recovered),
            duplicates: operation(duplicates, other.duplicates),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_and_subtracted_field_by_field() {
        let one = SourceCounts {
            seen: 1,
            lost: 2,
            skipped: Some(3),
            others_lost: 4,
            resyncs: 5,
            malformed: 6,
            recovered: 7,
            duplicates: 8,
        };
        let two = one.plus(&one);
        assert_eq!(
            two,
            SourceCounts {
                seen: 2,
                lost: 4,
                skipped: Some(6),
                others_lost: 8,
                resyncs: 10,
                malformed: 12,
                recovered: 14,
                duplicates: 16
            }
        );
        assert_eq!(two.since(&one), one);
        assert_eq!(one.since(&two), SourceCounts::ZERO);
    }

    #[test]
    fn unknown_skips_stay_unknown() {
        let unknown = SourceCounts { skipped: None, ..SourceCounts::ZERO };
        assert_eq!(SourceCounts::ZERO.plus(&unknown).skipped, None);
        assert_eq!(unknown.since(&SourceCounts::ZERO).skipped, None);
    }
}
