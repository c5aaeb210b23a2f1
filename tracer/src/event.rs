//! What a source tells the lifecycle core: one type for a live kernel, a snapshot and a recording.

use std::{fs, net::IpAddr, sync::LazyLock};

use crate::lifecycle::TcpState;

/// A moment on the traced host's `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`).
///
/// It stands still while the host is suspended, as the kernel's own TCP timers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than everything.
    pub const END: Self = Self(u64::MAX);

    /// The time on this host now, also in a process whose time namespace (Linux 5.6) has another clock.
    pub fn now() -> Self {
        static SHIFT: LazyLock<i128> =
            LazyLock::new(|| shift(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()));
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        Self(u64::try_from(nanoseconds - *SHIFT).unwrap_or_default())
    }

    /// Nanoseconds from `earlier` to `self`; 0 when the order is the other way round, which only a
    /// damaged recording can show.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds by which a time namespace is ahead of the host (time_namespaces(7)); 0 where there is none.
fn shift(offsets: &str) -> i128 {
    let monotonic = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        // By name, and by the number of the clock in Linux 5.6.
        matches!(words.next()?, "monotonic" | "1").then_some(words)
    });
    let mut numbers = monotonic.into_iter().flatten().map_while(|word| word.parse::<i128>().ok());
    let seconds = numbers.next().unwrap_or(0);
    seconds * 1_000_000_000 + numbers.next().unwrap_or(0)
}

/// The identity of a kernel socket, unique among the sockets that exist at one moment.
///
/// Derived from the socket's address, which the kernel reuses within a millisecond of the socket's
/// end: a lifecycle begins at CLOSE→SYN_SENT, CLOSE→LISTEN or LISTEN→SYN_RECV, not at a new identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// One end of a connection. An unspecified address or port 0 means that the kernel had none then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; a v4-mapped IPv6 address is given as the IPv4 address it stands for.
    pub address: IpAddr,
    /// The port, host order; 0 when not bound or not known yet.
    pub port: u16,
}

/// A process, as the kernel named it when the event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process (thread group) id in the initial pid namespace.
    pub pid: u32,
    /// User id of the process in the initial user namespace.
    pub uid: u32,
    /// Its thread group leader's name, NUL-padded: at most 15 bytes, of any content (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
}

impl Process {
    /// The name without its padding. The bytes are untrusted: a process names itself.
    pub fn name(&self) -> &[u8] {
        let end = self.comm.iter().position(|&byte| byte == 0).unwrap_or(self.comm.len());
        &self.comm[..end]
    }
}

/// The kernel's own account of a connection (`struct tcp_sock`), read at one of its transitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload bytes sent, without retransmissions.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments sent.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Segments with payload received; at ESTABLISHED of a server more than none means that the final
    /// ACK of the handshake came with data.
    pub data_segments_received: u32,
    /// Segments sent again over the whole life, SYN and SYN-ACK included.
    pub retransmits: u32,
    /// Smoothed round-trip time, microseconds, when there was a sample.
    pub srtt_us: Option<u32>,
    /// Minimum round-trip time, microseconds, when there was a sample.
    pub min_rtt_us: Option<u32>,
    /// Maximum segment size in use, bytes.
    pub mss: u32,
    /// `TCP_USER_TIMEOUT`, milliseconds, when the application set one.
    pub user_timeout_ms: Option<u32>,
    /// Bytes written by the application and not yet acknowledged.
    pub unacked_bytes: u32,
    /// Bytes received and not yet read by the application.
    pub unread_bytes: u32,
    /// Segments in flight.
    pub segments_in_flight: u32,
    /// Resends of the segment that now waits for its acknowledgement (`icsk_retransmits`).
    pub pending_retransmits: u8,
    /// Keepalive or zero-window probes unanswered (`icsk_probes_out`).
    pub probes: u8,
    /// An ICMP error that was noted but did not end the connection, an errno; 0 for none.
    pub soft_error: u16,
}

/// What only the socket itself knows, read when it becomes ESTABLISHED or CLOSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFlags {
    /// `sk_err`, an errno; 0 for none.
    pub error: u16,
    /// `sk_shutdown`: the application shut down receiving.
    pub shutdown_receive: bool,
    /// `sk_shutdown`: the application shut down sending.
    pub shutdown_send: bool,
    /// The peer's FIN was received.
    pub peer_fin: bool,
    /// `SO_LINGER` with a time of 0 is set: `close()` sends a reset.
    pub linger_zero: bool,
    /// An application still holds, or ever held, a descriptor of the socket.
    pub attached: bool,
    /// The socket is in `TCP_REPAIR` mode (checkpoint and restore): no packet was sent or received for the transition.
    pub repair: bool,
    /// At FIN_WAIT1→CLOSE and FIN_WAIT2→CLOSE: `TCP_LINGER2` is negative, so the kernel keeps no FIN_WAIT2.
    pub linger2_negative: bool,
    /// At SYN_SENT→ESTABLISHED and SYN_SENT→CLOSE: `connect()` sent no SYN (`TCP_FASTOPEN_CONNECT`). The SYN left at the
    /// first write, or not at all.
    pub fast_open_deferred: bool,
}

/// The queue of connections waiting for `accept()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections waiting.
    pub length: u32,
    /// The most that may wait: the backlog of `listen()`, capped by `somaxconn`.
    pub limit: u32,
}

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
    /// The name of the process's thread that caused it, NUL-padded; none when that is the thread group's leader.
    pub thread: Option<[u8; 16]>,
    /// Inode of the socket's network namespace, as `stat` of `/proc/PID/ns/net` shows it.
    pub netns: Option<u32>,
    /// Id of the cgroup the socket was made in: the inode of its directory.
    pub cgroup_id: Option<u64>,
    /// The listener's accept queue, at LISTEN→SYN_RECV.
    pub accept_queue: Option<AcceptQueue>,
    /// At a transition to FIN_WAIT1 or FIN_WAIT2: segments with payload received so far (`data_segs_in`). The segment that
    /// caused the transition is among them. So are segments that arrived while a call owned the socket, which the kernel
    /// handles only when the call ends.
    pub data_segments: Option<u32>,
    /// At CLOSE→SYN_SENT, LISTEN→SYN_RECV and to ESTABLISHED: index of the interface that the socket is bound to, by the
    /// application or because its address is link-local. At LISTEN→SYN_RECV up to 6.14 it is the listener's.
    pub interface: Option<u32>,
    /// At CLOSE→LISTEN and LISTEN→SYN_RECV: the listener has `IP_TRANSPARENT`, so a connection's local end need not be an
    /// address of the host.
    pub transparent: bool,
    /// At CLOSE→LISTEN and, up to 6.14, at LISTEN→SYN_RECV: the listener has `TCP_DEFER_ACCEPT`, so a handshake ends with the
    /// client's first data. The application may also set the option after `listen()`.
    pub defer_accept: bool,
    /// At ESTABLISHED→CLOSE_WAIT of a connection that no process has accepted: segments received so far (`segs_in`). If it is
    /// the number at ESTABLISHED, the segment that ended the handshake carried the FIN.
    pub unaccepted_segments: Option<u32>,
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
    /// The client's ACK has come, and `TCP_DEFER_ACCEPT` waits for data: the resend asks for it, and nothing was lost.
    pub acked: bool,
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
    /// The name of the thread that read, NUL-padded; none when that is the thread group's leader.
    pub thread: Option<[u8; 16]>,
}

/// The end of what the kernel keeps of a closed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MiniSocketEnd {
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
    MiniSocketEnd(MiniSocketEnd),
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
            Self::MiniSocketEnd(event) => event.time,
            Self::Time(time) => *time,
        }
    }
}

/// Events that did not reach the core, as far as a source can count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Transitions handed to the core.
    pub seen: u64,
    /// Transitions that found the buffer full.
    pub lost: u64,
    /// Transitions that were not recorded because the kernel skipped the program (`recursion_misses`) and the twin program
    /// did not record them either; none where the kernel does not count skips (before 5.12, on a classic tracepoint before
    /// 6.7).
    pub skipped: Option<u64>,
    /// Other records, such as resent SYN-ACKs, that found the buffer full.
    pub others_lost: u64,
    /// Times the view was renewed by a look at the host's sockets, after transitions had been missed.
    pub renewed: u64,
    /// Records that could not be understood. Always 0 unless the object and the program disagree.
    pub malformed: u64,
    /// Transitions for which the kernel skipped the program and that the twin program recorded. They are among `seen`.
    pub recovered: u64,
    /// Transitions that both programs recorded. The source dropped the second record of each.
    pub duplicates: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_of_a_time_namespace() {
        assert_eq!(shift("monotonic           0         0\nboottime            0         0\n"), 0);
        assert_eq!(shift("monotonic        1000       500\nboottime 7 0\n"), 1_000_000_000_500);
        assert_eq!(shift("monotonic          -2 500000000\n"), -1_500_000_000);
        assert_eq!(shift("1 3 0\n7 0 0\n"), 3_000_000_000);
        assert_eq!(shift(""), 0);
        assert_eq!(shift("monotonic x y"), 0);
    }
}
