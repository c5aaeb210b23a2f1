//! Time on the traced host.

/// A moment on the traced host's `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`).
///
/// It stands still while the host is suspended, as the kernel's own TCP timers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than everything.
    pub const END: Self = Self(u64::MAX);

    /// Nanoseconds from `earlier` to `self`; 0 when the order is the other way round, which only a
    /// damaged recording can show.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The distance from `CLOCK_MONOTONIC` to UTC on the traced host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Nanoseconds to add to a monotonic time to get nanoseconds since 1970-01-01T00:00:00Z.
    pub to_utc_ns: i128,
}
