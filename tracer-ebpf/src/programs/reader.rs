//! The process that first reads from an accepted connection. Where one process listens and another serves, this is the
//! process that serves.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use tracer_ebpf::{Lane, RecordKind};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    netns,
    output::Writer,
    process,
};

/// A power of two.
const SLOTS: u32 = 1 << 16;

/// Accepted connections that no process has read from yet, indexed by the socket's hash.
///
/// A later connection may overwrite the slot of an earlier one; the earlier connection then keeps its listener's owner. So
/// the array needs no lock, cannot fill up and needs no cleanup, and a lookup adds little to each read on the host.
#[btf_map]
static UNREAD: Array<u64, { SLOTS as usize }> = Array::new();

/// Returns the slot of a socket, by the hash of the 4-tuple that the kernel stores in it: the verifier does not allow an
/// index that is derived from a pointer.
#[inline(always)]
fn slot(sk: u64) -> Option<*mut u64> {
    UNREAD.get_ptr_mut(Typed::load::<u32>(sk, config!(socket.skc_hash)) & (SLOTS - 1))
}

/// Adds an accepted connection at ESTABLISHED.
#[inline(always)]
pub(crate) fn expect(sk: u64) {
    if config!(first_reads) != 0
        && let Some(slot) = slot(sk)
    {
        // SAFETY: a live map value; the store of an aligned word is atomic.
        unsafe { slot.write_volatile(sk) };
    }
}

/// Reports the current process if this is the first read from the socket `sk`, a `struct sock *`, by a process.
#[inline(always)]
pub(crate) fn read(sk: u64) {
    let Some(slot) = slot(sk) else {
        return;
    };
    // SAFETY: as above.
    if unsafe { slot.read_volatile() } != sk {
        return;
    }
    let Some(caller) = process::current() else {
        return;
    };
    // Of several concurrent readers more than one may pass; user space takes the first report.
    // SAFETY: as above.
    unsafe { slot.write_volatile(0) };
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(Writer::on_this_cpu(Lane::FirstRead), sk)
    else {
        return;
    };
    let ends = Endpoints::of_common::<Typed>(sk, 0);
    endpoints::write_base(&mut slot, RecordKind::FirstRead, sk, netns, ends, caller.flags());
    caller.write(&mut slot);
    slot.submit();
}
