//! Values of labels that are no names of the core, and the places of enumerations in fixed arrays.

use crate::lifecycle::{CloseReason, Role};

/// How an opening ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Established,
    /// The peer refused.
    Refused,
    /// Nothing answered.
    TimedOut,
    /// The network said that the peer cannot be reached.
    Unreachable,
    /// The application gave up.
    Cancelled,
    /// No local port was free.
    NoLocalPort,
    /// The client never completed it; seen only where the kernel sent its SYN-ACK again.
    Abandoned,
    /// Anything else: killed, reset, or untold.
    Other,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Established,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Cancelled,
        Self::NoLocalPort,
        Self::Abandoned,
        Self::Other,
    ];

    /// The value of the label `result`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Cancelled => "cancelled",
            Self::NoLocalPort => "no_local_port",
            Self::Abandoned => "abandoned",
            Self::Other => "other",
        }
    }

    /// Of a connection that ended before it was established.
    pub const fn of_failure(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Refused => Self::Refused,
            CloseReason::TimedOut => Self::TimedOut,
            CloseReason::Unreachable => Self::Unreachable,
            CloseReason::Cancelled => Self::Cancelled,
            CloseReason::NoLocalPort => Self::NoLocalPort,
            _ => Self::Other,
        }
    }
}

/// Where an event was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A transition found the buffer full.
    Ring,
    /// Another record, such as a resent SYN-ACK, found it full.
    RingOther,
    /// The kernel skipped the program, and the twin program did not record the transition (docs/modes.md).
    Kernel,
    /// A record could not be understood.
    Malformed,
}

impl Lost {
    /// Every place.
    pub const ALL: [Self; 4] = [Self::Ring, Self::RingOther, Self::Kernel, Self::Malformed];

    /// The value of the label `where`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::RingOther => "ring_other",
            Self::Kernel => "kernel",
            Self::Malformed => "malformed",
        }
    }
}

/// The roles in the order of their arrays; openings have the first three.
pub(super) const ROLES: [Role; 4] = [Role::Client, Role::Server, Role::Simultaneous, Role::Unknown];

/// The place of a role in an array.
pub(super) const fn role_index(role: Role) -> usize {
    match role {
        Role::Client => 0,
        Role::Server => 1,
        Role::Simultaneous => 2,
        Role::Unknown => 3,
    }
}

/// Values of the label `network_type`, in the order of their arrays.
pub(super) const NETWORK_TYPES: [&str; 2] = ["ipv4", "ipv6"];

/// Values of the label `type` of `tcptrace_events_total`, in the order of their array.
pub(super) const EVENT_TYPES: [&str; 5] =
    ["transition", "existing", "syn_ack_retransmit", "first_read", "mini_socket_end"];
