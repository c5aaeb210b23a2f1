//! The kernel's retransmission timer for SYN-ACKs.
//!
//! The interval starts at 1 s and doubles (`TCP_TIMEOUT_INIT`, RFC 6298; `reqsk_timer_handler`, 6.18
//! inet_connection_sock.c), up to `TCP_RTO_MAX` of 120 s.

use crate::event::Nanos;

/// The exponent of the longest interval: 128 s, the first power of two beyond `TCP_RTO_MAX`.
const MAX_EXPONENT: u8 = 7;

/// Returns the wait after the `count`th retransmission; `count` is 0 for the first SYN-ACK.
pub(super) const fn interval(count: u8) -> Nanos {
    Nanos::from_secs(1 << (if count < MAX_EXPONENT { count } else { MAX_EXPONENT }))
}

/// Returns when the `count`th retransmission is sent after the first SYN-ACK: 1, 3, 7, 15 … s.
pub(super) const fn offset(count: u8) -> Nanos {
    interval(count).saturating_sub(Nanos::from_secs(1))
}

/// Returns the shortest time that a half-open handshake has waited when its timer expires in `left`.
///
/// The number of retransmissions is not a measure of time, because the kernel also counts its answers to
/// retransmitted SYNs. Returns none when the timer is longer than the longest interval.
pub fn half_open_age_at_least(left: Nanos) -> Option<Nanos> {
    let count = (0..=MAX_EXPONENT).find(|&count| interval(count) >= left)?;
    Some(offset(count).saturating_add(interval(count)).saturating_sub(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_doubles_up_to_128_s() {
        assert_eq!([0, 1, 2, 3, 7, 8, 255].map(interval).map(Nanos::as_secs), [1, 2, 4, 8, 128, 128, 128]);
        assert_eq!([1, 2, 3, 4, 5].map(offset).map(Nanos::as_secs), [1, 3, 7, 15, 31]);
    }

    #[test]
    fn a_timer_bounds_the_age_of_a_half_open_handshake() {
        let age_ms = |left_ms: u64| half_open_age_at_least(Nanos::from_millis(left_ms)).map(Nanos::as_millis);
        assert_eq!(age_ms(400), Some(600));
        assert_eq!(age_ms(1_000), Some(0));
        // The second interval of 2 s began after 1 s.
        assert_eq!(age_ms(1_500), Some(1_500));
        assert_eq!(age_ms(128_001), None);
    }
}
