/// The offset of a field that this kernel lacks or that user space did not resolve.
pub const ABSENT: u32 = u32::MAX;

/// The programs' configuration: user space writes it to the constant global `CONFIG` before it loads them.
///
/// The verifier knows the values, so a branch on a value costs nothing, and the branch not taken may use features that the
/// kernel lacks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Offsets in the classic tracepoint's record.
    pub ctx: CtxLayout,
    /// Offsets in the kernel's structures.
    pub socket: SocketLayout,
    /// Bits in the kernel's structures.
    pub bits: BitLayout,
    /// A program wakes the reader when the ring buffer's pending bytes cross a multiple of this.
    pub wakeup_bytes: u32,
    /// Only sockets of the network namespace with this inode; 0 for all.
    pub only_netns: u32,
    /// 1 where the current task may be read as a typed structure (5.11); 0 to ask the helpers.
    pub typed_task: u32,
    /// The first uses of a connection to report: bits of [`first_use`](crate::first_use).
    pub first_uses: u32,
    /// 1 where mode btf may generate a socket's cookie (5.12); 0 to read the cookie that the socket has.
    pub socket_cookies: u32,
    /// The number of arguments of the hooks whose arguments differ between kernels.
    pub arguments: ArgumentCounts,
}

/// First uses of a connection after ESTABLISHED.
pub mod first_use {
    /// The first read by a process.
    pub const READ: u32 = 1;
    /// The first write by a process.
    pub const WRITE: u32 = 2;
}

/// How many arguments hooks have on this kernel, from its BTF; 0 where it has no such hook. 12 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArgumentCounts {
    /// `tcp:tcp_send_reset`: 2, and 3 with the reason (6.10).
    pub send_reset: u32,
    /// `skb:kfree_skb`: 2, 3 with the reason (5.17), and 4 with the receiving socket (6.11).
    pub kfree_skb: u32,
    /// `inet_csk_accept`: 4, and 2 since 6.10. The returned socket follows them.
    pub accept: u32,
}

impl ArgumentCounts {
    /// No hook resolved.
    pub const NONE: Self = Self { send_reset: 0, kfree_skb: 0, accept: 0 };
}

/// Byte offsets in the classic tracepoint's record, from tracefs `sock/inet_sock_set_state/format`.
///
/// They moved in 5.6 (`protocol` grew to 16 bits) and on kernels with `common_preempt_lazy_count`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtxLayout {
    /// `const void *skaddr`, 8 bytes.
    pub skaddr: u32,
    /// `int oldstate`.
    pub oldstate: u32,
    /// `int newstate`.
    pub newstate: u32,
    /// `__u16 sport`, host order.
    pub sport: u32,
    /// `__u16 dport`, host order.
    pub dport: u32,
    /// `__u16 family`.
    pub family: u32,
    /// `protocol`.
    pub protocol: u32,
    /// Size of `protocol` in bytes: 1 up to 5.5, 2 since.
    pub protocol_size: u32,
    /// `__u8 saddr[4]`.
    pub saddr: u32,
    /// `__u8 daddr[4]`.
    pub daddr: u32,
    /// `__u8 saddr_v6[16]`.
    pub saddr_v6: u32,
    /// `__u8 daddr_v6[16]`.
    pub daddr_v6: u32,
}

macro_rules! socket_layout {
    ($($(#[$doc:meta])* $field:ident = $of:literal, $path:literal;)*) => {
        /// Byte offsets of fields in the kernel's structures, resolved from its BTF; [`ABSENT`] where
        /// the kernel has no such field.
        ///
        /// The names are the kernel's; they are stable from 4.18 to 7.1, the offsets are not. An
        /// offset counts from the start of the named structure; a `struct sock *` is the address of
        /// its `tcp_sock`.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct SocketLayout {
            $(
                #[doc = concat!("`", $of, "`: `", $path, "`")]
                $(#[$doc])*
                pub $field: u32,
            )*
        }

        impl SocketLayout {
            /// No field resolved: the classic tracepoint still works, without the fields of the socket.
            pub const ABSENT: Self = Self { $($field: ABSENT,)* };

            /// Builds the layout by calling `offset_of` with each field's structure and path: member
            /// names joined by dots; anonymous members and a structure's first embedded parents are
            /// transparent.
            pub fn resolve(mut offset_of: impl FnMut(&'static str, &'static str) -> Option<u32>) -> Self {
                Self { $($field: offset_of($of, $path).unwrap_or(ABSENT),)* }
            }

            /// Returns the structure, path and offset of every field.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str, u32)> {
                [$(($of, $path, self.$field),)*].into_iter()
            }
        }
    };
}

/// Where a flag of one bit is, or a number that fits into one byte. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitField {
    /// Offset of the byte in the structure; [`ABSENT`] where the kernel has no such field.
    pub offset: u32,
    /// The field's bits in this byte; 0 where the kernel has no such field.
    pub mask: u32,
}

impl BitField {
    /// Not resolved.
    pub const ABSENT: Self = Self { offset: ABSENT, mask: 0 };
}

/// The bit-fields that the programs read. Each may be absent; the programs then read 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitLayout {
    /// `tcp_sock`: `repair`, the socket is in `TCP_REPAIR` mode.
    pub repair: BitField,
    /// `tcp_sock`: `fastopen_connect`, the application set `TCP_FASTOPEN_CONNECT`.
    pub fastopen_connect: BitField,
    /// `tcp_sock`: `syn_data`, the SYN carried data.
    pub syn_data: BitField,
    /// `inet_sock`: `connect()` has returned, and the SYN waits for the first write. Bit `INET_FLAGS_DEFER_CONNECT` of
    /// `inet_flags`; before 6.6 the bit-field `defer_connect`.
    pub defer_connect: BitField,
    /// `inet_sock`: the application set `IP_TRANSPARENT`. Bit `INET_FLAGS_TRANSPARENT` of `inet_flags`; before 6.6 the
    /// bit-field `transparent`.
    pub transparent: BitField,
    /// `inet_request_sock`: `acked`, the final ACK came without data, and `TCP_DEFER_ACCEPT` ignored it.
    pub acked: BitField,
}

impl BitLayout {
    /// No field resolved.
    pub const ABSENT: Self = Self {
        repair: BitField::ABSENT,
        fastopen_connect: BitField::ABSENT,
        syn_data: BitField::ABSENT,
        defer_connect: BitField::ABSENT,
        transparent: BitField::ABSENT,
        acked: BitField::ABSENT,
    };

    /// Returns the name and place of every field.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, BitField)> {
        [
            ("repair", self.repair),
            ("fastopen_connect", self.fastopen_connect),
            ("syn_data", self.syn_data),
            ("defer_connect", self.defer_connect),
            ("transparent", self.transparent),
            ("acked", self.acked),
        ]
        .into_iter()
    }
}

socket_layout! {
    skc_daddr = "tcp_sock", "skc_daddr";
    skc_rcv_saddr = "tcp_sock", "skc_rcv_saddr";
    /// Big-endian.
    skc_dport = "tcp_sock", "skc_dport";
    /// Host order; 0 while the socket is not bound and, for an autobound socket, from CLOSE on.
    skc_num = "tcp_sock", "skc_num";
    skc_hash = "tcp_sock", "skc_hash";
    skc_family = "tcp_sock", "skc_family";
    skc_net = "tcp_sock", "skc_net.net";
    skc_v6_daddr = "tcp_sock", "skc_v6_daddr";
    skc_v6_rcv_saddr = "tcp_sock", "skc_v6_rcv_saddr";
    skc_cookie = "tcp_sock", "skc_cookie";
    skc_flags = "tcp_sock", "skc_flags";
    skc_bound_dev_if = "tcp_sock", "skc_bound_dev_if";
    /// Big-endian.
    inet_sport = "tcp_sock", "inet_sport";
    sk_protocol = "tcp_sock", "sk_protocol";
    sk_err = "tcp_sock", "sk_err";
    sk_err_soft = "tcp_sock", "sk_err_soft";
    /// A byte since 5.x; two bits of a larger field before, then absent.
    sk_shutdown = "tcp_sock", "sk_shutdown";
    sk_socket = "tcp_sock", "sk_socket";
    sk_lingertime = "tcp_sock", "sk_lingertime";
    /// Not 0 while a process's call owns the socket. Softirq context holds only the spinlock and leaves it 0.
    sk_lock_owned = "tcp_sock", "sk_lock.owned";
    sk_ack_backlog = "tcp_sock", "sk_ack_backlog";
    sk_max_ack_backlog = "tcp_sock", "sk_max_ack_backlog";
    /// A pointer, from 5.16.
    sk_cgrp_pointer = "tcp_sock", "sk_cgrp_data.cgroup";
    /// Up to 5.15: a pointer, or other data when its lowest bit is set.
    sk_cgrp_value = "tcp_sock", "sk_cgrp_data.val";
    icsk_retransmits = "tcp_sock", "icsk_retransmits";
    icsk_probes_out = "tcp_sock", "icsk_probes_out";
    icsk_user_timeout = "tcp_sock", "icsk_user_timeout";
    /// Of a listener: a byte.
    rskq_defer_accept = "tcp_sock", "icsk_accept_queue.rskq_defer_accept";
    /// Signed. Negative: the application wants no FIN_WAIT2 after `close()`.
    linger2 = "tcp_sock", "linger2";
    bytes_sent = "tcp_sock", "bytes_sent";
    bytes_retrans = "tcp_sock", "bytes_retrans";
    bytes_received = "tcp_sock", "bytes_received";
    bytes_acked = "tcp_sock", "bytes_acked";
    srtt_us = "tcp_sock", "srtt_us";
    /// `struct minmax`: the minimum is the value, the second word, of its first sample.
    rtt_min = "tcp_sock", "rtt_min.s";
    segs_out = "tcp_sock", "segs_out";
    segs_in = "tcp_sock", "segs_in";
    data_segs_in = "tcp_sock", "data_segs_in";
    total_retrans = "tcp_sock", "total_retrans";
    mss_cache = "tcp_sock", "mss_cache";
    packets_out = "tcp_sock", "packets_out";
    write_seq = "tcp_sock", "write_seq";
    snd_una = "tcp_sock", "snd_una";
    rcv_nxt = "tcp_sock", "rcv_nxt";
    copied_seq = "tcp_sock", "copied_seq";
    net_inum = "net", "ns.inum";
    /// Random, constant over the lifetime of the namespace.
    net_hash_mix = "net", "hash_mix";
    task_flags = "task_struct", "flags";
    task_pid = "task_struct", "pid";
    task_tgid = "task_struct", "tgid";
    task_group_leader = "task_struct", "group_leader";
    task_comm = "task_struct", "comm";
    task_cred = "task_struct", "cred";
    cred_uid = "cred", "uid.val";
    cgroup_kn = "cgroup", "kn";
    kernfs_id = "kernfs_node", "id";
    num_retrans = "request_sock", "num_retrans";
    /// When the first SYN-ACK was sent, `CLOCK_MONOTONIC` in microseconds; 0 for a SYN cookie.
    snt_synack = "tcp_request_sock", "snt_synack";
    /// The client's initial sequence number.
    rcv_isn = "tcp_request_sock", "rcv_isn";
    /// This host's initial sequence number.
    snt_isn = "tcp_request_sock", "snt_isn";
    tw_substate = "inet_timewait_sock", "tw_substate";
    /// Big-endian.
    tw_sport = "inet_timewait_sock", "tw_sport";
    skc_state = "tcp_sock", "skc_state";
    /// Where the buffer begins, to which the offsets of headers refer.
    skb_head = "sk_buff", "head";
    skb_network_header = "sk_buff", "network_header";
    /// Big-endian: `ETH_P_IP` or `ETH_P_IPV6`.
    skb_protocol = "sk_buff", "protocol";
    /// The sender's socket, while the segment leaves.
    skb_sk = "sk_buff", "sk";
    skb_dev = "sk_buff", "dev";
    dev_net = "net_device", "nd_net.net";
}

impl CtxLayout {
    /// No field resolved.
    pub const ABSENT: Self = Self {
        skaddr: ABSENT,
        oldstate: ABSENT,
        newstate: ABSENT,
        sport: ABSENT,
        dport: ABSENT,
        family: ABSENT,
        protocol: ABSENT,
        protocol_size: ABSENT,
        saddr: ABSENT,
        daddr: ABSENT,
        saddr_v6: ABSENT,
        daddr_v6: ABSENT,
    };

    /// Bytes that the tracepoint program reads from the start of the record.
    pub const SPAN: usize = 96;
}

impl Config {
    /// The value of `CONFIG` in the object file.
    pub const UNSET: Self = Self {
        ctx: CtxLayout::ABSENT,
        socket: SocketLayout::ABSENT,
        bits: BitLayout::ABSENT,
        wakeup_bytes: 0,
        only_netns: 0,
        typed_task: 0,
        first_uses: 0,
        socket_cookies: 0,
        arguments: ArgumentCounts::NONE,
    };
}
