//! The process that caused an event.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf},
};
use tracer_ebpf::{ABSENT, Process, ThreadName, flags, tcp_state as state};

use crate::{
    config,
    memory::{Memory, Probed, Typed},
    output::Slot,
};

/// Whether the current task may have caused the transition.
///
/// All other transitions run in softirq context, on a timer or on the socket's backlog, where the current task is
/// unrelated: on loopback it is often the peer, which is plausible but wrong. `error` is `sk_err`, which a local abort does
/// not set, or [`UNKNOWN_ERROR`].
#[inline(always)]
fn caused_transition(old: u8, new: u8, error: u16) -> bool {
    match (old, new) {
        (state::CLOSE, state::SYN_SENT | state::LISTEN)
        | (state::LISTEN, state::CLOSE)
        | (state::ESTABLISHED | state::SYN_RECV, state::FIN_WAIT1)
        | (state::CLOSE_WAIT, state::LAST_ACK) => true,
        (state::SYN_SENT | state::ESTABLISHED | state::CLOSE_WAIT, state::CLOSE) => {
            matches!(error, 0 | ECONNABORTED)
        }
        _ => old == new,
    }
}

/// No errno: the program cannot read `sk_err`.
pub(crate) const UNKNOWN_ERROR: u16 = u16::MAX;

/// `ss -K` sets this error in its own process context (`tcp_abort`).
const ECONNABORTED: u16 = 103;

/// `PF_KTHREAD`, `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A process that caused an event.
pub(crate) struct Caller {
    /// The current task; 0 where the program cannot read it.
    task: u64,
    /// 0 if no process caused the event.
    tgid: u32,
    /// Whether the task is not the leader of its thread group, and the program can read the leader.
    is_thread: bool,
}

/// Returns the process that caused a transition of the socket `sk`; [`Caller::NONE`] when the transition was not a process's
/// call. Not an `Option`, because its content would be undefined on paths that the compiler knows not to use, and the
/// verifier refuses those.
///
/// A softirq can make some of these transitions too: `tcp_rcv_state_process` performs a pending `shutdown()` when the
/// handshake completes. The processes' calls own the socket's lock, and a softirq does not.
#[inline(always)]
pub(crate) fn of_transition<M: Memory>(sk: u64, old: u8, new: u8, error: u16) -> Caller {
    if !caused_transition(old, new, error) {
        return Caller::NONE;
    }
    let closing = new == state::FIN_WAIT1 || new == state::LAST_ACK || old == new;
    if closing
        && config!(socket.sk_lock_owned) != ABSENT
        && M::load::<u32>(sk, config!(socket.sk_lock_owned)) == 0
    {
        return Caller::NONE;
    }
    current().unwrap_or(Caller::NONE)
}

/// Whether the offsets of a task's fields are known.
#[inline(always)]
fn is_known() -> bool {
    config!(socket.task_flags) != ABSENT
        && config!(socket.task_pid) != ABSENT
        && config!(socket.task_group_leader) != ABSENT
}

/// Whether the current task is read as a typed structure.
#[inline(always)]
fn is_typed() -> bool {
    is_known() && config!(typed_task) != 0
}

/// Returns the current task's process. `None` when the task is a kernel thread or a CPU's idle task.
#[inline(always)]
pub(crate) fn current() -> Option<Caller> {
    let (task, flags, pid, tgid);
    // SAFETY: the helpers have no conditions.
    unsafe {
        if is_typed() {
            // Plain loads from the task cost a tenth of the helpers.
            task = bpf_get_current_task_btf() as u64;
            flags = Typed::load::<u32>(task, config!(socket.task_flags));
            pid = Typed::load(task, config!(socket.task_pid));
            tgid = Typed::load(task, config!(socket.task_tgid));
        } else {
            let both = bpf_get_current_pid_tgid();
            (pid, tgid) = (both as u32, (both >> 32) as u32);
            if is_known() {
                task = bpf_get_current_task();
                flags = Probed::load(task, config!(socket.task_flags));
            } else {
                (task, flags) = (0, 0);
            }
        }
    }
    if tgid == 0 || flags & PF_KTHREAD != 0 {
        return None;
    }
    Some(Caller { task, tgid, is_thread: is_known() && pid != tgid })
}

impl Caller {
    /// No process.
    const NONE: Self = Self { task: 0, tgid: 0, is_thread: false };

    /// Whether there is a process.
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.tgid != 0
    }

    /// The flags of the parts that [`write`](Self::write) writes.
    #[inline(always)]
    pub(crate) fn flags(&self) -> u32 {
        if self.is_thread { flags::PROCESS | flags::THREAD } else { flags::PROCESS }
    }

    /// Writes the parts for [`flags::PROCESS`] and [`flags::THREAD`].
    #[inline(always)]
    pub(crate) fn write(&self, slot: &mut Slot) {
        let process = slot.part::<Process>();
        // SAFETY: the slot has room for all parts; the helper writes at most the 16 bytes of a `comm`.
        unsafe {
            (*process).tgid = self.tgid;
            let mut comm = (&raw mut (*process).comm).cast::<[u64; 2]>();
            if is_typed() {
                let cred = Typed::load::<u64>(self.task, config!(socket.task_cred));
                (*process).uid = Typed::load(cred, config!(socket.cred_uid));
                if self.is_thread {
                    let leader = Typed::load::<u64>(self.task, config!(socket.task_group_leader));
                    comm.write(Typed::load(leader, config!(socket.task_comm)));
                    comm = slot.part::<ThreadName>().cast();
                }
                comm.write(Typed::load(self.task, config!(socket.task_comm)));
            } else {
                (*process).uid = bpf_get_current_uid_gid() as u32;
                if self.is_thread {
                    let leader = Probed::load::<u64>(self.task, config!(socket.task_group_leader));
                    comm.write(Probed::load(leader, config!(socket.task_comm)));
                    comm = slot.part::<ThreadName>().cast();
                }
                bpf_get_current_comm(comm.cast(), 16);
            }
        }
    }
}
