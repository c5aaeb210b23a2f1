//! A SYN-ACK sent again: the one sign that a half-open connection gives.

use tracer_ebpf::{ABSENT, Record, RecordKind, flags};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Probed, Typed},
    output::{Lost, Slot},
};

/// Records a resend by the listener `sk`, a `struct sock *`, for the request `req`, a `struct
/// request_sock *`.
#[inline(always)]
pub(crate) fn resent(sk: u64, req: u64) {
    if config!(socket.num_retrans) == ABSENT {
        return;
    }
    let netns = endpoints::netns::<Typed>(sk);
    if !endpoints::is_wanted(netns) {
        return;
    }
    let Some(mut slot) = Slot::<Record>::reserve(Lost::Other) else {
        return;
    };
    let port = Typed::load::<u16>(req, config!(socket.skc_num));
    let record = slot.as_mut_ptr();
    // SAFETY: the slot is a record in the ring buffer.
    unsafe {
        let ends = Endpoints::of_common::<Typed>(req, port);
        endpoints::write_base(record, RecordKind::SynAckRetransmit, sk, netns, ends);
        // The kernel counts this resend only after the tracepoint.
        (*record).attempts = Typed::load::<u8>(req, config!(socket.num_retrans)).saturating_add(1);
        if config!(socket.snt_synack) != ABSENT {
            // Beyond the type the verifier knows the argument by.
            (*record).value = Probed::load::<u64>(req, config!(socket.snt_synack)) * 1000;
        }
        (*record).flags |= flags::ACCEPT_QUEUE;
        (*record).accept_queue = Typed::load(sk, config!(socket.sk_ack_backlog));
        (*record).accept_queue_limit = Typed::load(sk, config!(socket.sk_max_ack_backlog));
    }
    slot.submit();
}
