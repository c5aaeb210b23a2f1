//! The rows of the heat map: ranges of handshake durations.

use tracer_core::event::Nanos;

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// Lower bounds of the buckets. 1 s, 3 s, 7 s and 15 s are the times of the first, second, third and fourth SYN
/// retransmission (RFC 6298, section 5.5), so a lost SYN moves a handshake into a bucket that begins there.
pub(super) const BOUNDS: [Nanos; 18] = [
    Nanos(0),
    Nanos(50 * US),
    Nanos(100 * US),
    Nanos(200 * US),
    Nanos(500 * US),
    Nanos(MS),
    Nanos(2 * MS),
    Nanos(5 * MS),
    Nanos(10 * MS),
    Nanos(20 * MS),
    Nanos(50 * MS),
    Nanos(100 * MS),
    Nanos(200 * MS),
    Nanos(500 * MS),
    Nanos(S),
    Nanos(3 * S),
    Nanos(7 * S),
    Nanos(15 * S),
];

/// The bounds at which the kernel resends a SYN.
pub(super) const RESEND_STEPS: [Nanos; 4] = [Nanos(S), Nanos(3 * S), Nanos(7 * S), Nanos(15 * S)];

/// Handshakes for each of [`BOUNDS`].
pub(super) type BucketCounts = [u32; BOUNDS.len()];

/// Returns the bucket of a duration.
pub(super) fn index(duration: Nanos) -> usize {
    BOUNDS.partition_point(|&bound| bound <= duration).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resent_syn_moves_a_handshake_into_the_bucket_of_its_step() {
        let bound = |ms| BOUNDS[index(Nanos::from_millis(ms))].as_millis();
        assert_eq!(
            [0, 1, 999, 1_000, 1_040, 3_020, 7_500, 60_000].map(bound),
            [0, 1, 500, 1_000, 1_000, 3_000, 7_000, 15_000]
        );
        assert!(RESEND_STEPS.iter().all(|step| BOUNDS.contains(step)));
    }
}
