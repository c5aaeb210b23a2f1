//! Times in a recording: UTC for whoever reads it, and exactly the host's monotonic time for a replay.

use tracer_core::event::{ClockOffset, Timestamp};

/// The monotonic time as nanoseconds since 1970-01-01T00:00:00Z.
///
/// Both wrap, so that the way back is exact whatever the offset.
pub(crate) fn to_utc(time: Timestamp, clock: ClockOffset) -> i64 {
    time.0.wrapping_add(offset(clock)).cast_signed()
}

/// The way back from [`to_utc`].
pub(crate) fn from_utc(utc: i64, clock: ClockOffset) -> Timestamp {
    Timestamp(utc.cast_unsigned().wrapping_sub(offset(clock)))
}

/// The low 64 bits, which are all of it before the year 2262.
fn offset(clock: ClockOffset) -> u64 {
    u64::try_from(clock.to_utc_ns & i128::from(u64::MAX)).unwrap_or_default()
}
