//! The body of the transition programs: from a socket and two states to one record.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use tracer_ebpf::{
    ABSENT, AF_INET6, AcceptQueue, CtxLayout, IPPROTO_TCP, Lane, RecordKind, TcpInfo, flags,
    tcp_state as state,
};

use crate::{
    config,
    endpoints::{self, Endpoints},
    first_use,
    memory::{Memory, Probed, Typed, nonzero},
    netns,
    output::{Slot, Writer},
    process, receipt,
};

/// `SOCK_DONE` and `SOCK_LINGER` of `enum sock_flags`, `include/net/sock.h`, as bits of `skc_flags`.
const SOCK_DONE: u64 = 1 << 1;
const SOCK_LINGER: u64 = 1 << 4;

/// `include/net/sock.h`: the application does not receive any more.
const RCV_SHUTDOWN: u8 = 1;

/// A socket's address, under the two types that the verifier may know for it.
#[derive(Clone, Copy)]
struct Socket {
    /// As a `struct sock`: the tracepoint's argument, which the verifier trusts, so a load is one instruction.
    sk: u64,
    /// As a `struct tcp_sock`: the kernel guards each load against faults. 0 unless [`reads_tcp_sock`].
    tp: u64,
}

/// Records a transition of the socket at the typed address `sk`.
#[inline(always)]
pub(crate) fn from_socket(writer: Writer, sk: u64, old: u8, new: u8) {
    // MPTCP's own sockets have another protocol.
    if Typed::load::<u16>(sk, config!(socket.sk_protocol)) != IPPROTO_TCP {
        return;
    }
    let Some((slot, netns)) = netns::slot_if_wanted::<Typed>(writer, sk) else {
        return;
    };
    let mut port = Typed::load::<u16>(sk, config!(socket.skc_num));
    let mut tp = 0;
    if reads_tcp_sock::<Typed>(sk, old, new) {
        // Null unless it is a full TCP socket.
        // SAFETY: the verifier knows the argument as a `struct sock *`.
        tp = unsafe { bpf_skc_to_tcp_sock(sk as *mut _) } as u64;
        if tp == 0 {
            return slot.give_back();
        }
        if new == state::CLOSE {
            // The kernel has already released an autobound port, and `skc_num` is 0.
            port = u16::from_be(Typed::load(tp, config!(socket.inet_sport)));
        }
    }
    if new == state::ESTABLISHED && (old == state::SYN_RECV || old == state::SYN_SENT) {
        first_use::expect(sk);
    }
    record::<Typed>(slot, Socket { sk, tp }, old, new, Endpoints::of_common::<Typed>(sk, port), netns);
}

/// Records a transition of the socket at the address `sk`, which is a scalar to the verifier.
#[inline(always)]
pub(crate) fn from_address(writer: Writer, sk: u64, old: u8, new: u8) {
    if Probed::load::<u16>(sk, config!(socket.sk_protocol)) != IPPROTO_TCP {
        return;
    }
    let Some((slot, netns)) = netns::slot_if_wanted::<Probed>(writer, sk) else {
        return;
    };
    // The same field as in the classic tracepoint's record.
    let port = u16::from_be(Probed::load(sk, config!(socket.inet_sport)));
    let tp = if reads_tcp_sock::<Probed>(sk, old, new) { sk } else { 0 };
    record::<Probed>(slot, Socket { sk, tp }, old, new, Endpoints::of_common::<Probed>(sk, port), netns);
}

/// Records a transition from the classic tracepoint's record at `ctx`, and leaves the receipt for the twin program.
#[inline(always)]
pub(crate) fn from_ctx(ctx: u64) {
    // Copy the record to the stack: the verifier rejects loads from the context at offsets that are not constants in the
    // instruction, and these offsets are known only when the program is loaded.
    let mut copy = MaybeUninit::<[u64; CtxLayout::SPAN / 8]>::zeroed();
    // SAFETY: the helper writes no more than the size it is given.
    unsafe { bpf_probe_read_kernel(copy.as_mut_ptr().cast(), CtxLayout::SPAN as u32, ctx as *const _) };
    let base = copy.as_ptr().cast::<u8>();
    macro_rules! field {
        ($field:ident, $type:ty) => {{
            // The bound is for the compiler and an unset layout; user space rejects a longer record.
            let offset = config!(ctx.$field) as usize;
            let offset = if offset > CtxLayout::SPAN - size_of::<$type>() { 0 } else { offset };
            // SAFETY: inside the copy.
            unsafe { base.add(offset).cast::<$type>().read_unaligned() }
        }};
    }
    let sk = field!(skaddr, u64);
    let (old, new) = (field!(oldstate, u32) as u8, field!(newstate, u32) as u8);
    receipt::leave(&Writer::on_this_cpu(Lane::Transition), sk, new);
    let protocol =
        if config!(ctx.protocol_size) == 1 { u16::from(field!(protocol, u8)) } else { field!(protocol, u16) };
    if protocol != IPPROTO_TCP {
        return;
    }
    let family = field!(family, u16) as u8;
    let (local, remote) = if family == AF_INET6 {
        (field!(saddr_v6, [u64; 2]), field!(daddr_v6, [u64; 2]))
    } else {
        ([u64::from(field!(saddr, u32)), 0], [u64::from(field!(daddr, u32)), 0])
    };
    let endpoints =
        Endpoints { family, local, remote, local_port: field!(sport, u16), remote_port: field!(dport, u16) };
    // Look up the lane again: a pointer kept from above, null or not, doubles the paths that the verifier walks.
    let writer = Writer::on_this_cpu(Lane::Transition);
    let Some((slot, netns)) = netns::slot_if_wanted::<Probed>(writer, sk) else {
        return;
    };
    let tp = if reads_tcp_sock::<Probed>(sk, old, new) { sk } else { 0 };
    record::<Probed>(slot, Socket { sk, tp }, old, new, endpoints, netns);
}

/// The states of a transition, kept in the record itself. After each read the verifier takes them for unknown: it would
/// otherwise verify the rest of the program once for each combination that the branches before have told apart.
#[inline(always)]
fn states(slot: &mut Slot) -> (u8, u8) {
    let record = slot.written();
    // SAFETY: inside the slot, and `keep_states` has written them.
    unsafe {
        ((&raw const (*record).old_state).read_volatile(), (&raw const (*record).new_state).read_volatile())
    }
}

/// Writes the states for [`states`].
#[inline(always)]
fn keep_states(slot: &mut Slot, old: u8, new: u8) {
    let record = slot.written();
    // SAFETY: inside the slot.
    unsafe {
        (&raw mut (*record).old_state).write_volatile(old);
        (&raw mut (*record).new_state).write_volatile(new);
    }
}

/// Whether the program reads the socket's statistics when the socket enters this state.
#[inline(always)]
fn is_settled(new: u8) -> bool {
    new == state::ESTABLISHED || new == state::CLOSE
}

/// Whether the socket waits in this state for the ACK of its FIN or for the peer's FIN.
#[inline(always)]
fn is_fin_wait(of: u8) -> bool {
    of == state::FIN_WAIT1 || of == state::FIN_WAIT2
}

/// Whether the application closes or shuts down the socket.
#[inline(always)]
fn is_active_close(old: u8, new: u8) -> bool {
    new == state::FIN_WAIT1 || (old == new && new == state::FIN_WAIT2)
}

/// Whether the peer's FIN arrived first.
#[inline(always)]
fn is_passive_close(old: u8, new: u8) -> bool {
    old == state::ESTABLISHED && new == state::CLOSE_WAIT
}

/// Whether a listener begins, or the kernel copies one for a connection.
#[inline(always)]
fn is_of_listener(old: u8, new: u8) -> bool {
    (old == state::LISTEN && new == state::SYN_RECV) || (old == state::CLOSE && new == state::LISTEN)
}

/// Whether the program reads fields of the `struct tcp_sock` of the socket `sk` at this transition.
#[inline(always)]
fn reads_tcp_sock<M: Memory>(sk: u64, old: u8, new: u8) -> bool {
    if is_settled(new) || is_of_listener(old, new) {
        return true;
    }
    if is_active_close(old, new) {
        // shutdown(SHUT_WR) alone: the application still receives.
        return config!(socket.sk_shutdown) != ABSENT
            && M::load::<u8>(sk, config!(socket.sk_shutdown)) & RCV_SHUTDOWN != 0;
    }
    if is_passive_close(old, new) {
        // Only of a connection that no process has accepted yet.
        return config!(socket.sk_socket) != ABSENT && M::load::<u64>(sk, config!(socket.sk_socket)) == 0;
    }
    false
}

/// Returns the flags of a socket that enters ESTABLISHED or CLOSE, beside those of its `struct sock`.
#[inline(always)]
fn settled_flags<M: Memory>(tp: u64, old: u8, new: u8) -> u32 {
    macro_rules! bit {
        ($field:ident) => {
            M::bit(tp, config!(bits.$field.offset), config!(bits.$field.mask))
        };
    }
    let mut bits = 0;
    if new == state::CLOSE || old == state::SYN_SENT {
        bits = bit!(repair) * flags::REPAIR;
    }
    if new == state::CLOSE && is_fin_wait(old) && config!(socket.linger2) != ABSENT {
        bits |= (M::load::<u32>(tp, config!(socket.linger2)) >> 31) * flags::LINGER2_NEGATIVE;
    }
    if old == state::SYN_SENT {
        // Without a Fast Open cookie the SYN leaves at `connect()`, without data.
        if bit!(fastopen_connect) != 0 {
            bits |= (bit!(syn_data) | bit!(defer_connect)) * flags::FAST_OPEN_DEFERRED;
        }
    }
    bits
}

/// Returns the flags of a listener, from the socket `tp` itself or from its copy at LISTEN→SYN_RECV.
#[inline(always)]
fn listener_flags<M: Memory>(tp: u64) -> u32 {
    let transparent = M::bit(tp, config!(bits.transparent.offset), config!(bits.transparent.mask));
    let mut bits = transparent * flags::TRANSPARENT;
    if config!(socket.rskq_defer_accept) != ABSENT {
        let rounds = M::load::<u8>(tp, config!(socket.rskq_defer_accept));
        bits |= nonzero(u32::from(rounds)) * flags::DEFER_ACCEPT;
    }
    bits
}

/// Returns the id of the socket's cgroup, 0 when unknown. The kernel sets the cgroup when it creates the socket; an accepted
/// socket has its listener's.
#[inline(always)]
fn cgroup<M: Memory>(sk: u64) -> u64 {
    if config!(socket.cgroup_kn) == ABSENT || config!(socket.kernfs_id) == ABSENT {
        return 0;
    }
    if config!(socket.sk_cgrp_pointer) != ABSENT {
        let cgroup = M::load::<u64>(sk, config!(socket.sk_cgrp_pointer));
        let kn = M::load::<u64>(cgroup, config!(socket.cgroup_kn));
        return M::load::<u64>(kn, config!(socket.kernfs_id));
    }
    if config!(socket.sk_cgrp_value) != ABSENT {
        let value = M::load::<u64>(sk, config!(socket.sk_cgrp_value));
        if value != 0 && value & 1 == 0 {
            // The two low bits are flags (`is_data`, `no_refcnt`); the rest is an address that is a scalar to the verifier.
            let kn = Probed::load::<u64>(value & !3, config!(socket.cgroup_kn));
            return Probed::load::<u64>(kn, config!(socket.kernfs_id));
        }
    }
    0
}

/// Writes the record of a transition into `slot` and submits it.
#[inline(always)]
fn record<M: Memory>(mut slot: Slot, socket: Socket, old: u8, new: u8, ends: Endpoints, netns: u32) {
    let Socket { sk, tp } = socket;
    let layout_known = config!(socket.sk_err) != ABSENT;
    let settled = is_settled(new);
    let mut bits = 0;
    let (mut error, mut shutdown, mut cgroup_id, mut cookie, mut extra) = (0u16, 0u8, 0, 0, 0u32);
    keep_states(&mut slot, old, new);
    if layout_known {
        if settled && tp != 0 {
            bits |= flags::SOCKET_FIELDS | flags::INFO | settled_flags::<M>(tp, old, new);
            error = M::load::<u32>(sk, config!(socket.sk_err)) as u16;
            if config!(socket.sk_shutdown) != ABSENT {
                shutdown = M::load(sk, config!(socket.sk_shutdown));
            }
            let socket_flags = M::load::<u64>(sk, config!(socket.skc_flags));
            if socket_flags & SOCK_DONE != 0 {
                bits |= flags::PEER_FIN;
            }
            if socket_flags & SOCK_LINGER != 0 && M::load::<u64>(sk, config!(socket.sk_lingertime)) == 0 {
                bits |= flags::LINGER_ZERO;
            }
            // Read through `tp`, although `sk` would do: for each pointer that is read through a trusted pointer, the verifier
            // of 6.18 searches all types of the kernel by name, which takes a millisecond.
            if M::load::<u64>(tp, config!(socket.sk_socket)) != 0 {
                bits |= flags::ATTACHED;
            }
        }
        let (old, new) = states(&mut slot);
        if old == state::LISTEN && new == state::SYN_RECV {
            // The accepted socket is still a copy of its listener: its queue is the listener's, and up to 6.14 so is its
            // cookie.
            bits |= flags::ACCEPT_QUEUE;
        } else if M::CHEAP && config!(socket_cookies) != 0 && old == state::CLOSE && new == state::LISTEN {
            // Generated here, so that a later socket dump can name this listener: without `bind()` it has no port yet.
            // SAFETY: where loads are plain, the verifier knows the address as a `struct sock *`.
            cookie = unsafe { bpf_get_socket_cookie(sk as *mut _) };
        } else {
            cookie = M::load(sk, config!(socket.skc_cookie));
        }
        let (old, new) = states(&mut slot);
        if tp != 0 {
            if is_active_close(old, new) {
                bits |= flags::DATA_SEGMENTS;
                extra = M::load(tp, config!(socket.data_segs_in));
            }
            if is_passive_close(old, new) {
                bits |= flags::UNACCEPTED_SEGMENTS;
                extra = M::load(tp, config!(socket.segs_in));
            }
            if is_of_listener(old, new) {
                bits |= listener_flags::<M>(tp);
            }
        }
        let (old, new) = states(&mut slot);
        if config!(socket.skc_bound_dev_if) != ABSENT
            && ((old == state::SYN_RECV && new == state::ESTABLISHED)
                || (old == state::CLOSE && new == state::SYN_SENT))
        {
            // Not negative.
            extra = M::load::<u32>(sk, config!(socket.skc_bound_dev_if));
            bits |= (extra.wrapping_neg() >> 31) * flags::INTERFACE;
        }
        let (old, new) = states(&mut slot);
        if old == state::CLOSE {
            if M::load::<u16>(sk, config!(socket.skc_num)) == 0 {
                bits |= flags::PORT_UNBOUND;
            }
        }
        if tp != 0 {
            if new == state::ESTABLISHED || old == state::CLOSE || old == state::LISTEN {
                cgroup_id = cgroup::<M>(tp);
            }
        } else if old == state::CLOSE || old == state::LISTEN {
            cgroup_id = cgroup::<M>(sk);
        }
        if cgroup_id != 0 {
            bits |= flags::CGROUP;
        }
    }
    let (old, new) = states(&mut slot);
    let known_error = if layout_known && is_settled(new) { error } else { process::UNKNOWN_ERROR };
    let caller = process::of_transition::<M>(sk, old, new, known_error);
    if caller.is_some() {
        bits |= caller.flags();
    }
    endpoints::write_base(&mut slot, RecordKind::Transition, sk, netns, ends, bits);
    // SAFETY: `write_base` has written the record in the slot.
    unsafe {
        let record = slot.written();
        (*record).cookie = cookie;
        (*record).value = cgroup_id;
        (*record).error = error;
        (*record).shutdown = shutdown;
        (*record).extra = extra;
    }
    keep_states(&mut slot, old, new);
    if caller.is_some() {
        caller.write(&mut slot);
    }
    let (old, new) = states(&mut slot);
    if layout_known && old == state::LISTEN && new == state::SYN_RECV {
        // SAFETY: the slot has room for all parts.
        unsafe {
            let queue = slot.part::<AcceptQueue>();
            (*queue).length = M::load(sk, config!(socket.sk_ack_backlog));
            (*queue).limit = M::load(sk, config!(socket.sk_max_ack_backlog));
        }
    }
    if layout_known && is_settled(new) && tp != 0 {
        // SAFETY: the slot has room for all parts.
        unsafe { write_info::<M>(slot.part(), socket) };
    }
    slot.submit();
}

/// Writes the statistics of a connection.
///
/// # Safety
///
/// `info` points into a slot, and `socket.tp` is set.
#[inline(always)]
unsafe fn write_info<M: Memory>(info: *mut TcpInfo, socket: Socket) {
    macro_rules! load {
        ($field:ident: $type:ty) => {
            M::load::<$type>(socket.tp, config!(socket.$field))
        };
    }
    // SAFETY: as the caller promises.
    unsafe {
        (*info).bytes_sent = load!(bytes_sent: u64);
        (*info).bytes_retransmitted = load!(bytes_retrans: u64);
        (*info).bytes_received = load!(bytes_received: u64);
        (*info).srtt_us = load!(srtt_us: u32) >> 3;
        // `struct minmax`, `include/linux/win_minmax.h`: three samples of `{ u32 t; u32 v; }`.
        (*info).min_rtt_us = M::load(socket.tp, config!(socket.rtt_min) + 4);
        (*info).segments_sent = load!(segs_out: u32);
        (*info).segments_received = load!(segs_in: u32);
        (*info).retransmits = load!(total_retrans: u32);
        (*info).mss = load!(mss_cache: u32);
        (*info).user_timeout_ms = load!(icsk_user_timeout: u32);
        let (snd_una, rcv_nxt) = (load!(snd_una: u32), load!(rcv_nxt: u32));
        (*info).unacked = load!(write_seq: u32).wrapping_sub(snd_una);
        (*info).unread = rcv_nxt.wrapping_sub(load!(copied_seq: u32));
        // Both counts advance with their sequence number (`tcp_snd_una_update` and `tcp_rcv_nxt_update`, 6.18 tcp_input.c),
        // also by the data of Fast Open (`tcp_fastopen_add_skb`, 6.18 tcp_fastopen.c).
        (*info).sent_from = snd_una.wrapping_sub(load!(bytes_acked: u64) as u32);
        (*info).received_from = rcv_nxt.wrapping_sub(load!(bytes_received: u64) as u32);
        (*info).soft_error = M::load::<u32>(socket.sk, config!(socket.sk_err_soft)) as u16;
        (*info).pending_retransmits = load!(icsk_retransmits: u8);
        (*info).probes = load!(icsk_probes_out: u8);
        (*info).packets_out = load!(packets_out: u32);
        (*info).data_segments_received = load!(data_segs_in: u32);
    }
}
