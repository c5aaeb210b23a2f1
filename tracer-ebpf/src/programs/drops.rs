//! Dropped segments of handshakes: SYNs, SYN-ACKs, and ACKs to a listener.

use aya_ebpf::helpers::generated::bpf_snprintf;
use tracer_ebpf::{ABSENT, FunctionName, Lane, RecordKind, flags, tcp_state as state};

use crate::{
    config, endpoints,
    memory::{Memory as _, Typed},
    netns,
    output::Writer,
    segment::{self, Segment},
};

/// `SKB_CONSUMED`, `include/net/dropreason-core.h`: not a drop. Up to 5.18 a reason has no such value.
const CONSUMED: u32 = 1;

/// The format of a kernel function's name without an offset.
#[unsafe(link_section = ".rodata")]
static FUNCTION_FORMAT: [u8; 4] = *b"%ps\0";

/// Records the drop of the `struct sk_buff` at `skb` by the code at `location`, if it is a segment of a handshake. `receiver`
/// is the `struct sock *` that the segment was for; null when unknown.
///
/// Most drops are of other segments, so the cheapest test comes first.
#[inline(always)]
pub(crate) fn dropped(skb: u64, location: u64, reason: u32, receiver: u64) {
    if reason == CONSUMED || !segment::is_known() {
        return;
    }
    let Some(segment) = Segment::in_skb(skb) else {
        return;
    };
    if segment.flags & segment::SYN == 0 && !may_end_handshake(segment, receiver) {
        return;
    }
    let writer = Writer::on_this_cpu(Lane::SegmentDropped);
    let Some((mut slot, netns)) = netns::slot_if_wanted_by_skb(writer, skb) else {
        return;
    };
    let socket = Typed::load::<u64>(skb, config!(socket.skb_sk));
    let bits = flags::REASON | flags::FUNCTION;
    endpoints::write_base(&mut slot, RecordKind::SegmentDropped, socket, netns, segment.from_source(), bits);
    // SAFETY: the slot has room for a record with all parts, and `write_base` has written the record. The helper writes at
    // most the bytes of the name, and reads one word of arguments.
    unsafe {
        (*slot.written()).value = u64::from(reason);
        (*slot.written()).attempts = segment.flags;
        let name = slot.part::<FunctionName>();
        name.cast::<[u64; 4]>().write([0; 4]);
        let arguments = [location];
        bpf_snprintf(
            name.cast(),
            size_of::<FunctionName>() as u32,
            FUNCTION_FORMAT.as_ptr().cast(),
            arguments.as_ptr().cast_mut().cast(),
            8,
        );
    }
    slot.submit();
}

/// Whether the segment is the last of a handshake: an ACK for a listener or a half-open connection.
#[inline(always)]
fn may_end_handshake(segment: Segment, receiver: u64) -> bool {
    if receiver == 0 || segment.flags & segment::ACK == 0 || config!(socket.skc_state) == ABSENT {
        return false;
    }
    let state = Typed::load::<u8>(receiver, config!(socket.skc_state));
    state == state::LISTEN || state == state::NEW_SYN_RECV
}

/// Records the SYN in the `struct sk_buff` at `skb` if the accept queue of the listener `sk`, a `struct sock *`, is full: the
/// kernel then drops it (`sk_acceptq_is_full`, 6.18 tcp_input.c).
#[inline(always)]
pub(crate) fn refused_by_full_queue(sk: u64, skb: u64) {
    let length = Typed::load::<u32>(sk, config!(socket.sk_ack_backlog));
    let limit = Typed::load::<u32>(sk, config!(socket.sk_max_ack_backlog));
    if length <= limit || !segment::is_known() {
        return;
    }
    let Some(segment) = Segment::in_skb(skb) else {
        return;
    };
    let writer = Writer::on_this_cpu(Lane::AcceptQueueFull);
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(writer, sk) else {
        return;
    };
    let ends = segment.from_source();
    endpoints::write_base(&mut slot, RecordKind::SegmentDropped, 0, netns, ends, flags::ACCEPT_QUEUE_FULL);
    // SAFETY: `write_base` has written the record in the slot.
    unsafe { (*slot.written()).attempts = segment.flags };
    slot.submit();
}
