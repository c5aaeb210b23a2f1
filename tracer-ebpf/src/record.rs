/// The event that a record reports; the `kind` field of [`Record`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A change of `sk_state`, from `sock:inet_sock_set_state`.
    Transition = 1,
    /// A SYN-ACK was retransmitted, from `tcp:tcp_retransmit_synack`. `socket` is the listener, the
    /// endpoints are the half-open connection's, `attempts` counts the retransmissions so far.
    SynAckRetransmit = 2,
    /// The first read from a connection by a process, from `tcp:tcp_rcv_space_adjust`.
    FirstRead = 3,
    /// A timewait socket (TIME_WAIT or orphaned FIN_WAIT2) was removed, from `inet_twsk_kill`. `socket` is the
    /// timewait socket, not the connection's original socket; `old_state` is its sub-state.
    TimeWaitEnd = 4,
    /// `accept()` returned a connection, from the return of `inet_csk_accept`.
    Accepted = 5,
    /// This host sent a reset, from `tcp:tcp_send_reset`. With a `socket`, the reset is of its connection, and `old_state` is
    /// the socket's state. Without, it refuses a SYN to a port on which no socket listens.
    ResetSent = 6,
    /// The peer of `socket` sent a reset that the kernel accepted, from `tcp:tcp_receive_reset`.
    ResetReceived = 7,
    /// The kernel dropped a segment of a handshake, from `skb:kfree_skb` or at the entry of `tcp_conn_request`. The local
    /// endpoint is the segment's source, the remote endpoint its destination, whichever of them is this host; `socket` is
    /// the sender's, or 0; `attempts` has the flags of the segment's TCP header.
    SegmentDropped = 8,
    /// The first write to a connection by a process, from `sock:sock_send_length` or the return of `tcp_sendmsg`.
    FirstWrite = 9,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Transition,
        Self::SynAckRetransmit,
        Self::FirstRead,
        Self::TimeWaitEnd,
        Self::Accepted,
        Self::ResetSent,
        Self::ResetReceived,
        Self::SegmentDropped,
        Self::FirstWrite,
    ];
}

/// Bits of [`Record::flags`].
pub mod flags {
    /// A [`Process`](crate::Process) follows: it caused the event. Without the flag, the current task is unrelated to the
    /// event, because a softirq had interrupted it.
    pub const PROCESS: u32 = 1 << 0;
    /// A [`TcpInfo`](crate::TcpInfo) follows.
    pub const INFO: u32 = 1 << 1;
    /// An [`AcceptQueue`](crate::AcceptQueue) follows.
    pub const ACCEPT_QUEUE: u32 = 1 << 2;
    /// `SOCK_DONE`: the peer's FIN was received (TCP sets the bit in `tcp_fin` only, 6.18 tcp_input.c).
    pub const PEER_FIN: u32 = 1 << 3;
    /// `SOCK_LINGER` with a linger time of 0: `close()` sends a reset.
    pub const LINGER_ZERO: u32 = 1 << 4;
    /// `sk_socket` is not null: an application has a descriptor for the socket. Clear for a connection that
    /// was never accepted, and after `close()`.
    pub const ATTACHED: u32 = 1 << 5;
    /// The local port is not bound yet: at CLOSE→SYN_SENT `inet_sport` is 0 or left over from an
    /// earlier connection of the same descriptor.
    pub const PORT_UNBOUND: u32 = 1 << 6;
    /// `netns` is valid.
    pub const NETNS: u32 = 1 << 7;
    /// The program read the socket's flags ([`PEER_FIN`], [`LINGER_ZERO`], [`ATTACHED`]), `error` and `shutdown`. Without
    /// this flag those fields are unknown.
    pub const SOCKET_FIELDS: u32 = 1 << 8;
    /// `value` holds the id of the socket's cgroup.
    pub const CGROUP: u32 = 1 << 9;
    /// [`Ipv6Addresses`](crate::Ipv6Addresses) follow; the record's own addresses are unused.
    pub const IPV6_ADDRESSES: u32 = 1 << 10;
    /// The twin program wrote the record: the kernel skipped the first program for this transition, or the twin could not
    /// tell. The record is a duplicate if the socket's previous transition has the same two states.
    pub const TWIN: u32 = 1 << 11;
    /// `extra` holds `data_segs_in`: the application closed or shut down both directions.
    pub const DATA_SEGMENTS: u32 = 1 << 12;
    /// `extra` holds the index of the interface that the socket is bound to.
    pub const INTERFACE: u32 = 1 << 13;
    /// At ESTABLISHED and CLOSE: the socket is in `TCP_REPAIR` mode, so nothing was received or sent for the transition.
    pub const REPAIR: u32 = 1 << 14;
    /// At FIN_WAIT1→CLOSE and FIN_WAIT2→CLOSE: `TCP_LINGER2` is negative, so the kernel keeps no FIN_WAIT2 and resets the
    /// connection instead.
    pub const LINGER2_NEGATIVE: u32 = 1 << 15;
    /// At SYN_SENT→ESTABLISHED and SYN_SENT→CLOSE, with `TCP_FASTOPEN_CONNECT`: SYN_SENT began at `connect()`, and the SYN
    /// left at the first write, or not at all.
    pub const FAST_OPEN_DEFERRED: u32 = 1 << 16;
    /// At CLOSE→LISTEN and, up to 6.14, at LISTEN→SYN_RECV: the listener has `TCP_DEFER_ACCEPT`, so a handshake ends with
    /// the client's first data or FIN. Later kernels clear the option in the copy. It may also be set after `listen()`.
    pub const DEFER_ACCEPT: u32 = 1 << 17;
    /// At CLOSE→LISTEN and LISTEN→SYN_RECV: the listener has `IP_TRANSPARENT`, so a connection's local endpoint need not be
    /// its listener's.
    pub const TRANSPARENT: u32 = 1 << 18;
    /// A [`ThreadName`](crate::ThreadName) follows the [`Process`](crate::Process): the current task is not the leader of
    /// its thread group.
    pub const THREAD: u32 = 1 << 19;
    /// At a retransmission of a SYN-ACK: the client's ACK has arrived, and `TCP_DEFER_ACCEPT` waits for data. The
    /// retransmission asks for it, and nothing was lost.
    pub const ACKED: u32 = 1 << 20;
    /// `extra` holds `segs_in` of a connection that no process has accepted.
    pub const UNACCEPTED_SEGMENTS: u32 = 1 << 21;
    /// `value` holds the kernel's reason for a reset (`enum sk_rst_reason`) or a drop (`enum skb_drop_reason`).
    pub const REASON: u32 = 1 << 22;
    /// A [`FunctionName`](crate::FunctionName) follows: the function that dropped the segment.
    pub const FUNCTION: u32 = 1 << 23;
    /// The SYN was dropped because the listener's accept queue is full.
    pub const ACCEPT_QUEUE_FULL: u32 = 1 << 24;
    /// `cookie` holds the initial sequence numbers of a half-open connection.
    pub const SEQUENCES: u32 = 1 << 25;
}

/// The fields that every event has, as the kernel side writes them. 64 bytes, no padding, native byte order.
///
/// The optional parts that [`flags`] name follow without gaps, in this order: [`Ipv6Addresses`], [`Process`],
/// [`ThreadName`], [`AcceptQueue`], [`TcpInfo`], [`FunctionName`]. Most records have none, which keeps them short.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// Address of the `struct sock`. The kernel may reuse it within a millisecond after it frees the socket.
    pub socket: u64,
    /// `skc_cookie`; 0 until the kernel has generated one on request. For [`RecordKind::SynAckRetransmit`]: the initial
    /// sequence numbers, the client's (`rcv_isn`) in the low half and this host's (`snt_isn`) in the high one, valid with
    /// [`flags::SEQUENCES`].
    pub cookie: u64,
    /// Depends on the kind. For [`RecordKind::Transition`]: the id of the socket's cgroup,
    /// `sk_cgrp_data.cgroup->kn->id`, valid with [`flags::CGROUP`]. For [`RecordKind::ResetSent`] and
    /// [`RecordKind::SegmentDropped`]: the kernel's reason, valid with [`flags::REASON`]. For
    /// [`RecordKind::SynAckRetransmit`]: when the first SYN-ACK was sent, `CLOCK_MONOTONIC` in
    /// nanoseconds, with microsecond resolution; 0 when unknown.
    pub value: u64,
    /// Local IPv4 address in network order.
    pub local_address: [u8; 4],
    /// Remote IPv4 address in network order.
    pub remote_address: [u8; 4],
    /// Bits of [`flags`].
    pub flags: u32,
    /// Inode of the network namespace, valid with [`flags::NETNS`].
    pub netns: u32,
    /// Local port, host order; 0 when not bound.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// `sk_err`, an errno; valid with [`flags::SOCKET_FIELDS`].
    pub error: u16,
    /// `sk_shutdown`: 1 receive, 2 send; valid with [`flags::SOCKET_FIELDS`].
    pub shutdown: u8,
    /// For [`RecordKind::SynAckRetransmit`]: retransmissions of the SYN-ACK so far. For [`RecordKind::SegmentDropped`]: the
    /// flags of the TCP header (RFC 9293, section 3.1; FIN is bit 0). Otherwise 0.
    pub attempts: u8,
    /// A [`RecordKind`].
    pub kind: u8,
    /// The previous state, a [`tcp_state`](crate::tcp_state).
    pub old_state: u8,
    /// The new state.
    pub new_state: u8,
    /// [`AF_INET`](crate::AF_INET) or [`AF_INET6`](crate::AF_INET6).
    pub family: u8,
    /// Depends on the transition; 0 for the others and for other kinds.
    ///
    /// - To FIN_WAIT1, and from FIN_WAIT1 or FIN_WAIT2 to the same state: segments with payload received so far
    ///   (`data_segs_in`), valid with [`flags::DATA_SEGMENTS`].
    /// - At ESTABLISHED→CLOSE_WAIT: segments received so far (`segs_in`), valid with [`flags::UNACCEPTED_SEGMENTS`].
    /// - At CLOSE→SYN_SENT and SYN_RECV→ESTABLISHED: the index of the interface that the socket is bound to
    ///   (`skc_bound_dev_if`), valid with [`flags::INTERFACE`].
    pub extra: u32,
}

/// Both addresses of a socket of [`AF_INET6`](crate::AF_INET6), in network order. 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Addresses {
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
}

/// The process that caused an event. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process (thread group) id, in the initial pid namespace.
    pub tgid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Name of the thread group's leader, NUL-padded (`TASK_COMM_LEN`). Where the program cannot read the leader: the
    /// current thread's.
    pub comm: [u8; 16],
}

/// The name of the current thread where it is not the leader of its thread group. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadName {
    /// NUL-padded.
    pub comm: [u8; 16],
}

/// A listener's accept queue. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections in the queue (`sk_ack_backlog`).
    pub length: u32,
    /// The backlog given to `listen()`, capped by `somaxconn` (`sk_max_ack_backlog`).
    pub limit: u32,
}

/// Statistics of a connection from its `struct tcp_sock`, read at ESTABLISHED and at CLOSE. 80 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload bytes sent, retransmissions included (`bytes_sent`, RFC 4898 tcpEStatsPerfHCDataOctetsOut).
    pub bytes_sent: u64,
    /// Payload bytes retransmitted (`bytes_retrans`).
    pub bytes_retransmitted: u64,
    /// Sequence space received in order, FIN included (`bytes_received`).
    pub bytes_received: u64,
    /// Smoothed round-trip time, microseconds (`srtt_us >> 3`); 0 when there was no sample.
    pub srtt_us: u32,
    /// Windowed minimum round-trip time, microseconds (`rtt_min`); `u32::MAX` when there was no sample.
    pub min_rtt_us: u32,
    /// Segments sent (`segs_out`).
    pub segments_sent: u32,
    /// Segments received (`segs_in`).
    pub segments_received: u32,
    /// Segments retransmitted over the connection's lifetime (`total_retrans`).
    pub retransmits: u32,
    /// Maximum segment size in use (`mss_cache`), bytes.
    pub mss: u32,
    /// `TCP_USER_TIMEOUT`, milliseconds; 0 when not set (`icsk_user_timeout`).
    pub user_timeout_ms: u32,
    /// Bytes written and not yet acknowledged (`write_seq - snd_una`).
    pub unacked: u32,
    /// Bytes received and not yet read (`rcv_nxt - copied_seq`).
    pub unread: u32,
    /// `sk_err_soft`: the errno of an ICMP error that did not close the connection.
    pub soft_error: u16,
    /// Retransmissions of the oldest unacknowledged segment (`icsk_retransmits`).
    pub pending_retransmits: u8,
    /// Keepalive or zero-window probes unanswered (`icsk_probes_out`).
    pub probes: u8,
    /// Segments in flight (`packets_out`).
    pub packets_out: u32,
    /// Segments with payload received (`data_segs_in`).
    pub data_segments_received: u32,
    /// Where the socket's own sequence numbers begin: `snd_una - bytes_acked`. For a client its initial sequence number
    /// (`tcp_connect_init`, 6.18 tcp_output.c), for a server's child the number after it (`tcp_create_openreq_child`, 6.18
    /// tcp_minisocks.c). Left over from an earlier connection if no segment was sent.
    pub sent_from: u32,
    /// Where the peer's sequence numbers begin: `rcv_nxt - bytes_received`, the number after its initial one, once its SYN
    /// has arrived.
    pub received_from: u32,
}

/// The name of a kernel function. 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionName {
    /// NUL-terminated; cut to 31 bytes. The name of its module may follow in brackets.
    pub name: [u8; 32],
}

/// Bytes of the longest record, with all parts.
pub const MAX_RECORD: usize = size_of::<Record>()
    + size_of::<Ipv6Addresses>()
    + size_of::<Process>()
    + size_of::<ThreadName>()
    + size_of::<AcceptQueue>()
    + size_of::<TcpInfo>()
    + size_of::<FunctionName>();

/// A parsed record with the parts that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The fields that every event has.
    pub record: Record,
    /// With [`flags::IPV6_ADDRESSES`].
    pub addresses: Option<Ipv6Addresses>,
    /// With [`flags::PROCESS`].
    pub process: Option<Process>,
    /// With [`flags::THREAD`].
    pub thread: Option<ThreadName>,
    /// With [`flags::ACCEPT_QUEUE`].
    pub accept_queue: Option<AcceptQueue>,
    /// With [`flags::INFO`].
    pub info: Option<TcpInfo>,
    /// With [`flags::FUNCTION`].
    pub function: Option<FunctionName>,
}

impl Parts {
    /// Parses the record at the start of `bytes` and returns it with its length. Ignores the bytes after it. Returns
    /// `None` when `bytes` ends before the record does.
    // Inlined, so that a reader that uses a few fields copies only those.
    #[inline]
    pub fn read_from(bytes: &[u8]) -> Option<(Self, usize)> {
        #[inline]
        fn take<T: Wire>(rest: &mut &[u8]) -> Option<T> {
            let value = T::read_from(rest)?;
            *rest = rest.get(size_of::<T>()..)?;
            Some(value)
        }
        let mut rest = bytes;
        let record = take::<Record>(&mut rest)?;
        let has = |flag| record.flags & flag != 0;
        let mut parts = Self {
            record,
            addresses: None,
            process: None,
            thread: None,
            accept_queue: None,
            info: None,
            function: None,
        };
        if has(flags::IPV6_ADDRESSES) {
            parts.addresses = Some(take(&mut rest)?);
        }
        if has(flags::PROCESS) {
            parts.process = Some(take(&mut rest)?);
        }
        if has(flags::THREAD) {
            parts.thread = Some(take(&mut rest)?);
        }
        if has(flags::ACCEPT_QUEUE) {
            parts.accept_queue = Some(take(&mut rest)?);
        }
        if has(flags::INFO) {
            parts.info = Some(take(&mut rest)?);
        }
        if has(flags::FUNCTION) {
            parts.function = Some(take(&mut rest)?);
        }
        Some((parts, bytes.len() - rest.len()))
    }

    /// Returns the bytes of each part in the order in which they are written. The record's flags must match the parts that
    /// are present.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let parts = [
            Some(self.record.as_bytes()),
            self.addresses.as_ref().map(Wire::as_bytes),
            self.process.as_ref().map(Wire::as_bytes),
            self.thread.as_ref().map(Wire::as_bytes),
            self.accept_queue.as_ref().map(Wire::as_bytes),
            self.info.as_ref().map(Wire::as_bytes),
            self.function.as_ref().map(Wire::as_bytes),
        ];
        parts.into_iter().flatten()
    }
}

/// The kernel side's counters: the one element of a memory-mapped array, so that user space can read them after it has
/// given up its capabilities.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transitions dropped because the lane or the ring buffer was full.
    pub transitions_lost: u64,
    /// Other records dropped because the lane or the ring buffer was full.
    pub others_lost: u64,
    /// Transitions for which the twin program found no receipt of the first program, before any filter.
    pub twin_taken: u64,
    /// Zero.
    pub reserved: u64,
}

/// A type that can be copied out of shared memory byte by byte.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding, and every bit pattern is a valid value.
pub unsafe trait Wire: Copy {
    /// Copies a value from the start of `bytes`. Returns `None` when `bytes` is too short.
    #[inline]
    fn read_from(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: long enough, any bit pattern is valid, and the read does not need alignment.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// Returns the bytes of the value.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: no padding, so every byte is initialised.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

// SAFETY: integers and arrays of integers without padding, as asserted below.
unsafe impl Wire for Record {}
// SAFETY: as above.
unsafe impl Wire for Ipv6Addresses {}
// SAFETY: as above.
unsafe impl Wire for Process {}
// SAFETY: as above.
unsafe impl Wire for ThreadName {}
// SAFETY: as above.
unsafe impl Wire for AcceptQueue {}
// SAFETY: as above.
unsafe impl Wire for TcpInfo {}
// SAFETY: as above.
unsafe impl Wire for FunctionName {}
// SAFETY: as above.
unsafe impl Wire for Counters {}
// SAFETY: only `u32`s, in structures of `u32`s.
unsafe impl Wire for crate::Config {}

const _: () = {
    assert!(size_of::<Record>() == 64 && align_of::<Record>() == 8);
    assert!(size_of::<Ipv6Addresses>() == 32);
    assert!(size_of::<Process>() == 24);
    assert!(size_of::<ThreadName>() == 16);
    assert!(size_of::<AcceptQueue>() == 8);
    assert!(size_of::<TcpInfo>() == 80 && align_of::<TcpInfo>() == 8);
    assert!(size_of::<FunctionName>() == 32);
    assert!(MAX_RECORD == 256);
    assert!(size_of::<Counters>() == 32);
};
