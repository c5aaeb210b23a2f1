//! A socket from a socket dump.

use tracer_core::event::{
    AcceptQueue, CgroupId, ConnKey, Endpoint, Micros, Millis, Nanos, Netns, SocketCookie, TcpInfo, TcpState,
};

/// The purpose of a socket's running timer (`idiag_timer`, `inet_sk_diag_fill`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// Retransmission of unacknowledged data, a SYN or a FIN; for a request socket of the SYN-ACK. Includes loss probes
    /// and the reordering timer.
    Retransmit,
    /// Keepalive. For a full socket in `FIN_WAIT2` without an owner, the wait for the peer's FIN.
    Keepalive,
    /// The remaining lifetime of a timewait socket.
    TimeWait,
    /// The next zero-window probe: the peer's window is closed.
    ZeroWindowProbe,
    /// A kind that this version does not know, by its kernel number.
    Other(u8),
}

/// A socket's running timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The purpose.
    pub kind: TimerKind,
    /// Time until it fires; 0 when it is overdue.
    pub expires: Millis,
    /// Consecutive expiries without an answer: retransmissions of the pending segment (`icsk_retransmits`,
    /// `num_retrans`) or probes (`icsk_probes_out`), by kind. Always 0 for [`TimerKind::TimeWait`].
    pub retransmits: u8,
}

/// One TCP socket of a socket dump.
///
/// A *full* socket has all fields. A request socket ([`Self::request`]) and a timewait socket ([`Self::timewait`]) have
/// no owner and no counters: the kernel reports zeros for them, which become `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketSnapshot {
    /// The kernel's socket cookie (`SO_COOKIE`), unique until the host restarts. A timewait socket keeps the cookie of
    /// its connection. An accepted connection does not keep the cookie of its request socket.
    pub cookie: SocketCookie,
    /// Inode of the network namespace, as in `stat` of `/proc/PID/ns/net`. The message does not contain it:
    /// [`decode::message`](super::decode::message) leaves it `None`, and a dump sets it unless `/proc` is unreadable.
    pub netns: Option<Netns>,
    /// The state. A request socket is in `SYN_RECV`.
    pub state: TcpState,
    /// A request socket (`TCP_NEW_SYN_RECV`): the SYN-ACK was sent, and the final ACK is missing, or with
    /// `TCP_DEFER_ACCEPT` the first data.
    pub request: bool,
    /// A timewait socket: in `TIME_WAIT`, or without an owner in `FIN_WAIT2`.
    pub timewait: bool,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint; unspecified for a listener.
    pub remote: Endpoint,
    /// Inode of the socket, the number in `socket:[N]` of `/proc/PID/fd`. `None` when no descriptor can refer to the
    /// socket: it has not been accepted yet, or is closed. The kernel reports the lower 32 bits.
    pub inode: Option<u64>,
    /// The running timer.
    pub timer: Option<Timer>,
    /// The unmodified `idiag_rqueue`. For a listener the length of the accept queue, otherwise `rcv_nxt - copied_seq`,
    /// which includes 1 for the peer's FIN until the application reads the end of the stream. See
    /// [`Self::unread_bytes`].
    pub rqueue: u32,
    /// The unmodified `idiag_wqueue`. For a listener the limit of the accept queue, otherwise `write_seq - snd_una`,
    /// which includes 1 for an unacknowledged SYN or FIN. See [`Self::unacknowledged_bytes`].
    pub wqueue: u32,
    /// The accept queue of a listener. It is full when `length > limit`: Linux admits one more than the limit.
    pub accept_queue: Option<AcceptQueue>,
    /// The kernel's counters of a connection. `sock_diag` lacks two fields: `user_timeout` is always `None` and
    /// `soft_error` always 0. `None` for listeners, request and timewait sockets.
    pub info: Option<TcpInfo>,
    /// Time since the last acknowledgement (`tcpi_last_ack_recv`), for connections that are or were `ESTABLISHED`.
    /// Nearly every segment carries an acknowledgement, including FINs and answers to keepalives. The kernel measures
    /// in ticks (1 to 10 ms), and starts when the connection becomes `ESTABLISHED`.
    pub since_ack: Option<Millis>,
    /// The index of the interface that the socket is bound to (`idiag_if`); none when it is not bound.
    pub interface: Option<u32>,
    /// The retransmission timeout in use, after any doubling (`tcpi_rto`). Full sockets only.
    pub rto: Option<Micros>,
    /// Segments dropped at a full socket over its lifetime (`sk_drops`). For a listener, this includes every SYN or
    /// final ACK that was refused because the accept queue was full.
    pub drops: Option<u32>,
    /// Id of the cgroup in which the socket was created: the inode of its directory. Full sockets only, 5.8+.
    pub cgroup_id: Option<CgroupId>,
}

impl SocketSnapshot {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }

    /// Returns whether this is neither a request socket nor a timewait socket.
    pub const fn is_full(&self) -> bool {
        !self.request && !self.timewait
    }

    /// Returns the received payload bytes that the application has not read, without the peer's FIN; `None` without a
    /// stream.
    pub fn unread_bytes(&self) -> Option<u32> {
        self.has_stream().then(|| self.rqueue.saturating_sub(peer_fin(self.state)))
    }

    /// Returns the written payload bytes that the peer has not acknowledged, sent or not, without a SYN or FIN; `None`
    /// without a stream.
    pub fn unacknowledged_bytes(&self) -> Option<u32> {
        self.has_stream().then(|| self.wqueue.saturating_sub(own_syn_or_fin(self.state)))
    }

    /// Returns a lower bound of the time in the state; `None` where no bound is known.
    ///
    /// A segment from the peer starts `ESTABLISHED`, `FIN_WAIT2`, `CLOSE_WAIT` and `CLOSING`, so each is at least as
    /// old as the last acknowledgement. The other states start with a SYN or FIN of this host, and are at least as old as
    /// its retransmissions.
    pub fn state_age_at_least(&self) -> Option<Nanos> {
        match self.state {
            TcpState::Established | TcpState::FinWait2 | TcpState::CloseWait => {
                self.since_ack.map(Nanos::from)
            }
            TcpState::Closing => self.since_ack.map(Nanos::from).max(self.since_fin_at_least()),
            TcpState::SynSent => self.since_syn_at_least(),
            TcpState::FinWait1 | TcpState::LastAck => self.since_fin_at_least(),
            _ => None,
        }
    }

    /// Returns the least time since the first SYN. Each retransmission follows the one before after at least 1 s
    /// (`TCP_TIMEOUT_INIT`; `tcp_syn_linear_timeouts` delays the doubling).
    fn since_syn_at_least(&self) -> Option<Nanos> {
        const INTERVAL: Nanos = Nanos::from_secs(1);
        let timer = self.timer.filter(|timer| timer.kind == TimerKind::Retransmit)?;
        let waited = INTERVAL.saturating_sub(timer.expires.into());
        Some(INTERVAL.saturating_mul(timer.retransmits.into()).saturating_add(waited))
    }

    /// Returns the least time since the first FIN, if nothing but the FIN is retransmitted.
    ///
    /// Each wait was half of the next one, up to the longest (`tcp_retransmit_timer`, 6.18 tcp_timer.c), so the waits before
    /// the current one add up to nearly the current one.
    fn since_fin_at_least(&self) -> Option<Nanos> {
        let timer =
            self.timer.filter(|timer| timer.kind == TimerKind::Retransmit && timer.retransmits > 0)?;
        if self.unacknowledged_bytes() != Some(0) {
            return None;
        }
        let current = Nanos::from(self.rto?);
        let before = current.0 - (current.0 >> timer.retransmits.min(63));
        Some(Nanos(before).saturating_add(current.saturating_sub(timer.expires.into())))
    }

    /// Returns whether this is a full socket and not a listener.
    fn has_stream(&self) -> bool {
        self.is_full() && self.state != TcpState::Listen
    }
}

/// Returns 1 in the states in which the peer's FIN was received in order: the kernel counts it as a byte, in
/// `idiag_rqueue` until the application reads the end of the stream, and in `tcpi_bytes_received`.
pub(super) fn peer_fin(state: TcpState) -> u32 {
    u32::from(matches!(
        state,
        TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait
    ))
}

/// Returns 1 in the states in which a SYN or FIN follows the data and the peer has not acknowledged it: the kernel counts
/// it as a byte in `idiag_wqueue`.
pub(super) fn own_syn_or_fin(state: TcpState) -> u32 {
    u32::from(matches!(
        state,
        TcpState::SynSent
            | TcpState::SynReceived
            | TcpState::FinWait1
            | TcpState::Closing
            | TcpState::LastAck
    ))
}
