//! Tracks connections from their first event to their close.
//!
//! A [`Tracker`] consumes [events](crate::event) and reports [observations](Observation). It performs no I/O and
//! reads no clock: time comes from the events, so a replay of the same events gives the same observations.

mod abandoned;
mod backends;
mod backoff;
mod close_reason;
mod connection;
mod drop_places;
mod half_open;
mod handshake;
mod history;
mod listeners;
mod observation;
mod resets;
mod segment_drops;
mod stuck;
mod time_wait;
mod time_wait_table;
mod tracker;

pub use abandoned::{AbandonedAt, AbandonedHandshakes};
pub use backoff::half_open_age_at_least;
pub use close_reason::{CloseCause, CloseReason, ClosedBy};
pub use connection::{Connection, Role};
pub use drop_places::{DropPlace, DropPlaces};
pub use half_open::{HalfOpen, SynAckResends};
pub use handshake::{Handshake, HandshakeCaveat};
pub use history::{History, StateSpan};
pub(crate) use listeners::listening_endpoints;
pub use observation::{AcceptWait, ClosedConnection, Observation};
pub use resets::Reset;
pub use segment_drops::{ObservedDrops, SegmentDrop, SegmentDrops};
pub use stuck::{Age, GroupBy, StuckConnection, StuckGroup, Thresholds, group_stuck};
pub use time_wait::{AfterClose, TimeWaitModel};
pub use time_wait_table::{EndedTimewait, TimewaitSocket};
pub use tracker::{DEFAULT_MAX_CONNECTIONS, Tracker, TrackerCounts, TrackerOptions};

/// How a duration was obtained. See [the crate page](crate#observed-measured-modelled).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DurationSource {
    /// The time between two events of the kernel.
    Observed,
    /// A round-trip sample of the kernel.
    Measured,
    /// Derived from the timers of the protocol, because no event marks the start or the end.
    Modelled,
}

impl DurationSource {
    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Measured => "measured",
            Self::Modelled => "modelled",
        }
    }
}
