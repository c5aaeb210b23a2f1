//! The end of a mini-socket: what the kernel keeps of a connection in TIME_WAIT, or in FIN_WAIT2
//! without an application.

use tracer_ebpf::{ABSENT, Record, RecordKind};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    output::{Lost, Slot},
};

/// Records that the mini-socket `tw`, a `struct inet_timewait_sock *`, ends.
#[inline(always)]
pub(crate) fn end(tw: u64) {
    if config!(socket.tw_substate) == ABSENT || config!(socket.tw_sport) == ABSENT {
        return;
    }
    let netns = endpoints::netns::<Typed>(tw);
    if !endpoints::is_wanted(netns) {
        return;
    }
    let Some(mut slot) = Slot::<Record>::reserve(Lost::Other) else {
        return;
    };
    let port = u16::from_be(Typed::load(tw, config!(socket.tw_sport)));
    let record = slot.as_mut_ptr();
    // SAFETY: the slot is a record in the ring buffer.
    unsafe {
        let ends = Endpoints::of_common::<Typed>(tw, port);
        endpoints::write_base(record, RecordKind::TimeWaitEnd, tw, netns, ends);
        (*record).old_state = Typed::load(tw, config!(socket.tw_substate));
        (*record).new_state = tracer_ebpf::tcp_state::CLOSE;
    }
    slot.submit();
}
