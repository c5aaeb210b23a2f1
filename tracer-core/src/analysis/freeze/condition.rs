//! What a condition measures, and its limit.

use crate::event::Nanos;

/// Something that is counted in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeCount {
    /// Handshakes that failed or that their client abandoned. SYNs to a port on which nobody listens are not counted.
    HandshakeFailures,
    /// Connections that closed for a reason that is a failure; failed handshakes are connections, too.
    Failures,
    /// Connections that the peer reset after they were established.
    Resets,
    /// Connections that ended because the peer did not answer.
    Timeouts,
    /// SYNs and SYN-ACKs that were sent again, counted when their handshake ends.
    ResentSyns,
    /// Handshakes that certainly lost a segment, counted when they end.
    HandshakeLosses,
    /// Segments of handshakes that this host dropped.
    DroppedSegments,
    /// Events that the tracer missed: lost in a full buffer, or skipped by the kernel.
    LostEvents,
}

impl FreezeCount {
    /// All counts.
    pub const ALL: [Self; 8] = [
        Self::HandshakeFailures,
        Self::Failures,
        Self::Resets,
        Self::Timeouts,
        Self::ResentSyns,
        Self::HandshakeLosses,
        Self::DroppedSegments,
        Self::LostEvents,
    ];

    /// Returns the name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeFailures => "handshake_failures",
            Self::Failures => "failures",
            Self::Resets => "resets",
            Self::Timeouts => "timeouts",
            Self::ResentSyns => "resent_syns",
            Self::HandshakeLosses => "handshake_losses",
            Self::DroppedSegments => "dropped_segments",
            Self::LostEvents => "lost_events",
        }
    }
}

/// What a condition compares with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeMeasure {
    /// A percentile of the durations of the handshakes that completed in the window, 1 to 99.
    HandshakePercentile(u8),
    /// The longest duration of a handshake that completed in the window.
    HandshakeMax,
    /// A count in the window.
    Count(FreezeCount),
    /// The connections that are beyond the threshold of their state now.
    Stuck,
}

impl FreezeMeasure {
    /// Returns the measure with this name, such as `handshake_p99`; none if there is none.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(percent) = name.strip_prefix("handshake_p") {
            // `parse` also accepts `+9` and `09`.
            let percent = percent.parse().ok().filter(|number: &u8| number.to_string() == percent)?;
            return (1..=99).contains(&percent).then_some(Self::HandshakePercentile(percent));
        }
        match name {
            "handshake_max" => Some(Self::HandshakeMax),
            "stuck" => Some(Self::Stuck),
            _ => FreezeCount::ALL.into_iter().find(|count| count.name() == name).map(Self::Count),
        }
    }

    /// Returns whether its limit is a duration, rather than a number.
    pub const fn is_duration(self) -> bool {
        matches!(self, Self::HandshakePercentile(_) | Self::HandshakeMax)
    }
}

/// A condition: the measure is above the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeCondition {
    /// What is compared.
    pub measure: FreezeMeasure,
    /// The highest value that is normal: nanoseconds of a duration, or a number.
    pub limit: u64,
    /// The condition as it was written.
    pub text: String,
}

/// The value of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// A duration of handshakes.
    Duration {
        /// The percentile, or the longest.
        value: Nanos,
        /// The number of handshakes in the window with a known duration.
        handshakes: u64,
    },
    /// A number.
    Count(u64),
}

impl Measured {
    /// Returns the number that is compared with a limit.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Duration { value, .. } => value.0,
            Self::Count(count) => count,
        }
    }
}

/// The condition that triggered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeReason {
    /// The condition.
    pub condition: FreezeCondition,
    /// The value above its limit.
    pub measured: Measured,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        for count in FreezeCount::ALL {
            assert_eq!(FreezeMeasure::parse(count.name()), Some(FreezeMeasure::Count(count)));
        }
        assert_eq!(FreezeMeasure::parse("stuck"), Some(FreezeMeasure::Stuck));
        assert_eq!(FreezeMeasure::parse("handshake_max"), Some(FreezeMeasure::HandshakeMax));
        for percent in [1, 50, 99] {
            let name = format!("handshake_p{percent}");
            assert_eq!(FreezeMeasure::parse(&name), Some(FreezeMeasure::HandshakePercentile(percent)));
        }
        for name in
            ["", "p99", "handshake_p", "handshake_p0", "handshake_p100", "handshake_p09", "handshake_p+9"]
        {
            assert_eq!(FreezeMeasure::parse(name), None, "{name}");
        }
    }
}
