/// What a record in the ring buffer reports; the `kind` field of [`Record`].
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

/// Bits of [`Record::flags`].
pub mod flags {
    /// `tgid`, `uid` and `comm` name the process that caused the event. Without it `current` was
    /// whatever the softirq interrupted, and the fields are zero.
    pub const PROCESS: u32 = 1 << 0;
    /// A [`TcpInfo`](crate::TcpInfo) follows the record.
    pub const INFO: u32 = 1 << 1;
    /// `accept_queue` and `accept_queue_limit` hold the listener's values.
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
}

/// One event, as the kernel side writes it. 120 bytes, no padding, native byte order.
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
    /// Local address in network order; IPv4 in the first four bytes, the rest zero.
    pub local_address: [u8; 16],
    /// Remote address, likewise.
    pub remote_address: [u8; 16],
    /// Name of the process, NUL-padded (`TASK_COMM_LEN`), valid with [`flags::PROCESS`].
    pub comm: [u8; 16],
    /// Bits of [`flags`].
    pub flags: u32,
    /// Inode of the network namespace, valid with [`flags::NETNS`].
    pub netns: u32,
    /// Process (thread group) id, in the initial pid namespace, valid with [`flags::PROCESS`].
    pub tgid: u32,
    /// User id of the process, valid with [`flags::PROCESS`].
    pub uid: u32,
    /// Connections waiting for `accept()`, valid with [`flags::ACCEPT_QUEUE`].
    pub accept_queue: u32,
    /// The backlog given to `listen()`, capped by `somaxconn`; valid with [`flags::ACCEPT_QUEUE`].
    pub accept_queue_limit: u32,
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

/// `struct tcp_sock`'s own account of a connection, read at ESTABLISHED and at CLOSE. 80 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload bytes sent, retransmissions included (`bytes_sent`, RFC 4898 tcpEStatsPerfHCDataOctetsOut).
    pub bytes_sent: u64,
    /// Payload bytes sent again (`bytes_retrans`).
    pub bytes_retransmitted: u64,
    /// Sequence space acknowledged by the peer, SYN and FIN included (`bytes_acked`).
    pub bytes_acked: u64,
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

/// A [`Record`] whose [`flags::INFO`] is set.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordWithInfo {
    /// The event.
    pub record: Record,
    /// The kernel's account of the connection at that moment.
    pub info: TcpInfo,
}

/// What the kernel side counts; one element of a memory-mapped array, so that reading it needs no
/// privilege after the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transitions that found the ring buffer full.
    pub transitions_lost: u64,
    /// Other records that found the ring buffer full.
    pub others_lost: u64,
}

/// Marks types that may be copied out of the ring buffer byte by byte.
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
unsafe impl Wire for TcpInfo {}
// SAFETY: as above.
unsafe impl Wire for RecordWithInfo {}
// SAFETY: as above.
unsafe impl Wire for Counters {}
// SAFETY: only `u32`s, in structures of `u32`s.
unsafe impl Wire for crate::Config {}

const _: () = {
    assert!(size_of::<Record>() == 120 && align_of::<Record>() == 8);
    assert!(size_of::<TcpInfo>() == 80 && align_of::<TcpInfo>() == 8);
    assert!(size_of::<RecordWithInfo>() == 200);
    assert!(size_of::<Counters>() == 16);
};
