//! Accepted connections: when `accept()` returns, and to which process.

use tracer_ebpf::{Lane, RecordKind};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    netns,
    output::Writer,
    process,
};

/// Records that `accept()` returns the connection `sk`, a `struct sock *`; null when it fails.
#[inline(always)]
pub(crate) fn returned(sk: u64) {
    if sk == 0 {
        return;
    }
    let Some(caller) = process::current() else {
        return;
    };
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(Writer::on_this_cpu(Lane::Accepted), sk)
    else {
        return;
    };
    let port = Typed::load::<u16>(sk, config!(socket.skc_num));
    let ends = Endpoints::of_common::<Typed>(sk, port);
    endpoints::write_base(&mut slot, RecordKind::Accepted, sk, netns, ends, caller.flags());
    caller.write(&mut slot);
    slot.submit();
}
