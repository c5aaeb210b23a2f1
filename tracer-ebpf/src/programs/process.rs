//! The process that caused an event.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_comm, bpf_get_current_task_btf},
};
use tracer_ebpf::{Process, tcp_state as state};

use crate::{
    config,
    memory::{Memory as _, Typed},
    output::Slot,
};

/// Whether the current task caused the transition.
///
/// All other transitions run in softirq context, on a timer or on the socket's backlog, where the current task is
/// unrelated: on loopback it is often the peer, which is plausible but wrong. `error` is `sk_err`, which a local abort does
/// not set.
#[inline(always)]
pub(crate) fn caused_transition(old: u8, new: u8, error: Option<u16>) -> bool {
    match (old, new) {
        (state::CLOSE, state::SYN_SENT | state::LISTEN)
        | (state::LISTEN, state::CLOSE)
        | (state::ESTABLISHED | state::SYN_RECV, state::FIN_WAIT1)
        | (state::CLOSE_WAIT, state::LAST_ACK) => true,
        (state::SYN_SENT | state::ESTABLISHED | state::CLOSE_WAIT, state::CLOSE) => {
            matches!(error, Some(0 | ECONNABORTED))
        }
        _ => old == new,
    }
}

/// `ss -K` sets this error in its own process context (`tcp_abort`).
const ECONNABORTED: u16 = 103;

/// Writes the current process as the part for [`tracer_ebpf::flags::PROCESS`].
#[inline(always)]
pub(crate) fn write_current(slot: &mut Slot) {
    let process = slot.part::<Process>();
    if config!(typed_task) != 0 {
        // Plain loads from the task cost a tenth of the three helpers.
        // SAFETY: the helper has no conditions; the slot has room for all parts.
        unsafe {
            let task = bpf_get_current_task_btf() as u64;
            (*process).tgid = Typed::load(task, config!(socket.task_tgid));
            let cred = Typed::load::<u64>(task, config!(socket.task_cred));
            (*process).uid = Typed::load(cred, config!(socket.cred_uid));
            (&raw mut (*process).comm).cast::<[u64; 2]>().write(Typed::load(task, config!(socket.task_comm)));
        }
        return;
    }
    // SAFETY: the slot has room for all parts; the helper writes at most the 16 bytes of `comm`.
    unsafe {
        (*process).tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*process).uid = bpf_get_current_uid_gid() as u32;
        bpf_get_current_comm((&raw mut (*process).comm).cast(), 16);
    }
}
