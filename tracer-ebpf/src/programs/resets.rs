//! Resets: those that this host sends, with the kernel's reason, and those that it receives.

use tracer_ebpf::{ABSENT, Lane, RecordKind, flags};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    netns,
    output::{Slot, Writer},
    segment::{self, Segment},
};

/// Records a reset. Of a connection when `sk`, a `struct sock *`, is not null. Otherwise only one that answers a SYN, the
/// segment in the `struct sk_buff` at `skb`: nobody listens there.
#[inline(always)]
pub(crate) fn sent(sk: u64, skb: u64, reason: Option<u32>) {
    let writer = Writer::on_this_cpu(Lane::ResetSent);
    if sk != 0 {
        if config!(socket.skc_state) == ABSENT {
            return;
        }
        let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(writer, sk) else {
            return;
        };
        // May be a timewait or request socket, so only fields of `struct sock_common` are read.
        let port = Typed::load::<u16>(sk, config!(socket.skc_num));
        let ends = Endpoints::of_common::<Typed>(sk, port);
        endpoints::write_base(&mut slot, RecordKind::ResetSent, sk, netns, ends, 0);
        let state = Typed::load::<u8>(sk, config!(socket.skc_state));
        // SAFETY: `write_base` has written the record in the slot.
        unsafe { (*slot.written()).old_state = state };
        submit(slot, reason);
    } else if skb != 0 && segment::is_known() {
        let Some(segment) = Segment::in_skb(skb) else {
            return;
        };
        if segment.flags & (segment::SYN | segment::ACK) != segment::SYN {
            return;
        }
        let Some((mut slot, netns)) = netns::slot_if_wanted_by_skb(writer, skb) else {
            return;
        };
        endpoints::write_base(&mut slot, RecordKind::ResetSent, 0, netns, segment.at_destination(), 0);
        submit(slot, reason);
    }
}

#[inline(always)]
fn submit(mut slot: Slot, reason: Option<u32>) {
    if let Some(reason) = reason {
        // SAFETY: the record in the slot is written.
        unsafe {
            (*slot.written()).value = u64::from(reason);
            (*slot.written()).flags |= flags::REASON;
        }
    }
    slot.submit();
}

/// Records that the peer of `sk`, a `struct sock *`, sent a reset.
#[inline(always)]
pub(crate) fn received(sk: u64) {
    let writer = Writer::on_this_cpu(Lane::ResetReceived);
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(writer, sk) else {
        return;
    };
    let port = Typed::load::<u16>(sk, config!(socket.skc_num));
    let ends = Endpoints::of_common::<Typed>(sk, port);
    endpoints::write_base(&mut slot, RecordKind::ResetReceived, sk, netns, ends, 0);
    slot.submit();
}
