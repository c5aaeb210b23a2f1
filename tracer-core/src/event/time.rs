//! Time on the traced host, and spans of time.

use std::time::Duration;

/// A time of the traced host's `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`).
///
/// The clock stops while the host is suspended, as the kernel's TCP timers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The latest time.
    pub const END: Self = Self(u64::MAX);

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later. Only a damaged recording has times in
    /// the wrong order.
    pub const fn since(self, earlier: Self) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time after `self` by `span`, at most [`END`](Self::END).
    #[must_use]
    pub const fn saturating_add(self, span: Nanos) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Returns the time before `self` by `span`, at least 0.
    #[must_use]
    pub const fn saturating_sub(self, span: Nanos) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// A span of time, nanoseconds; at most 584 years. Arithmetic saturates.
///
/// The difference of two [`Timestamp`]s, a timer of the kernel or a limit that such a difference is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// The longest span.
    pub const MAX: Self = Self(u64::MAX);

    /// Converts microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// Converts milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Converts seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Converts a duration of the standard library.
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns the whole microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Returns the whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Returns the whole seconds.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Returns the sum.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns the difference, or zero if `other` is longer.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Returns `factor` times the span.
    #[must_use]
    pub const fn saturating_mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl From<Nanos> for Duration {
    fn from(span: Nanos) -> Self {
        Self::from_nanos(span.0)
    }
}

/// A span of time, microseconds: the unit of the kernel's round-trip times (`srtt_us` and `rtt_min` of
/// `struct tcp_sock`, `tcpi_rtt` of `struct tcp_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u32);

impl From<Micros> for Nanos {
    fn from(span: Micros) -> Self {
        Self::from_micros(span.0.into())
    }
}

/// A span of time, milliseconds: the unit of the kernel's timers in `struct inet_diag_msg` and `struct tcp_info`,
/// and of `TCP_USER_TIMEOUT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u32);

impl From<Millis> for Nanos {
    fn from(span: Millis) -> Self {
        Self::from_millis(span.0.into())
    }
}

/// The offset of UTC from `CLOCK_MONOTONIC` on the traced host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Nanoseconds to add to a monotonic time for nanoseconds since 1970-01-01T00:00:00Z.
    pub to_utc_ns: i128,
}
