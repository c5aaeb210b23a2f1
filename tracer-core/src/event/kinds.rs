//! The kinds of events.

use super::{
    AcceptQueue, CgroupId, ConnKey, Endpoint, InitialSequences, KernelName, Nanos, Netns, Process,
    SocketCookie, SocketFlags, SocketId, TcpInfo, TcpState, ThreadName, Timestamp,
};

/// A change of `sk_state`, as reported by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The time of the change.
    pub time: Timestamp,
    /// The socket.
    pub socket: SocketId,
    /// The kernel's socket cookie, if the socket has one. The kernel never reuses a cookie before a reboot.
    pub cookie: Option<SocketCookie>,
    /// The previous state.
    pub from: TcpState,
    /// The new state.
    pub to: TcpState,
    /// The local endpoint. At CLOSE→SYN_SENT the port is 0 unless the application bound it.
    pub local: Endpoint,
    /// The remote endpoint. At LISTEN→SYN_RECV it is unspecified up to 6.14.
    pub remote: Endpoint,
    /// The process that caused the transition; none if a segment or a timer caused it.
    pub process: Option<Process>,
    /// The network namespace of the socket.
    pub netns: Option<Netns>,
    /// The cgroup that the socket was created in.
    pub cgroup_id: Option<CgroupId>,
    /// The listener's accept queue, at LISTEN→SYN_RECV.
    pub accept_queue: Option<AcceptQueue>,
    /// The flags of the socket, read at ESTABLISHED and CLOSE if the tracing mode can read sockets.
    pub flags: Option<SocketFlags>,
    /// The statistics of the connection, read at ESTABLISHED and CLOSE if the tracing mode can read sockets.
    pub info: Option<TcpInfo>,
    /// Segments with payload received so far (`data_segs_in`), when the application closes or shuts down both directions:
    /// at a transition to FIN_WAIT1, and at one from FIN_WAIT1 or FIN_WAIT2 to the same state.
    pub data_segments: Option<u32>,
    /// Segments received so far (`segs_in`), at ESTABLISHED→CLOSE_WAIT of a connection that no process has accepted. The
    /// count at ESTABLISHED again: the segment that completed the handshake carried the FIN.
    pub unaccepted_segments: Option<u32>,
    /// The index of the interface that the socket is bound to (`skc_bound_dev_if`), at CLOSE→SYN_SENT and
    /// SYN_RECV→ESTABLISHED; none when it is not bound. A socket with a link-local address is bound (`tcp_v6_connect`,
    /// `tcp_v6_syn_recv_sock`, 6.18 tcp_ipv6.c).
    pub interface: Option<u32>,
    /// At CLOSE→LISTEN and LISTEN→SYN_RECV: the listener has `IP_TRANSPARENT`, as with TPROXY. The local endpoint of a
    /// connection need not be its listener's.
    pub transparent: bool,
    /// At CLOSE→LISTEN and, up to 6.14, at LISTEN→SYN_RECV: the listener has `TCP_DEFER_ACCEPT`, so a handshake ends with
    /// the client's first data or FIN. The option may also be set after `listen()`.
    pub defer_accept: bool,
    /// The thread that caused the transition; none when it is the process's main thread.
    pub thread: Option<ThreadName>,
    /// The initial sequence numbers, at the end of a handshake: at SYN_SENT→ESTABLISHED, SYN_RECV→ESTABLISHED, and
    /// SYN_SENT→CLOSE if a SYN was sent. At the ESTABLISHED of a simultaneous open the local one is too low by 1, because the
    /// transition does not differ from a server's.
    pub sequences: Option<InitialSequences>,
}

impl Transition {
    /// Creates a transition without optional values: all fields of type `Option` are none.
    pub const fn new(
        time: Timestamp,
        socket: SocketId,
        from: TcpState,
        to: TcpState,
        local: Endpoint,
        remote: Endpoint,
    ) -> Self {
        Self {
            time,
            socket,
            cookie: None,
            from,
            to,
            local,
            remote,
            process: None,
            netns: None,
            cgroup_id: None,
            accept_queue: None,
            flags: None,
            info: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            thread: None,
            sequences: None,
        }
    }

    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

/// A socket from a socket dump: it existed before tracing began, or its first transition was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistingSocket {
    /// When the dump began.
    pub time: Timestamp,
    /// The kernel's socket cookie.
    pub cookie: SocketCookie,
    /// The current state.
    pub state: TcpState,
    /// A lower bound of the time spent in that state.
    pub state_age: Option<Nanos>,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint; unspecified on a listener.
    pub remote: Endpoint,
    /// A process that holds a descriptor of the socket.
    pub process: Option<Process>,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The cgroup of the socket.
    pub cgroup_id: Option<CgroupId>,
    /// The kernel's connection statistics.
    pub info: Option<TcpInfo>,
    /// The index of the interface that the socket is bound to (`idiag_if`); none when it is not bound.
    pub interface: Option<u32>,
}

impl ExistingSocket {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

/// A SYN-ACK retransmission: the final ACK of the handshake did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAckRetransmit {
    /// The time of the event.
    pub time: Timestamp,
    /// The listener.
    pub listener: SocketId,
    /// The local endpoint.
    pub local: Endpoint,
    /// The endpoint of the client.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The number of retransmissions so far, at least 1.
    pub attempts: u8,
    /// When the first SYN-ACK was sent, to the microsecond; none for a SYN cookie.
    pub first_sent: Option<Timestamp>,
    /// The listener's accept queue at that time. A full queue is a possible cause.
    pub accept_queue: Option<AcceptQueue>,
    /// The client's ACK had arrived (`inet_rsk(req)->acked`, `TCP_DEFER_ACCEPT`): the SYN-ACK was not lost.
    pub acked: bool,
    /// The initial sequence numbers of the handshake.
    pub sequences: Option<InitialSequences>,
}

impl SynAckRetransmit {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

/// A process's call on an established connection, when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The time of the event.
    pub time: Timestamp,
    /// The socket of the connection.
    pub socket: SocketId,
    /// The process that made the call.
    pub process: Process,
    /// The thread that made the call; none when it is the process's main thread.
    pub thread: Option<ThreadName>,
}

/// A reset that this host sent (`tcp:tcp_send_reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetSent {
    /// The time of the event.
    pub time: Timestamp,
    /// The socket of the reset connection; none when the reset refuses a SYN to a port on which nobody listens.
    pub socket: Option<SocketId>,
    /// The state of the socket.
    pub state: Option<TcpState>,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The kernel's reason (`enum sk_rst_reason`); none before 6.10.
    pub reason: Option<KernelName>,
}

impl ResetSent {
    /// Returns whether the connection had closed before.
    pub(crate) fn is_after_close(&self) -> bool {
        self.state == Some(TcpState::Closed)
    }
}

/// A reset of the peer that the kernel accepted (`tcp:tcp_receive_reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetReceived {
    /// The time of the event.
    pub time: Timestamp,
    /// The socket of the connection.
    pub socket: SocketId,
}

/// A segment of the three-way handshake (RFC 9293, section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeSegment {
    /// The client's SYN.
    Syn,
    /// The server's SYN and ACK.
    SynAck,
    /// The client's ACK.
    Ack,
}

impl HandshakeSegment {
    /// Every segment.
    pub const ALL: [Self; 3] = [Self::Syn, Self::SynAck, Self::Ack];

    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::Ack => "ack",
        }
    }
}

/// A segment of a handshake that the kernel of this host dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentDropped {
    /// The time of the event.
    pub time: Timestamp,
    /// The sender's socket, if the segment was on its way out.
    pub socket: Option<SocketId>,
    /// The segment's source. Either end, or both, may be this host.
    pub source: Endpoint,
    /// The segment's destination.
    pub destination: Endpoint,
    /// The network namespace that dropped it.
    pub netns: Option<Netns>,
    /// The segment.
    pub segment: HandshakeSegment,
    /// The kernel's reason (`enum skb_drop_reason`), or `accept_queue_full`.
    pub reason: KernelName,
    /// The kernel function that dropped it; none when unknown.
    pub function: Option<KernelName>,
}

impl SegmentDropped {
    /// Returns whether the segment was lost. The kernel also frees a SYN that it answers with a reset, because nobody listens,
    /// and without a reason one that it answers with another SYN-ACK (`tcp_check_req`, 6.18 tcp_minisocks.c).
    pub fn is_loss(&self) -> bool {
        !matches!(self.reason.text(), "no_socket" | "not_specified")
    }
}

/// The removal of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimewaitEnd {
    /// The time of the event.
    pub time: Timestamp,
    /// The state at removal: TIME_WAIT, or FIN_WAIT2 if the peer's FIN never arrived.
    pub state: TcpState,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
}

impl TimewaitEnd {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

/// A timewait socket from a socket dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistingTimewait {
    /// When the dump began.
    pub time: Timestamp,
    /// The state: TIME_WAIT, or FIN_WAIT2 until the peer's FIN arrives.
    pub state: TcpState,
    /// When the kernel's timer is due to remove it.
    pub timer_due: Timestamp,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
}

impl ExistingTimewait {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

/// A translation of a client's connection by this host (conntrack): the address that it dialled stands for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// When the source learned of it, which is before the end of the handshake.
    pub time: Timestamp,
    /// The client's endpoint, that of its socket.
    pub client: Endpoint,
    /// The endpoint that it dialled.
    pub service: Endpoint,
    /// The endpoint that its segments go to.
    pub backend: Endpoint,
    /// The network namespace that translates; that of the socket may be another one.
    pub netns: Option<Netns>,
}

/// An event of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket changed state.
    Transition(Transition),
    /// A socket dump contains this socket.
    Existing(ExistingSocket),
    /// A socket dump contains this timewait socket.
    ExistingTimewait(ExistingTimewait),
    /// The following socket dump is a resync of this network namespace. Precedes the sockets of the dump; several
    /// scopes may precede one dump. A dump without a scope covers the whole host.
    DumpScope {
        /// When the dump began.
        started: Timestamp,
        /// The network namespace.
        netns: Netns,
    },
    /// The socket dump is complete. A tracked connection in its scope that the dump did not contain has closed.
    DumpEnd {
        /// When the dump began.
        started: Timestamp,
        /// Whether the dump lists the timewait sockets too. If so, a tracked timewait socket in its scope that the dump
        /// did not contain is gone.
        timewait: bool,
    },
    /// A SYN-ACK was retransmitted.
    SynAckRetransmit(SynAckRetransmit),
    /// A process read from a connection for the first time.
    FirstRead(Call),
    /// A process wrote to a connection for the first time.
    FirstWrite(Call),
    /// The kernel removed a timewait socket.
    TimewaitEnd(TimewaitEnd),
    /// A process accepted a connection.
    Accepted(Call),
    /// This host sent a reset.
    ResetSent(ResetSent),
    /// The peer sent a reset.
    ResetReceived(ResetReceived),
    /// This host dropped a segment of a handshake.
    SegmentDropped(SegmentDropped),
    /// This host translates a connection.
    Translated(Translated),
    /// The time has advanced. No earlier events follow, except delayed ones.
    Time(Timestamp),
}

impl Event {
    /// Returns the time of the event; for a socket dump, when the dump began.
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Transition(transition) => transition.time,
            Self::Existing(socket) => socket.time,
            Self::ExistingTimewait(socket) => socket.time,
            Self::DumpScope { started, .. } | Self::DumpEnd { started, .. } => *started,
            Self::SynAckRetransmit(event) => event.time,
            Self::Accepted(call) | Self::FirstRead(call) | Self::FirstWrite(call) => call.time,
            Self::TimewaitEnd(event) => event.time,
            Self::ResetSent(event) => event.time,
            Self::ResetReceived(event) => event.time,
            Self::SegmentDropped(event) => event.time,
            Self::Translated(event) => event.time,
            Self::Time(time) => *time,
        }
    }
}
