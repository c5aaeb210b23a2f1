//! Classifies why a connection closed, and which side closed it.
//!
//! The evidence is the socket's fields at its last transition. The kernel sets `sk_err` before that transition
//! everywhere except in `tcp_disconnect`, so a local abort shows no error (6.18 tcp.c, tcp_input.c, tcp_timer.c).

use crate::{
    event::{SocketFlags, TcpInfo, TcpState, Transition},
    lifecycle::Connection,
};

/// Error numbers of closed TCP sockets, `include/uapi/asm-generic/errno.h`.
mod errno {
    pub(super) const EPIPE: u16 = 32;
    pub(super) const ENETDOWN: u16 = 100;
    pub(super) const ENETUNREACH: u16 = 101;
    pub(super) const ECONNABORTED: u16 = 103;
    pub(super) const ECONNRESET: u16 = 104;
    pub(super) const ETIMEDOUT: u16 = 110;
    pub(super) const ENONET: u16 = 64;
    pub(super) const EMSGSIZE: u16 = 90;
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
    /// `connect()` failed before it sent a SYN: no local port was free, or the socket is bound to the endpoints of
    /// another connection (EADDRNOTAVAIL).
    NoLocalPort,
    /// The peer sent a reset.
    ResetByPeer,
    /// The local side sent a reset on purpose: `close()` with an `SO_LINGER` of 0, or a listener closed before it
    /// accepted the connection.
    Aborted,
    /// The application closed the socket with unread data, or data arrived after it closed. The kernel sent a reset,
    /// and the peer may have lost data that was already acknowledged.
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
    /// A checkpoint or restore (`TCP_REPAIR`) removed the socket without sending a segment.
    Repaired,
    /// The kernel gave up an orphan because of its memory or `tcp_max_orphans`.
    OutOfResources,
    /// The evidence is not conclusive.
    Unknown,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 18] = [
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
        Self::Repaired,
        Self::OutOfResources,
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
            Self::Repaired => "repaired",
            Self::OutOfResources => "out_of_resources",
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
            | Self::PeerVanished
            | Self::OutOfResources => true,
            Self::Closed
            | Self::Cancelled
            | Self::Aborted
            | Self::Killed
            | Self::Disconnected
            | Self::Repaired
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
        let (reason, error) = match last.flags {
            Some(flags) => {
                let (reason, is_cause) = with_evidence(connection, last, flags);
                (reason, Some(flags.error).filter(|&error| error != 0 && is_cause))
            }
            None => (from_transitions(connection, last), None),
        };
        Self { reason, closed_by: closed_by(reason, last.from), error }
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

/// Returns the reason, and whether `sk_err` is its cause. `sk_err` may also hold an error that ended nothing: one left
/// by an earlier connection of the descriptor, or an ICMP error queued for `IP_RECVERR` (`tcp_v4_err`, 6.18 tcp_ipv4.c).
fn with_evidence(connection: &Connection, last: &Transition, flags: SocketFlags) -> (CloseReason, bool) {
    let (from, info) = (last.from, last.info.as_ref());
    if flags.repair {
        return (CloseReason::Repaired, false);
    }
    if sent_nothing(last) {
        // close() and shutdown() set a shutdown bit; a connect() that fails sets none.
        let closed = flags.shutdown_receive || flags.shutdown_send;
        return (if closed { CloseReason::Cancelled } else { CloseReason::NoLocalPort }, false);
    }
    // close() sets both bits before it leaves the state; shutdown() leaves these states itself.
    let in_close = flags.shutdown_receive
        && flags.shutdown_send
        && matches!(from, TcpState::Established | TcpState::CloseWait);
    if in_close && flags.error != errno::ECONNABORTED {
        return (without_error(connection, last, flags), false);
    }
    let connecting = matches!(from, TcpState::SynSent | TcpState::SynReceived);
    match flags.error {
        0 => (without_error(connection, last, flags), false),
        errno::ECONNABORTED => (CloseReason::Killed, true),
        errno::ECONNREFUSED if connecting => (CloseReason::Refused, true),
        errno::ECONNRESET if from == TcpState::SynSent => (CloseReason::Refused, true),
        errno::ECONNRESET if received_data_after_close(connection, last, flags) => {
            (CloseReason::UnreadData, true)
        }
        errno::EPIPE | errno::ECONNRESET => (CloseReason::ResetByPeer, true),
        errno::ETIMEDOUT => (timeout(from, info), true),
        error if connecting && is_unreachable(error) => (CloseReason::Unreachable, true),
        // `tcp_write_err` reports the last ICMP error instead of ETIMEDOUT (6.18 tcp_timer.c).
        error if is_queued(error) && gave_up(info) => match timeout(from, info) {
            CloseReason::PeerVanished => (CloseReason::PeerVanished, true),
            _ => (CloseReason::Unreachable, true),
        },
        // It ended nothing: a close in order, or an ICMP error that waits to be read.
        error if closes_in_order(from, flags) || is_queued(error) => {
            (without_error(connection, last, flags), false)
        }
        _ => (CloseReason::Unknown, true),
    }
}

/// Returns whether a transition from this state to CLOSE ends an exchange of FINs.
fn closes_in_order(from: TcpState, flags: SocketFlags) -> bool {
    matches!(from, TcpState::Closing | TcpState::LastAck) || from == TcpState::FinWait2 && flags.peer_fin
}

/// Returns whether an error reports that a peer is unreachable (`icmp_err_convert`, 6.18 icmp.c).
fn is_unreachable(error: u16) -> bool {
    matches!(
        error,
        errno::EHOSTUNREACH
            | errno::ENETUNREACH
            | errno::EHOSTDOWN
            | errno::ENETDOWN
            | errno::EACCES
            | errno::EPROTO
            | errno::ENOPROTOOPT
            | errno::EOPNOTSUPP
    )
}

/// Returns whether `IP_RECVERR` may have queued the error on a connection that goes on (`tcp_v4_err`, 6.18 tcp_ipv4.c).
fn is_queued(error: u16) -> bool {
    is_unreachable(error) || matches!(error, errno::ECONNREFUSED | errno::EMSGSIZE | errno::ENONET)
}

/// Returns whether a client closed without having sent a segment: `connect()` failed before the SYN, or Fast Open
/// deferred it.
pub(super) fn sent_nothing(last: &Transition) -> bool {
    last.from == TcpState::SynSent
        && last.to == TcpState::Closed
        && last.info.is_some_and(|info| info.segments_sent == 0)
}

/// Returns whether the kernel has retransmitted or probed without an answer, or still waits for an ACK of its FIN.
fn gave_up(info: Option<&TcpInfo>) -> bool {
    info.is_some_and(|info| info.pending_retransmits > 0 || info.probes > 0 || info.unacked_bytes > 0)
}

/// Returns whether data arrived after the application closed. The kernel then sends a reset (`tcp_rcv_state_process`,
/// 6.18 tcp_input.c), with ECONNRESET if the data arrived before the ACK of the FIN or after it, and without an error
/// if it arrived with it.
///
/// A received reset carries no data, so the count of data segments tells the two apart. It also counts a retransmission
/// of data that this side has received and acknowledged; the kernel ignores that segment.
fn received_data_after_close(connection: &Connection, last: &Transition, flags: SocketFlags) -> bool {
    if !matches!(last.from, TcpState::FinWait1 | TcpState::FinWait2) || !flags.shutdown_receive {
        return false;
    }
    let received = last.info.map(|info| info.data_segments_received);
    connection.data_segments_at_close().zip(received).is_some_and(|(at_close, received)| received > at_close)
}

fn without_error(connection: &Connection, last: &Transition, flags: SocketFlags) -> CloseReason {
    let from = last.from;
    let shut = flags.shutdown_receive && flags.shutdown_send;
    let unread = last.info.is_some_and(|info| info.unread_bytes > 0);
    let unacked = last.info.is_some_and(|info| info.unacked_bytes > 0);
    match from {
        TcpState::SynSent if connection.local.port == 0 => CloseReason::NoLocalPort,
        TcpState::SynSent => CloseReason::Cancelled,
        // Before accept(): the listener was closed first. A Fast Open child may still be in SYN_RECV.
        TcpState::SynReceived | TcpState::Established | TcpState::CloseWait if !flags.attached && !shut => {
            CloseReason::Aborted
        }
        TcpState::SynReceived | TcpState::Established | TcpState::CloseWait if !shut => {
            CloseReason::Disconnected
        }
        TcpState::SynReceived | TcpState::Established | TcpState::CloseWait if flags.linger_zero => {
            CloseReason::Aborted
        }
        // shutdown() leaves SYN_RECV without a transition since 6.9 (`tcp_shutdown`), so both bits do not prove a close().
        TcpState::SynReceived if !unread => CloseReason::Disconnected,
        // close() sets both shutdown bits before it checks for unread data.
        TcpState::SynReceived | TcpState::Established | TcpState::CloseWait => CloseReason::UnreadData,
        // The FIN was not acknowledged, and no timer ran out (`tcp_check_oom`, `tcp_out_of_resources`).
        TcpState::Closing | TcpState::LastAck if unacked && !flags.attached => CloseReason::OutOfResources,
        TcpState::FinWait1 | TcpState::FinWait2
            if flags.attached && !(from == TcpState::FinWait2 && flags.peer_fin) =>
        {
            if shut && flags.linger_zero {
                CloseReason::Aborted
            } else if shut && unread {
                CloseReason::UnreadData
            } else {
                // connect(AF_UNSPEC) after shutdown().
                CloseReason::Disconnected
            }
        }
        // The ACK of the FIN: the kernel checks `TCP_LINGER2`, then for data (`tcp_rcv_state_process`, 6.18 tcp_input.c).
        TcpState::FinWait1 | TcpState::FinWait2 if !flags.peer_fin && flags.linger2_negative => {
            CloseReason::Aborted
        }
        TcpState::FinWait1 | TcpState::FinWait2
            if !flags.peer_fin && received_data_after_close(connection, last, flags) =>
        {
            CloseReason::UnreadData
        }
        // From FIN_WAIT2 the kernel hands the socket over to a timewait socket.
        TcpState::Closing | TcpState::LastAck | TcpState::FinWait2 => CloseReason::Closed,
        TcpState::FinWait1 => CloseReason::OutOfResources,
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

fn closed_by(reason: CloseReason, from: TcpState) -> Option<ClosedBy> {
    match reason {
        CloseReason::Closed => Some(match from {
            TcpState::Closing => ClosedBy::Both,
            TcpState::LastAck => ClosedBy::Remote,
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
        | CloseReason::Disconnected
        | CloseReason::Repaired
        | CloseReason::OutOfResources => Some(ClosedBy::Local),
        CloseReason::Unknown => None,
    }
}
