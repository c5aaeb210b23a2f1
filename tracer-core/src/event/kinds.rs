//! The events.

use super::{AcceptQueue, Endpoint, Process, SocketFlags, SocketId, TcpInfo, TcpState, Timestamp};

/// A change of `sk_state`, as the kernel reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When it happened.
    pub time: Timestamp,
    /// Which socket.
    pub socket: SocketId,
    /// The kernel's socket cookie, when the socket has one; never reused while the host is up.
    pub cookie: Option<u64>,
    /// The state left.
    pub from: TcpState,
    /// The state entered.
    pub to: TcpState,
    /// The local end. At CLOSE→SYN_SENT its port is 0 unless the application bound it.
    pub local: Endpoint,
    /// The remote end. At LISTEN→SYN_RECV it is unspecified up to 6.14.
    pub remote: Endpoint,
    /// The process that caused the transition; none when the network or a timer did.
    pub process: Option<Process>,
    /// Inode of the socket's network namespace, as `stat` of `/proc/PID/ns/net` shows it.
    pub netns: Option<u32>,
    /// Id of the cgroup the socket was made in: the inode of its directory.
    pub cgroup_id: Option<u64>,
    /// The listener's accept queue, at LISTEN→SYN_RECV.
    pub accept_queue: Option<AcceptQueue>,
    /// Read at ESTABLISHED and CLOSE, where the mode allows.
    pub flags: Option<SocketFlags>,
    /// Read at ESTABLISHED and CLOSE, where the mode allows.
    pub info: Option<TcpInfo>,
}

/// A socket that was there before tracing began, or that a later look found: its past was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistingSocket {
    /// When the look began.
    pub time: Timestamp,
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Its state.
    pub state: TcpState,
    /// How long it has certainly been in that state, nanoseconds; a lower bound.
    pub state_age_ns: Option<u64>,
    /// The local end.
    pub local: Endpoint,
    /// The remote end; unspecified on a listener.
    pub remote: Endpoint,
    /// A process that holds a descriptor of it.
    pub process: Option<Process>,
    /// Inode of its network namespace.
    pub netns: Option<u32>,
    /// Id of its cgroup.
    pub cgroup_id: Option<u64>,
    /// The kernel's account of it.
    pub info: Option<TcpInfo>,
}

/// A SYN-ACK that was sent again, because the final ACK of the handshake did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAckRetransmit {
    /// When.
    pub time: Timestamp,
    /// The listener.
    pub listener: SocketId,
    /// The local end.
    pub local: Endpoint,
    /// The client.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// How often it has been sent again by now, at least 1.
    pub attempts: u8,
    /// When it was first sent, to the microsecond; none for a SYN cookie.
    pub first_sent: Option<Timestamp>,
    /// The listener's accept queue at that moment; a full one is a reason for the resend.
    pub accept_queue: Option<AcceptQueue>,
}

/// The first read of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstRead {
    /// When.
    pub time: Timestamp,
    /// The connection.
    pub socket: SocketId,
    /// Who read.
    pub process: Process,
}

/// The end of what the kernel keeps of a closed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimewaitEnd {
    /// When.
    pub time: Timestamp,
    /// The state it ended in: TIME_WAIT, or FIN_WAIT2 when the peer's FIN never came.
    pub state: TcpState,
    /// The local end.
    pub local: Endpoint,
    /// The remote end.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
}

/// One thing a source has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket changed its state.
    Transition(Transition),
    /// A socket exists of which no transition was seen yet.
    Existing(ExistingSocket),
    /// The look that is being told is a later one, of this network namespace; it comes before the sockets. Without any,
    /// the look is of the whole host.
    SnapshotScope {
        /// When the look began.
        started: Timestamp,
        /// Inode of the namespace.
        netns: u32,
    },
    /// Every socket that existed has been told: what was not among them has ended unseen.
    SnapshotEnd {
        /// When the look began.
        started: Timestamp,
    },
    /// A SYN-ACK was sent again.
    SynAckRetransmit(SynAckRetransmit),
    /// A process read from an accepted connection for the first time.
    FirstRead(FirstRead),
    /// A mini-socket ended.
    TimewaitEnd(TimewaitEnd),
    /// Time has passed: nothing before this moment is still to come, except what was delayed on its way.
    Time(Timestamp),
}

impl Event {
    /// When it happened; of a look at the host, when the look began.
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Transition(transition) => transition.time,
            Self::Existing(socket) => socket.time,
            Self::SnapshotScope { started, .. } | Self::SnapshotEnd { started } => *started,
            Self::SynAckRetransmit(event) => event.time,
            Self::FirstRead(event) => event.time,
            Self::TimewaitEnd(event) => event.time,
            Self::Time(time) => *time,
        }
    }
}
