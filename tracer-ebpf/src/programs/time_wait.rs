//! The removal of timewait sockets: connections in TIME_WAIT, and orphaned connections in FIN_WAIT2.

use tracer_ebpf::{ABSENT, Lane, RecordKind, tcp_state as state};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    netns,
    output::Writer,
};

/// Records the removal of the timewait socket `tw`, a `struct inet_timewait_sock *`.
#[inline(always)]
pub(crate) fn end(tw: u64) {
    if config!(socket.tw_substate) == ABSENT || config!(socket.tw_sport) == ABSENT {
        return;
    }
    let writer = Writer::on_this_cpu(Lane::TimeWaitEnd);
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(writer, tw) else {
        return;
    };
    let port = u16::from_be(Typed::load(tw, config!(socket.tw_sport)));
    let ends = Endpoints::of_common::<Typed>(tw, port);
    endpoints::write_base(&mut slot, RecordKind::TimeWaitEnd, tw, netns, ends, 0);
    // SAFETY: `write_base` has written the record in the slot.
    unsafe {
        let record = slot.written();
        (*record).old_state = Typed::load(tw, config!(socket.tw_substate));
        (*record).new_state = state::CLOSE;
    }
    slot.submit();
}
