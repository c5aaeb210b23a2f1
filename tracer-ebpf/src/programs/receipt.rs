//! The receipt: how the twin program knows which transitions the first program has handled.
//!
//! The kernel does not run a tracing program on a CPU where that program is already active (`__bpf_trace_run`,
//! `prog->active`). An interrupt that arrives while the program runs can process a batch of packets, and the kernel skips
//! the program for every transition of the batch. The check is per program, so a second program on the same tracepoint,
//! the twin, still runs. The kernel calls the programs in the order in which they were attached: the first program, A,
//! then the twin, B.
//!
//! # Protocol
//!
//! One word per CPU, [`LaneHeader::receipt`], contains `socket + new state`: sockets are aligned to 64 bytes, so the sum
//! identifies both.
//!
//! - A, before every filter: `receipt = id`. Then A records the transition.
//! - B: if `receipt == id`, sets it to 0 and returns. Otherwise B counts `twin_taken`, before every filter, and records the
//!   transition with `flags::TWIN`.
//!
//! B records when in doubt. User space drops a TWIN record whose socket's previous transition has the same two states: a
//! socket never makes the same transition twice in a row, except X→X at `close()` after `shutdown()`, which happens once.
//! So `twin_taken - dropped` transitions were recovered of those that the kernel skipped A for.
//!
//! # Why no transition is lost where tracepoints are not preemptible
//!
//! Only an interrupt can come between two instructions of A and B, and it ends before they continue. The outer event
//! below is the interrupted one, the inner events are those of the interrupt.
//!
//! | the interrupt arrives | A for the inner event | B for the inner event | result |
//! |---|---|---|---|
//! | in A, before or after the store | skipped | the receipt differs: records | exact |
//! | between A and B | runs | clears the receipt | B records the outer event again: a duplicate |
//! | in B, before the comparison | runs | skipped, nothing to do | B records the outer event again: a duplicate |
//! | in B, after the comparison | runs | skipped, nothing to do | a stale receipt until A runs again on this CPU |
//! | in B, while it records in softirq context | – | – | only a hard interrupt: no TCP there |
//!
//! A stale receipt loses a transition only if the same socket makes the same transition again, after the rest of its cycle
//! of states ran on other CPUs, and an interrupt delivers that transition on this CPU inside A's first instructions, before
//! A's store and before A handles any other event here. That transition is counted as skipped: the kernel counts a miss of
//! A, and B does not count `twin_taken`.
//!
//! # Where tracepoints are preemptible (from 7.x, and PREEMPT_RT)
//!
//! Programs run with migration disabled, so each run of A or B uses one CPU's word from start to end. Between instructions
//! any number of other tasks may run on the CPU, and the task may change the CPU between A and B.
//!
//! - A is preempted: the kernel skips A for every event on this CPU until the task continues. For each, B finds a receipt of
//!   another socket and records. B does not change a receipt that differs, so when the task continues, its own B still
//!   finds its receipt.
//! - B is preempted: A runs for the other tasks' events, the kernel skips B, and nothing is lost. A's stores overwrite the
//!   receipt: if B had not compared yet, it records a duplicate.
//! - A and B are preempted at the same time, in two tasks: the kernel skips both for a third task's events. Those are the only
//!   losses. A's misses count them and `twin_taken` does not, so they are reported as skipped.
//! - The task moves to another CPU between A and B: B finds another receipt and records a duplicate. The receipt on the old
//!   CPU is stale until A runs there again. It can only suppress the same socket's same transition, as above; the socket
//!   lock prevents another task from making that transition in the meantime.
//!
//! A and B can each be interrupted in the middle of a record by a run of the other, so they have separate lanes.
//!
//! # Before 6.1
//!
//! The kernel does not skip these programs. An interrupt in A starts A again; the inner run overwrites the receipt, its B
//! clears it, and B for the outer event records a duplicate. Duplicates are the only effect.
//!
//! # A classic tracepoint program as A
//!
//! The kernel skips it when any classic tracepoint or kprobe program is active on the CPU (`bpf_prog_active`). That check
//! does not apply to B, a raw tracepoint program. The table above holds with more causes for a skip.

use tracer_ebpf::Lane;

use crate::output::Writer;

/// The value of the receipt for a transition. `socket` is the socket's address, of any type that the verifier knows.
#[inline(always)]
fn id(socket: u64, new: u8) -> u64 {
    socket + u64::from(new)
}

/// Records that the first program handles this transition on this CPU.
#[inline(always)]
pub(crate) fn leave(first: &Writer, socket: u64, new: u8) {
    if let Some(header) = first.header {
        // SAFETY: the pointer is to a live map value, and an aligned word is written whole.
        unsafe { (&raw mut (*header).receipt).write_volatile(id(socket, new)) };
    }
}

/// Whether the first program has handled this transition on this CPU; clears the receipt if so. True also on a CPU without a
/// lane header, which was added after the start: without a receipt every record there would be a duplicate.
#[inline(always)]
pub(crate) fn take(socket: u64, new: u8) -> bool {
    let Some(header) = Writer::on_this_cpu(Lane::Transition).header else {
        return true;
    };
    // SAFETY: as above.
    unsafe {
        let receipt = &raw mut (*header).receipt;
        let handled = receipt.read_volatile() == id(socket, new);
        if handled {
            receipt.write_volatile(0);
        }
        handled
    }
}
