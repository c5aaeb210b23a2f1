//! The body of the transition programs: from a socket and two states to one record.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use tracer_ebpf::{
    ABSENT, AF_INET6, AcceptQueue, CtxLayout, IPPROTO_TCP, Lane, RecordKind, TcpInfo, flags,
    tcp_state as state,
};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory, Probed, Typed},
    netns,
    output::{Slot, Writer},
    process, reader, receipt,
};

/// `SOCK_DONE` and `SOCK_LINGER` of `enum sock_flags`, `include/net/sock.h`, as bits of `skc_flags`.
const SOCK_DONE: u64 = 1 << 1;
const SOCK_LINGER: u64 = 1 << 4;

/// A socket's address, under the two types that the verifier may know for it.
#[derive(Clone, Copy)]
struct Socket {
    /// As a `struct sock`: the tracepoint's argument, which the verifier trusts, so a load is one instruction.
    sk: u64,
    /// As a `struct tcp_sock`: the kernel guards each load against faults. 0 unless the transition is to ESTABLISHED or
    /// CLOSE, the two at which the program reads its statistics.
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
    if is_settled(new) {
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
    if new == state::ESTABLISHED && old == state::SYN_RECV {
        reader::expect(sk);
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
    let tp = if is_settled(new) { sk } else { 0 };
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
    let tp = if is_settled(new) { sk } else { 0 };
    record::<Probed>(slot, Socket { sk, tp }, old, new, endpoints, netns);
}

/// Whether the program reads the socket's statistics when the socket enters this state.
#[inline(always)]
fn is_settled(new: u8) -> bool {
    new == state::ESTABLISHED || new == state::CLOSE
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
    let mut bits = 0;
    let (mut error, mut shutdown, mut cgroup_id, mut cookie) = (0u16, 0u8, 0, 0);
    // The accepted socket is still a copy of its listener: its queue is the listener's, and up to 6.14 so is its cookie.
    let copied = old == state::LISTEN && new == state::SYN_RECV;
    if layout_known {
        if tp != 0 {
            bits |= flags::SOCKET_FIELDS | flags::INFO;
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
        if copied {
            bits |= flags::ACCEPT_QUEUE;
        } else {
            cookie = M::load(sk, config!(socket.skc_cookie));
        }
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
    let known_error = if bits & flags::SOCKET_FIELDS != 0 { Some(error) } else { None };
    let caused = process::caused_transition(old, new, known_error);
    if caused {
        bits |= flags::PROCESS;
    }
    endpoints::write_base(&mut slot, RecordKind::Transition, sk, netns, ends, bits);
    // SAFETY: `write_base` has written the record in the slot.
    unsafe {
        let record = slot.written();
        (*record).cookie = cookie;
        (*record).value = cgroup_id;
        (*record).error = error;
        (*record).shutdown = shutdown;
        (*record).old_state = old;
        (*record).new_state = new;
    }
    if caused {
        process::write_current(&mut slot);
    }
    if layout_known && copied {
        // SAFETY: the slot has room for all parts.
        unsafe {
            let queue = slot.part::<AcceptQueue>();
            (*queue).length = M::load(sk, config!(socket.sk_ack_backlog));
            (*queue).limit = M::load(sk, config!(socket.sk_max_ack_backlog));
        }
    }
    if layout_known && tp != 0 {
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
        (*info).unacked = load!(write_seq: u32).wrapping_sub(load!(snd_una: u32));
        (*info).unread = load!(rcv_nxt: u32).wrapping_sub(load!(copied_seq: u32));
        (*info).soft_error = M::load::<u32>(socket.sk, config!(socket.sk_err_soft)) as u16;
        (*info).pending_retransmits = load!(icsk_retransmits: u8);
        (*info).probes = load!(icsk_probes_out: u8);
        (*info).packets_out = load!(packets_out: u32);
        (*info).data_segments_received = load!(data_segs_in: u32);
    }
}
