//! Why a connection ended, and who ended it.
//!
//! The evidence is what the socket itself knows at its last transition: `sk_err` is set before it
//! everywhere except in `tcp_disconnect`, so a local abort shows none (6.18 tcp.c, tcp_input.c,
//! tcp_timer.c).

use crate::{
    event::{SocketFlags, TcpInfo, TcpState, Transition},
    lifecycle::{Connection, Role},
};

/// Error numbers that a TCP socket ends with, `include/uapi/asm-generic/errno.h`.
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

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// FINs both ways.
    Closed,
    /// The peer answered the SYN with a reset, or its host with an ICMP port unreachable.
    Refused,
    /// Nothing answered the SYNs (or, for Fast Open and simultaneous open, the SYN-ACKs).
    TimedOut,
    /// An ICMP error or the routing said that the peer cannot be reached.
    Unreachable,
    /// The application gave up before the connection was established.
    Cancelled,
    /// No local port was free.
    NoLocalPort,
    /// The peer sent a reset.
    ResetByPeer,
    /// The application here sent a reset on purpose (`SO_LINGER` of 0, or a listener closed with
    /// connections nobody had accepted).
    Aborted,
    /// The application closed without reading all that had come: the kernel sent a reset, and the
    /// peer may have lost data it had already received acknowledgements for.
    UnreadData,
    /// Data was resent until the kernel gave up.
    RetransmissionTimeout,
    /// The peer answered no keepalive probe.
    KeepaliveTimeout,
    /// `TCP_USER_TIMEOUT` ran out.
    UserTimeout,
    /// The application was done; the peer never acknowledged the end.
    PeerVanished,
    /// An administrator destroyed the socket (`ss -K`).
    Killed,
    /// The application dissolved the association with `connect(AF_UNSPEC)`.
    Disconnected,
    /// The evidence does not tell.
    Unknown,
}

impl CloseReason {
    /// Every reason.
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

    /// The name in every output.
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

    /// Whether something went wrong that nobody here chose: the connection could not be made, was
    /// broken, or lost data. Cancelling, aborting, disconnecting and killing are choices.
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

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClosedBy {
    /// This side: its application, its kernel giving up, or its administrator.
    Local,
    /// The peer or the network.
    Remote,
    /// Both at once: their FINs crossed.
    Both,
}

impl ClosedBy {
    /// The name in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
        }
    }
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCause {
    /// Why.
    pub reason: CloseReason,
    /// By whom; none when that is not known.
    pub closed_by: Option<ClosedBy>,
    /// `sk_err`, an errno; none when there was none or it could not be read.
    pub error: Option<u16>,
}

impl CloseCause {
    /// A connection whose end was not seen: another life began on the same socket.
    pub(super) const UNSEEN: Self = Self { reason: CloseReason::Unknown, closed_by: None, error: None };

    /// Reads the evidence of the transition to CLOSE.
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

/// What the transitions alone tell, on a kernel whose sockets cannot be read.
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
    let opening = matches!(last.from, TcpState::SynSent | TcpState::SynReceived);
    match flags.error {
        0 => without_error(connection, last.from, flags),
        errno::ECONNABORTED => CloseReason::Killed,
        errno::ECONNREFUSED if opening => CloseReason::Refused,
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
        // A Fast Open child or a simultaneous open whose listener or descriptor was closed.
        TcpState::SynReceived => CloseReason::Aborted,
        // The kernel hands over to a mini-socket when the application has let go, or when the peer's
        // FIN has come. With neither, the application ended it.
        TcpState::FinWait2 if !flags.attached || flags.peer_fin => CloseReason::Closed,
        TcpState::Closing | TcpState::LastAck => CloseReason::Closed,
        TcpState::Established | TcpState::CloseWait | TcpState::FinWait1 | TcpState::FinWait2 => {
            let shut = flags.shutdown_receive && flags.shutdown_send;
            // Never accepted: the listener was closed over it.
            let orphan = !flags.attached && !shut;
            if orphan || (shut && flags.linger_zero) {
                CloseReason::Aborted
            } else if shut {
                // close() sets both bits before it finds data that nobody read. In FIN_WAIT1 it is
                // data that came after close().
                CloseReason::UnreadData
            } else {
                CloseReason::Disconnected
            }
        }
        _ => CloseReason::Unknown,
    }
}

/// `tcp_write_err` has emptied the queue by now, so segments in flight tell nothing; the sequence
/// numbers and the counts of resends and probes are still there.
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
        (_, Some(info)) if info.user_timeout_ms.is_some() => CloseReason::UserTimeout,
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
    /// Whether its opening was seen and it certainly never became established.
    pub fn never_established(&self) -> bool {
        self.role != Role::Unknown && !self.gap && !self.history.contains(TcpState::Established)
    }
}
