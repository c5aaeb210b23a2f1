//! The end of a mini-socket: what the kernel keeps of a connection in TIME_WAIT, or in FIN_WAIT2
//! without an application.

use tracer_ebpf::{ABSENT, RecordKind, tcp_state as state};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    netns,
};

/// Records that the mini-socket `tw`, a `struct inet_timewait_sock *`, ends.
#[inline(always)]
pub(crate) fn end(tw: u64) {
    if config!(socket.tw_substate) == ABSENT || config!(socket.tw_sport) == ABSENT {
        return;
    }
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(RecordKind::TimeWaitEnd, tw) else {
        return;
    };
    let port = u16::from_be(Typed::load(tw, config!(socket.tw_sport)));
    let ends = Endpoints::of_common::<Typed>(tw, port);
    endpoints::write_base(&mut slot, RecordKind::TimeWaitEnd, tw, netns, ends, 0);
    // SAFETY: the record is in a slot.
    unsafe {
        let record = slot.written();
        (*record).old_state = Typed::load(tw, config!(socket.tw_substate));
        (*record).new_state = state::CLOSE;
    }
    slot.submit();
}
