//! A socket as `sock_diag` describes it.

use tracer_core::event::{AcceptQueue, Endpoint, TcpInfo, TcpState};

/// What a running timer of a socket is for (`idiag_timer`, `inet_sk_diag_fill`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// Something sent waits for its acknowledgement: data, a SYN, a FIN, or on a half-open request
    /// the SYN-ACK. Loss probes and reordering timers count here as well.
    Retransmit,
    /// Keepalive; on an orphan that is still a full socket in `FIN_WAIT2` the wait for the peer's FIN.
    Keepalive,
    /// The rest of the life of a timewait mini-socket.
    TimeWait,
    /// The peer's window is closed: the next zero-window probe.
    ZeroWindowProbe,
    /// A kind that is newer than this program, as the kernel numbers it.
    Other(u8),
}

/// The timer that runs on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// What it is for.
    pub kind: TimerKind,
    /// Milliseconds until it fires; 0 when it is overdue.
    pub expires_ms: u32,
    /// How often it fired in a row without an answer: resends of the waiting segment
    /// (`icsk_retransmits`, `num_retrans`) or probes (`icsk_probes_out`), as the kind says. Always 0
    /// for [`TimerKind::TimeWait`].
    pub retransmits: u8,
}

/// Which directions of a full socket are shut down (`sk_shutdown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Nothing more will be received: the peer's FIN arrived or the application shut down reading.
    pub receive: bool,
    /// Nothing more will be sent: the application shut down writing or closed.
    pub send: bool,
}

/// Milliseconds since something last happened on a connection, at the moment of the dump.
///
/// The kernel measures in its tick (1 to 10 ms) and starts each of these when the connection becomes
/// `ESTABLISHED`, so none is ever longer than the time since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Since data was last sent, resends included (`tcpi_last_data_sent`).
    pub data_sent_ms: u32,
    /// Since data was last received (`tcpi_last_data_recv`). A bare FIN is no data.
    pub data_received_ms: u32,
    /// Since an acknowledgement last came (`tcpi_last_ack_recv`): nearly every segment carries one,
    /// FINs and answers to keepalives too, so this is how long the peer has been silent.
    pub ack_received_ms: u32,
}

impl Activity {
    /// Milliseconds in which neither data was sent nor anything received.
    pub fn idle_ms(self) -> u32 {
        self.data_sent_ms.min(self.data_received_ms).min(self.ack_received_ms)
    }
}

/// Why data may not be leaving (`struct tcp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Bytes written by the application and not sent even once.
    pub not_sent_bytes: u32,
    /// The receive window the peer offers, bytes; 0 stops the sender. `None` before Linux 5.4.
    pub peer_window: Option<u32>,
    /// Retransmission timeout in force, microseconds, without the back-off.
    pub rto_us: u32,
    /// How often that timeout has been doubled since the last acknowledgement.
    pub backoff: u8,
    /// Microseconds of the life of the connection in which there was data to send.
    pub busy_us: u64,
    /// Of these, microseconds in which the peer's window held it back.
    pub window_limited_us: u64,
    /// Of these, microseconds in which the send buffer was too small.
    pub buffer_limited_us: u64,
}

/// Memory a full socket holds, bytes of kernel memory rather than of payload (`SK_MEMINFO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In the receive queue (`sk_rmem_alloc`).
    pub receive_used: u32,
    /// The most it may hold there (`SO_RCVBUF`).
    pub receive_limit: u32,
    /// In the send queue (`sk_wmem_queued`).
    pub send_used: u32,
    /// The most it may hold there (`SO_SNDBUF`).
    pub send_limit: u32,
    /// Segments dropped at this socket over its life (`sk_drops`); on a listener every SYN or final
    /// ACK refused because the accept queue was full, among other reasons.
    pub drops: u32,
}

/// One TCP socket.
///
/// Three kinds appear. A *full* socket has everything. A half-open *request* ([`Self::request`]) and
/// a timewait *mini-socket* ([`Self::mini`]) are stand-ins with no owner and no counters: for them the
/// kernel fills in zeros, which are given as `None` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketSnapshot {
    /// The kernel's socket cookie (`SO_COOKIE`), never reused while the host is up. The mini-socket
    /// keeps the cookie of the connection it stands for; a connection does not keep its request's.
    pub cookie: u64,
    /// Inode of the network namespace, as `stat` of `/proc/PID/ns/net` shows it. The message does
    /// not carry it: [`decode::message`](super::decode::message) leaves it `None`, a dump fills it in
    /// unless `/proc` could not be read.
    pub netns: Option<u32>,
    /// Its state. A half-open request counts as `SYN_RECV`, a mini-socket as what it stands for.
    pub state: TcpState,
    /// A half-open request (`TCP_NEW_SYN_RECV`): the SYN was answered, the final ACK is awaited, or
    /// the first data with `TCP_DEFER_ACCEPT`.
    pub request: bool,
    /// A timewait mini-socket: `TIME_WAIT`, or an orphan in `FIN_WAIT2`.
    pub mini: bool,
    /// The local end.
    pub local: Endpoint,
    /// The remote end; unspecified on a listener.
    pub remote: Endpoint,
    /// Index of the interface the socket is bound to (`SO_BINDTODEVICE`, or a link-local address).
    pub interface: Option<u32>,
    /// Owner, as the caller's user namespace numbers it. `None` for requests and mini-sockets, and
    /// for orphans of which the kernel says 0: before 6.17 that is all it says of any orphan.
    pub uid: Option<u32>,
    /// Inode of the socket, the number in `socket:[N]` of `/proc/PID/fd`; `None` when no descriptor
    /// can refer to it: not accepted yet, or closed. The kernel reports the lower 32 bits.
    pub inode: Option<u64>,
    /// The timer that runs on it.
    pub timer: Option<Timer>,
    /// `idiag_rqueue` as it came. On a listener the length of the accept queue, else
    /// `rcv_nxt - copied_seq`, in which the peer's FIN counts as one until the application read the
    /// end of the stream. See [`Self::unread_bytes`].
    pub rqueue: u32,
    /// `idiag_wqueue` as it came. On a listener the limit of the accept queue, else
    /// `write_seq - snd_una`, in which an unacknowledged SYN or FIN counts as one. See
    /// [`Self::unacknowledged_bytes`].
    pub wqueue: u32,
    /// The accept queue of a listener. It is full when `length > limit`: Linux lets one more in.
    pub accept_queue: Option<AcceptQueue>,
    /// The kernel's account of a connection. Two of its fields `sock_diag` does not know:
    /// `user_timeout_ms` is always `None` and `soft_error` always 0. `None` on listeners, requests
    /// and mini-sockets.
    pub info: Option<TcpInfo>,
    /// Since when it has been quiet; for connections that are or were `ESTABLISHED`.
    pub activity: Option<Activity>,
    /// What holds back its data, where [`Self::info`] is given.
    pub sending: Option<Sending>,
    /// The memory of a full socket and what was dropped at it.
    pub memory: Option<Memory>,
    /// Which directions of a full socket are shut down.
    pub shutdown: Option<Shutdown>,
    /// Id of the cgroup the socket was made in: the inode of its directory. Full sockets, 5.8+.
    pub cgroup_id: Option<u64>,
    /// `IPV6_V6ONLY` of a listener on an IPv6 address: without it a listener on `::` takes IPv4 too.
    pub v6_only: Option<bool>,
}

impl SocketSnapshot {
    /// A socket with all its fields, not a request or a mini-socket.
    pub const fn is_full(&self) -> bool {
        !self.request && !self.mini
    }

    /// Payload bytes received that the application has not read; `None` where there is no stream.
    ///
    /// The peer's FIN is not counted. An application may also leave the end of the stream unread
    /// after all its data, see [`Self::end_of_stream_unread`].
    pub fn unread_bytes(&self) -> Option<u32> {
        let queue = self.has_stream().then_some(self.rqueue)?;
        Some(if self.peer_closed() { queue.saturating_sub(1) } else { queue })
    }

    /// Whether the peer's FIN arrived and the application has not read up to it; `None` where there
    /// is no stream.
    ///
    /// In `CLOSE_WAIT` this tells an application that does not read from one that read the end of
    /// the stream and does not close.
    pub fn end_of_stream_unread(&self) -> Option<bool> {
        self.has_stream().then_some(self.peer_closed() && self.rqueue > 0)
    }

    /// Payload bytes written that the peer has not acknowledged, sent or not; `None` where there is
    /// no stream. An unacknowledged SYN or FIN is not counted.
    pub fn unacknowledged_bytes(&self) -> Option<u32> {
        let queue = self.has_stream().then_some(self.wqueue)?;
        Some(match self.state {
            // In these states the kernel has put a SYN or a FIN after the data, and the peer has not
            // acknowledged it, or the state would be another one.
            TcpState::SynSent
            | TcpState::SynReceived
            | TcpState::FinWait1
            | TcpState::Closing
            | TcpState::LastAck => queue.saturating_sub(1),
            _ => queue,
        })
    }

    /// Milliseconds the connection has certainly been in its state: a lower bound, never the time
    /// itself. `None` where no bound is known.
    ///
    /// A segment from the peer starts `ESTABLISHED`, `FIN_WAIT2`, `CLOSE_WAIT` and `CLOSING`, so each
    /// is at least as old as the last acknowledgement received. A `close()` starts the others.
    pub fn state_age_at_least_ms(&self) -> Option<u32> {
        match self.state {
            TcpState::Established | TcpState::FinWait2 | TcpState::CloseWait | TcpState::Closing => {
                self.activity.map(|activity| activity.ack_received_ms)
            }
            _ => None,
        }
    }

    /// A full socket that is no listener.
    fn has_stream(&self) -> bool {
        self.is_full() && self.state != TcpState::Listen
    }

    /// The state says that the peer's FIN was received in order.
    fn peer_closed(&self) -> bool {
        matches!(self.state, TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait)
    }
}
