/// What a record reports; the `kind` field of [`Record`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A change of `sk_state`, from `sock:inet_sock_set_state`.
    Transition = 1,
    /// A SYN-ACK sent again, from `tcp:tcp_retransmit_synack`. `socket` is the listener, the
    /// endpoints are the half-open connection's, `attempts` counts the resends so far.
    SynAckRetransmit = 2,
    /// The first read of an accepted socket by a process, from `tcp:tcp_rcv_space_adjust`.
    FirstRead = 3,
    /// A TIME_WAIT (or orphaned FIN_WAIT2) mini-socket ended, from `inet_twsk_kill`. `socket` is the
    /// mini-socket, which is not the socket it came from; `old_state` is its sub-state.
    TimeWaitEnd = 4,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Transition, Self::SynAckRetransmit, Self::FirstRead, Self::TimeWaitEnd];
}

/// Bits of [`Record::flags`].
pub mod flags {
    /// A [`Process`](crate::Process) follows: the one that caused the event. Without it `current` was whatever the
    /// softirq interrupted.
    pub const PROCESS: u32 = 1 << 0;
    /// A [`TcpInfo`](crate::TcpInfo) follows.
    pub const INFO: u32 = 1 << 1;
    /// An [`AcceptQueue`](crate::AcceptQueue) follows.
    pub const ACCEPT_QUEUE: u32 = 1 << 2;
    /// `SOCK_DONE`: the peer's FIN was received (TCP sets the bit in `tcp_fin` only, 6.18 tcp_input.c).
    pub const PEER_FIN: u32 = 1 << 3;
    /// `SOCK_LINGER` with a linger time of 0: `close()` sends a reset.
    pub const LINGER_ZERO: u32 = 1 << 4;
    /// `sk_socket` is not null: an application holds a descriptor of it. Clear for a connection that
    /// was never accepted, and after `close()`.
    pub const ATTACHED: u32 = 1 << 5;
    /// The local port is not bound yet: at CLOSE→SYN_SENT `inet_sport` is 0 or left over from an
    /// earlier connection of the same descriptor.
    pub const PORT_UNBOUND: u32 = 1 << 6;
    /// `netns` is valid.
    pub const NETNS: u32 = 1 << 7;
    /// `socket_flags`-derived bits ([`PEER_FIN`], [`LINGER_ZERO`], [`ATTACHED`]) and `error`,
    /// `shutdown` were read; without it their absence means nothing.
    pub const SOCKET_FIELDS: u32 = 1 << 8;
    /// `value` holds the id of the socket's cgroup.
    pub const CGROUP: u32 = 1 << 9;
    /// [`Ipv6Addresses`](crate::Ipv6Addresses) follow, and the record's own addresses mean nothing.
    pub const IPV6_ADDRESSES: u32 = 1 << 10;
}

/// What every event has, as the kernel side writes it. 64 bytes, no padding, native byte order.
///
/// The parts that [`flags`] name follow it without a gap, in this order: [`Ipv6Addresses`], [`Process`],
/// [`AcceptQueue`], [`TcpInfo`]. Most events have none of them: what is not written costs nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// `CLOCK_MONOTONIC`, nanoseconds (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// Address of the `struct sock`. Reused by the kernel within a millisecond of a socket's end.
    pub socket: u64,
    /// `skc_cookie`; 0 until something asked the kernel for one.
    pub cookie: u64,
    /// A value that belongs to the kind. For [`RecordKind::Transition`] the id of the socket's cgroup,
    /// `sk_cgrp_data.cgroup->kn->id`, valid with [`flags::CGROUP`]. For
    /// [`RecordKind::SynAckRetransmit`] when the first SYN-ACK was sent, `CLOCK_MONOTONIC` in
    /// nanoseconds to the microsecond, 0 when that is not known.
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
    /// A count that belongs to the kind: SYN-ACK resends for [`RecordKind::SynAckRetransmit`].
    pub attempts: u8,
    /// A [`RecordKind`].
    pub kind: u8,
    /// The state left, a [`tcp_state`](crate::tcp_state).
    pub old_state: u8,
    /// The state entered.
    pub new_state: u8,
    /// [`AF_INET`](crate::AF_INET) or [`AF_INET6`](crate::AF_INET6).
    pub family: u8,
    /// Zero.
    pub reserved: u32,
}

/// Both addresses of a socket of [`AF_INET6`](crate::AF_INET6), in network order. 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Addresses {
    /// The local one.
    pub local: [u8; 16],
    /// The remote one.
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
    /// Name, NUL-padded (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
}

/// A listener's queue of connections that wait for `accept()`. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections waiting (`sk_ack_backlog`).
    pub length: u32,
    /// The backlog given to `listen()`, capped by `somaxconn` (`sk_max_ack_backlog`).
    pub limit: u32,
}

/// `struct tcp_sock`'s own account of a connection, read at ESTABLISHED and at CLOSE. 72 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload bytes sent, retransmissions included (`bytes_sent`, RFC 4898 tcpEStatsPerfHCDataOctetsOut).
    pub bytes_sent: u64,
    /// Payload bytes sent again (`bytes_retrans`).
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
    /// Segments sent again over the whole life (`total_retrans`).
    pub retransmits: u32,
    /// Maximum segment size in use (`mss_cache`), bytes.
    pub mss: u32,
    /// `TCP_USER_TIMEOUT`, milliseconds; 0 when not set (`icsk_user_timeout`).
    pub user_timeout_ms: u32,
    /// Bytes written and not yet acknowledged (`write_seq - snd_una`).
    pub unacked: u32,
    /// Bytes received and not yet read (`rcv_nxt - copied_seq`).
    pub unread: u32,
    /// `sk_err_soft`: an ICMP error noted and not acted on, an errno.
    pub soft_error: u16,
    /// Resends of the segment now waiting (`icsk_retransmits`).
    pub pending_retransmits: u8,
    /// Keepalive or zero-window probes unanswered (`icsk_probes_out`).
    pub probes: u8,
    /// Segments in flight (`packets_out`).
    pub packets_out: u32,
    /// Segments with payload received (`data_segs_in`).
    pub data_segments_received: u32,
}

/// Bytes of the longest record, with every part.
pub const MAX_RECORD: usize = size_of::<Record>()
    + size_of::<Ipv6Addresses>()
    + size_of::<Process>()
    + size_of::<AcceptQueue>()
    + size_of::<TcpInfo>();

/// A record and the parts that follow it, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What every event has.
    pub record: Record,
    /// With [`flags::IPV6_ADDRESSES`].
    pub addresses: Option<Ipv6Addresses>,
    /// With [`flags::PROCESS`].
    pub process: Option<Process>,
    /// With [`flags::ACCEPT_QUEUE`].
    pub accept_queue: Option<AcceptQueue>,
    /// With [`flags::INFO`].
    pub info: Option<TcpInfo>,
}

impl Parts {
    /// Takes the record at the start of `bytes` apart, and gives its length with it; what is behind it is not looked
    /// at. `None` when there are fewer bytes than it needs.
    pub fn read_from(bytes: &[u8]) -> Option<(Self, usize)> {
        fn take<T: Wire>(rest: &mut &[u8]) -> Option<T> {
            let value = T::read_from(rest)?;
            *rest = rest.get(size_of::<T>()..)?;
            Some(value)
        }
        let mut rest = bytes;
        let record = take::<Record>(&mut rest)?;
        let has = |flag| record.flags & flag != 0;
        let mut parts = Self { record, addresses: None, process: None, accept_queue: None, info: None };
        if has(flags::IPV6_ADDRESSES) {
            parts.addresses = Some(take(&mut rest)?);
        }
        if has(flags::PROCESS) {
            parts.process = Some(take(&mut rest)?);
        }
        if has(flags::ACCEPT_QUEUE) {
            parts.accept_queue = Some(take(&mut rest)?);
        }
        if has(flags::INFO) {
            parts.info = Some(take(&mut rest)?);
        }
        Some((parts, bytes.len() - rest.len()))
    }

    /// The bytes of each part in the order in which they are written. The record's flags must name the parts that
    /// are there.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let parts = [
            Some(self.record.as_bytes()),
            self.addresses.as_ref().map(Wire::as_bytes),
            self.process.as_ref().map(Wire::as_bytes),
            self.accept_queue.as_ref().map(Wire::as_bytes),
            self.info.as_ref().map(Wire::as_bytes),
        ];
        parts.into_iter().flatten()
    }
}

/// What the kernel side counts; one element of a memory-mapped array, so that reading it needs no
/// privilege after the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transitions that found their lane or the ring buffer full.
    pub transitions_lost: u64,
    /// Other records that found their lane or the ring buffer full.
    pub others_lost: u64,
}

/// Marks types that may be copied out of shared memory byte by byte.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding, and every bit pattern is a valid value.
pub unsafe trait Wire: Copy {
    /// Copies a value from the start of `bytes`; `None` when there are too few.
    fn read_from(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < size_of::<Self>() {
            return None;
        }
        // SAFETY: long enough, any bit pattern is valid, and the read does not need alignment.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// The bytes of the value.
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
unsafe impl Wire for AcceptQueue {}
// SAFETY: as above.
unsafe impl Wire for TcpInfo {}
// SAFETY: as above.
unsafe impl Wire for Counters {}
// SAFETY: only `u32`s, in structures of `u32`s.
unsafe impl Wire for crate::Config {}

const _: () = {
    assert!(size_of::<Record>() == 64 && align_of::<Record>() == 8);
    assert!(size_of::<Ipv6Addresses>() == 32);
    assert!(size_of::<Process>() == 24);
    assert!(size_of::<AcceptQueue>() == 8);
    assert!(size_of::<TcpInfo>() == 72 && align_of::<TcpInfo>() == 8);
    assert!(MAX_RECORD == 200);
    assert!(size_of::<Counters>() == 16);
};
