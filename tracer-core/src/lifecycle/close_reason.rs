//! Classifies why a connection closed, and which side closed it.
//!
//! The evidence is the socket's fields at its last transition. The kernel sets `sk_err` before that transition
//! everywhere except in `tcp_disconnect`, so a local abort shows no error (6.18 tcp.c, tcp_input.c, tcp_timer.c).

use crate::{
    event::{SocketFlags, TcpInfo, TcpState, Transition},
    lifecycle::{Connection, Role},
};

/// Error numbers of closed TCP sockets, `include/uapi/asm-generic/errno.h`.
mod errno {
    pub(super) const EPIPE: u16 = 32;
    pub(super) const ENETDOWN: u16 = 100;
    pub(super) const ENETUNREACH: u16 = 101;
    pub(super) const ECONNABORTED: u16 = 103;
    pub(super) const ECONNRESET: u16 = 104;
    pub(super) const ETIMEDOUT: u16 = 110;
    pub(super) const ECONNREFUSED: u16 = 111;
    pub(super) const EHOSTDOWN: u16 = 112;
    pub(super) const EHOSTUNREACH: u16 = 113;
    pub(super) const EACCES: u16 = 13;
    pub(super) const EPROTO: u16 = 71;
    pub(super) const ENOPROTOOPT: u16 = 92;
    pub(super) const EOPNOTSUPP: u16 = 95;
}

/// Why a connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Both sides sent a FIN.
    Closed,
    /// The peer answered the SYN with a reset, or its host answered with an ICMP port unreachable.
    Refused,
    /// The SYNs were not answered (for Fast Open and simultaneous open: the SYN-ACKs).
    TimedOut,
    /// An ICMP error or a local route reported that the peer is unreachable.
    Unreachable,
    /// The application gave up before the connection was established.
    Cancelled,
    /// No local port was free.
    NoLocalPort,
    /// The peer sent a reset.
    ResetByPeer,
    /// The local side sent a reset on purpose: `close()` with an `SO_LINGER` of 0, or a listener closed before it
    /// accepted the connection.
    Aborted,
    /// The application closed the socket with unread data. The kernel sent a reset, and the peer may have lost
    /// data that was already acknowledged.
    UnreadData,
    /// The kernel retransmitted data until it gave up.
    RetransmissionTimeout,
    /// The peer answered no keepalive probe.
    KeepaliveTimeout,
    /// `TCP_USER_TIMEOUT` expired.
    UserTimeout,
    /// The application closed the socket, and the peer never acknowledged the FIN.
    PeerVanished,
    /// An administrator destroyed the socket (`ss -K`).
    Killed,
    /// The application dissolved the association with `connect(AF_UNSPEC)`.
    Disconnected,
    /// The evidence is not conclusive.
    Unknown,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 16] = [
        Self::Closed,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Cancelled,
        Self::NoLocalPort,
        Self::ResetByPeer,
        Self::Aborted,
        Self::UnreadData,
        Self::RetransmissionTimeout,
        Self::KeepaliveTimeout,
        Self::UserTimeout,
        Self::PeerVanished,
        Self::Killed,
        Self::Disconnected,
        Self::Unknown,
    ];

    /// Returns the name in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Cancelled => "cancelled",
            Self::NoLocalPort => "no_local_port",
            Self::ResetByPeer => "reset_by_peer",
            Self::Aborted => "aborted",
            Self::UnreadData => "unread_data",
            Self::RetransmissionTimeout => "retransmission_timeout",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::UserTimeout => "user_timeout",
            Self::PeerVanished => "peer_vanished",
            Self::Killed => "killed",
            Self::Disconnected => "disconnected",
            Self::Unknown => "unknown",
        }
    }

    /// Returns whether the reason is a failure: the connection was not established, broke, or lost data.
    ///
    /// Deliberate local actions are not failures: cancelling, aborting, disconnecting and killing.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::NoLocalPort
            | Self::ResetByPeer
            | Self::UnreadData
            | Self::RetransmissionTimeout
            | Self::KeepaliveTimeout
            | Self::UserTimeout
            | Self::PeerVanished => true,
            Self::Closed
            | Self::Cancelled
            | Self::Aborted
            | Self::Killed
            | Self::Disconnected
            | Self::Unknown => false,
        }
    }
}

/// The side that closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClosedBy {
    /// The local side: the application, a timeout of the kernel, or an administrator.
    Local,
    /// The peer or the network.
    Remote,
    /// Both sides at once: the FINs crossed.
    Both,
}

impl ClosedBy {
    /// Returns the name in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
        }
    }
}

/// The cause of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCause {
    /// The reason of the close.
    pub reason: CloseReason,
    /// The side that closed the connection; none when unknown.
    pub closed_by: Option<ClosedBy>,
    /// `sk_err`, an errno; none when it was 0 or could not be read.
    pub error: Option<u16>,
}

impl CloseCause {
    /// The cause of a close that was not seen.
    pub(super) const UNSEEN: Self = Self { reason: CloseReason::Unknown, closed_by: None, error: None };

    /// Classifies the transition to CLOSE.
    pub(super) fn classify(connection: &Connection, last: &Transition) -> Self {
        let from = last.from;
        let reason = match (last.flags, last.info) {
            (Some(flags), info) => with_evidence(connection, last, flags, info.as_ref()),
            (None, _) => from_transitions(connection, last),
        };
        let closed_by = closed_by(reason, connection, from);
        Self { reason, closed_by, error: last.flags.map(|flags| flags.error).filter(|&error| error != 0) }
    }
}

/// Classifies by the states alone, for a source that cannot read sockets.
fn from_transitions(connection: &Connection, last: &Transition) -> CloseReason {
    match last.from {
        TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck => CloseReason::Closed,
        TcpState::SynSent if last.process.is_some() && connection.local.port == 0 => CloseReason::NoLocalPort,
        _ => CloseReason::Unknown,
    }
}

fn with_evidence(
    connection: &Connection,
    last: &Transition,
    flags: SocketFlags,
    info: Option<&TcpInfo>,
) -> CloseReason {
    let connecting = matches!(last.from, TcpState::SynSent | TcpState::SynReceived);
    match flags.error {
        0 => without_error(connection, last.from, flags),
        errno::ECONNABORTED => CloseReason::Killed,
        errno::ECONNREFUSED if connecting => CloseReason::Refused,
        errno::ECONNRESET if last.from == TcpState::SynSent => CloseReason::Refused,
        errno::EPIPE | errno::ECONNREFUSED | errno::ECONNRESET => CloseReason::ResetByPeer,
        errno::ETIMEDOUT => timeout(last.from, info),
        errno::EHOSTUNREACH
        | errno::ENETUNREACH
        | errno::EHOSTDOWN
        | errno::ENETDOWN
        | errno::EACCES
        | errno::EPROTO
        | errno::ENOPROTOOPT
        | errno::EOPNOTSUPP => CloseReason::Unreachable,
        _ => CloseReason::Unknown,
    }
}

fn without_error(connection: &Connection, from: TcpState, flags: SocketFlags) -> CloseReason {
    match from {
        TcpState::SynSent if connection.local.port == 0 => CloseReason::NoLocalPort,
        TcpState::SynSent => CloseReason::Cancelled,
        // A Fast Open child whose listener was closed, or a simultaneous open whose descriptor was closed.
        TcpState::SynReceived => CloseReason::Aborted,
        // The kernel hands over to a timewait socket if the application has closed its descriptor or the peer's
        // FIN has arrived. Otherwise the application aborted the connection.
        TcpState::FinWait2 if !flags.attached || flags.peer_fin => CloseReason::Closed,
        TcpState::Closing | TcpState::LastAck => CloseReason::Closed,
        TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 | TcpState::FinWait2 => {
            let shut = flags.shutdown_receive && flags.shutdown_send;
            // Never accepted: the listener was closed first.
            let orphan = !flags.attached && !shut;
            if orphan || (shut && flags.linger_zero) {
                CloseReason::Aborted
            } else if shut {
                // close() sets both shutdown bits before it checks for unread data. In FIN_WAIT1 the data arrived
                // after close().
                CloseReason::UnreadData
            } else {
                CloseReason::Disconnected
            }
        }
        _ => CloseReason::Unknown,
    }
}

/// Classifies an ETIMEDOUT.
///
/// `tcp_write_err` has already purged the write queue, so the number of segments in flight is not usable. The
/// sequence numbers and the counts of retransmissions and probes are still valid.
fn timeout(from: TcpState, info: Option<&TcpInfo>) -> CloseReason {
    match (from, info) {
        (TcpState::SynSent | TcpState::SynReceived, _) => CloseReason::TimedOut,
        (TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck | TcpState::FinWait2, _) => {
            CloseReason::PeerVanished
        }
        (_, None) => CloseReason::Unknown,
        (_, Some(info)) if info.pending_retransmits == 0 && info.unacked_bytes == 0 => {
            CloseReason::KeepaliveTimeout
        }
        (_, Some(info)) if info.user_timeout.is_some() => CloseReason::UserTimeout,
        _ => CloseReason::RetransmissionTimeout,
    }
}

fn closed_by(reason: CloseReason, connection: &Connection, from: TcpState) -> Option<ClosedBy> {
    match reason {
        CloseReason::Closed => Some(match from {
            TcpState::Closing => ClosedBy::Both,
            TcpState::FinWait2 => ClosedBy::Local,
            TcpState::LastAck => ClosedBy::Remote,
            _ if connection.history.contains(TcpState::CloseWait) => ClosedBy::Remote,
            _ => ClosedBy::Local,
        }),
        CloseReason::Refused | CloseReason::Unreachable | CloseReason::ResetByPeer => Some(ClosedBy::Remote),
        CloseReason::TimedOut
        | CloseReason::Cancelled
        | CloseReason::NoLocalPort
        | CloseReason::Aborted
        | CloseReason::UnreadData
        | CloseReason::RetransmissionTimeout
        | CloseReason::KeepaliveTimeout
        | CloseReason::UserTimeout
        | CloseReason::PeerVanished
        | CloseReason::Killed
        | CloseReason::Disconnected => Some(ClosedBy::Local),
        CloseReason::Unknown => None,
    }
}

impl Connection {
    /// Returns whether the start was seen and the connection was certainly never established.
    pub fn never_established(&self) -> bool {
        self.role != Role::Unknown && !self.gap && !self.history.contains(TcpState::Established)
    }
}
