//! Label values that the core does not define, and the array indices of enumerations.

use tracer_core::{
    analysis::HandshakeOutcome,
    lifecycle::{CloseReason, Role},
};

/// The outcome of a handshake, the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutcomeLabel {
    /// The handshake completed.
    Established,
    /// The peer refused.
    Refused,
    /// Nothing answered.
    TimedOut,
    /// ICMP reported the peer unreachable.
    Unreachable,
    /// The application gave up.
    Cancelled,
    /// No local port was free.
    NoLocalPort,
    /// The client never sent its ACK. Visible only when the kernel retransmitted its SYN-ACK.
    Abandoned,
    /// Anything else: killed, reset, or unknown.
    Other,
}

impl OutcomeLabel {
    /// Every outcome.
    pub(super) const ALL: [Self; 8] = [
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
    pub(super) const fn name(self) -> &'static str {
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

    /// Returns the label of an outcome.
    pub(super) const fn of(outcome: HandshakeOutcome) -> Self {
        match outcome {
            HandshakeOutcome::Established => Self::Established,
            HandshakeOutcome::Abandoned => Self::Abandoned,
            HandshakeOutcome::Failed(reason) => Self::of_failure(reason),
        }
    }

    /// Returns the label of a connection that closed before it was established.
    const fn of_failure(reason: CloseReason) -> Self {
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

/// Where an event was lost, the label `where`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// A transition was dropped because the buffer was full.
    Ring,
    /// Another record, such as a SYN-ACK retransmit, was dropped because its buffer was full.
    RingOther,
    /// The kernel skipped the program, and the twin program did not record the transition (docs/modes.md).
    Kernel,
    /// A record could not be decoded.
    Malformed,
}

impl Lost {
    /// Every value.
    pub(super) const ALL: [Self; 4] = [Self::Ring, Self::RingOther, Self::Kernel, Self::Malformed];

    /// The value of the label `where`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::RingOther => "ring_other",
            Self::Kernel => "kernel",
            Self::Malformed => "malformed",
        }
    }
}

/// The roles in array order. Handshakes have the first three.
pub(super) const ROLES: [Role; 4] = [Role::Client, Role::Server, Role::Simultaneous, Role::Unknown];

/// Returns the array index of a role.
pub(super) const fn role_index(role: Role) -> usize {
    match role {
        Role::Client => 0,
        Role::Server => 1,
        Role::Simultaneous => 2,
        Role::Unknown => 3,
    }
}

/// Values of the label `network_type`, in array order.
pub(super) const NETWORK_TYPES: [&str; 2] = ["ipv4", "ipv6"];

/// The value of the label `gap` for dumps of the accept queues. The other values are [`Coverage::NAMES`].
///
/// [`Coverage::NAMES`]: crate::sources::Coverage::NAMES
pub(super) const LISTENER_DUMPS: &str = "listener_dumps";

/// Values of the label `type` of `tcptrace_events_total`, in array order.
pub(super) const EVENT_TYPES: [&str; 10] = [
    "transition",
    "existing",
    "syn_ack_retransmit",
    "first_read",
    "mini_socket_end",
    "accepted",
    "reset_sent",
    "reset_received",
    "segment_dropped",
    "first_write",
];

/// Values of the label `until` of `tcptrace_accept_wait_seconds`, in array order.
pub(super) const ACCEPT_WAITS: [&str; 2] = ["accept", "first_read"];
