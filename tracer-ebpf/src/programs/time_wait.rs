//! The end of a mini-socket: what the kernel keeps of a connection in TIME_WAIT, or in FIN_WAIT2
//! without an application.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{ABSENT, AF_INET6, Record, RecordKind, flags};

use crate::{
    config,
    memory::{Memory as _, Typed},
    output::{Lost, Slot},
};

/// Records that the mini-socket `tw`, a `struct inet_timewait_sock *`, ends.
#[inline(always)]
pub(crate) fn end(tw: u64) {
    if config!(socket.tw_substate) == ABSENT || config!(socket.tw_sport) == ABSENT {
        return;
    }
    let netns = Typed::load::<u32>(Typed::load::<u64>(tw, config!(socket.skc_net)), config!(socket.net_inum));
    let only = config!(only_netns);
    if only != 0 && netns != only {
        return;
    }
    let Some(mut slot) = Slot::<Record>::reserve(Lost::Other) else {
        return;
    };
    let record = slot.as_mut_ptr();
    let family = Typed::load::<u16>(tw, config!(socket.skc_family)) as u8;
    let (local, remote) = if family == AF_INET6 {
        (Typed::load(tw, config!(socket.skc_v6_rcv_saddr)), Typed::load(tw, config!(socket.skc_v6_daddr)))
    } else {
        (
            [u64::from(Typed::load::<u32>(tw, config!(socket.skc_rcv_saddr))), 0],
            [u64::from(Typed::load::<u32>(tw, config!(socket.skc_daddr))), 0],
        )
    };
    // SAFETY: the slot is writable and every field of it is written.
    unsafe {
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).socket = tw;
        (*record).cookie = Typed::load(tw, config!(socket.skc_cookie));
        (*record).cgroup_id = 0;
        (&raw mut (*record).local_address).cast::<[u64; 2]>().write(local);
        (&raw mut (*record).remote_address).cast::<[u64; 2]>().write(remote);
        (&raw mut (*record).comm).cast::<[u64; 2]>().write([0; 2]);
        (*record).flags = flags::NETNS;
        (*record).netns = netns;
        (*record).tgid = 0;
        (*record).uid = 0;
        (*record).accept_queue = 0;
        (*record).accept_queue_limit = 0;
        (*record).local_port = u16::from_be(Typed::load(tw, config!(socket.tw_sport)));
        (*record).remote_port = u16::from_be(Typed::load(tw, config!(socket.skc_dport)));
        (*record).error = 0;
        (*record).shutdown = 0;
        (*record).attempts = 0;
        (*record).kind = RecordKind::TimeWaitEnd as u8;
        (*record).old_state = Typed::load(tw, config!(socket.tw_substate));
        (*record).new_state = tracer_ebpf::tcp_state::CLOSE;
        (*record).family = family;
        (*record).reserved = 0;
    }
    slot.submit();
}
