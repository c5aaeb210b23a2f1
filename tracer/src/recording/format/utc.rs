//! Converts times between a recording, which has UTC, and the host's monotonic clock. The conversion is lossless.

use tracer_core::event::{ClockOffset, Timestamp};

/// Converts a monotonic time to nanoseconds since 1970-01-01T00:00:00Z.
///
/// Both directions wrap, so [`from_utc`] is exact for every offset.
pub(crate) fn to_utc(time: Timestamp, clock: ClockOffset) -> i64 {
    time.0.wrapping_add(offset(clock)).cast_signed()
}

/// Reverses [`to_utc`].
pub(crate) fn from_utc(utc: i64, clock: ClockOffset) -> Timestamp {
    Timestamp(utc.cast_unsigned().wrapping_sub(offset(clock)))
}

/// Returns the low 64 bits of the offset, which are sufficient until the year 2262.
fn offset(clock: ClockOffset) -> u64 {
    u64::try_from(clock.to_utc_ns & i128::from(u64::MAX)).unwrap_or_default()
}
