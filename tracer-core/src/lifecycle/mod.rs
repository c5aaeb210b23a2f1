//! The pure core: from events to lifecycles. No I/O, no clock, no kernel: time comes from the events,
//! so replaying the same events gives the same answers.

mod abandoned;
mod close_reason;
mod connection;
mod half_open;
mod handshake;
mod history;
mod listeners;
mod observation;
mod stuck;
mod time_wait;
mod time_wait_table;
mod tracker;

pub use abandoned::{AbandonedAt, AbandonedHandshakes};
pub use close_reason::{CloseCause, CloseReason, ClosedBy};
pub use connection::{Connection, Role};
pub use half_open::HalfOpen;
pub use handshake::{Handshake, HandshakeCaveat};
pub use history::{History, StateSpan};
pub use observation::{ClosedConnection, Observation};
pub use stuck::{Age, GroupBy, StuckConnection, StuckGroup, Thresholds, group_stuck};
pub use time_wait::{AfterClose, TimeWaitModel};
pub use time_wait_table::{EndedTimewait, TimewaitSocket};
pub use tracker::{DEFAULT_MAX_CONNECTIONS, Tracker, TrackerCounts, TrackerOptions};

/// How a duration was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DurationSource {
    /// The time between two of the kernel's transitions.
    Observed,
    /// The kernel's own round-trip sample.
    Measured,
    /// Derived from the protocol's timers; no event marks its end.
    Modelled,
}

impl DurationSource {
    /// The name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Measured => "measured",
            Self::Modelled => "modelled",
        }
    }
}
