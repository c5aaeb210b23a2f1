//! Retransmitted SYN-ACKs: the only trace of a half-open connection.

use tracer_ebpf::{ABSENT, AcceptQueue, Lane, RecordKind, flags};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Probed, Typed, nonzero},
    netns,
    output::Writer,
};

/// Records a retransmission by the listener `sk`, a `struct sock *`, for the request `req`, a `struct
/// request_sock *`.
#[inline(always)]
pub(crate) fn resent(sk: u64, req: u64) {
    if config!(socket.num_retrans) == ABSENT {
        return;
    }
    let writer = Writer::on_this_cpu(Lane::SynAckRetransmit);
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(writer, sk) else {
        return;
    };
    let port = Typed::load::<u16>(req, config!(socket.skc_num));
    let ends = Endpoints::of_common::<Typed>(req, port);
    endpoints::write_base(&mut slot, RecordKind::SynAckRetransmit, sk, netns, ends, flags::ACCEPT_QUEUE);
    // SAFETY: the slot has room for a record with all parts.
    unsafe {
        let queue = slot.part::<AcceptQueue>();
        (*queue).length = Typed::load(sk, config!(socket.sk_ack_backlog));
        (*queue).limit = Typed::load(sk, config!(socket.sk_max_ack_backlog));
        let record = slot.written();
        // The kernel counts this retransmission after the tracepoint.
        (*record).attempts = Typed::load::<u8>(req, config!(socket.num_retrans)).saturating_add(1);
        if config!(socket.snt_synack) != ABSENT {
            // Outside the type that the verifier knows for the argument.
            (*record).value = Probed::load::<u64>(req, config!(socket.snt_synack)) * 1000;
        }
        if config!(socket.rcv_isn) != ABSENT && config!(socket.snt_isn) != ABSENT {
            let client = Probed::load::<u32>(req, config!(socket.rcv_isn));
            let server = Probed::load::<u32>(req, config!(socket.snt_isn));
            (*record).cookie = u64::from(server) << 32 | u64::from(client);
            (*record).flags |= flags::SEQUENCES;
        }
        if config!(socket.rskq_defer_accept) != ABSENT {
            // A full accept queue ignores the ACK too, and sets the same bit.
            let defers = nonzero(u32::from(Probed::load::<u8>(sk, config!(socket.rskq_defer_accept))));
            let acked = Probed::bit(req, config!(bits.acked.offset), config!(bits.acked.mask));
            (*record).flags |= (defers & acked) * flags::ACKED;
        }
    }
    slot.submit();
}
