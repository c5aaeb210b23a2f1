//! The first read and the first write of each connection, and the processes that make them. Where one process listens and
//! another serves, the reader is the process that serves.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use tracer_ebpf::{Lane, RecordKind, first_use};

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

/// Connections whose first read or write is still to come, indexed by the socket's hash: the socket's address plus the bits
/// of [`first_use`] that are to come. A socket is aligned to 8 bytes at least, so the bits do not change the address.
///
/// A later connection may overwrite the slot of an earlier one; the earlier connection's first uses then stay unknown. So
/// the array needs no lock, cannot fill up and needs no cleanup, and a lookup adds little to each read and write on the
/// host.
#[btf_map]
static UNUSED: Array<u64, { SLOTS as usize }> = Array::new();

/// Returns the slot of a socket, by the hash of the 4-tuple that the kernel stores in it: the verifier does not allow an
/// index that is derived from a pointer.
#[inline(always)]
fn slot(sk: u64) -> Option<*mut u64> {
    UNUSED.get_ptr_mut(Typed::load::<u32>(sk, config!(socket.skc_hash)) & (SLOTS - 1))
}

/// Adds a connection at ESTABLISHED.
#[inline(always)]
pub(crate) fn expect(sk: u64) {
    if config!(first_uses) != 0
        && let Some(slot) = slot(sk)
    {
        // The verifier allows no other arithmetic on a pointer than this.
        // SAFETY: a live map value; the store of an aligned word is atomic.
        unsafe { slot.write_volatile(sk + u64::from(config!(first_uses))) };
    }
}

/// Reports the current process if this is the first read from the socket `sk`, a `struct sock *`, by a process.
#[inline(always)]
pub(crate) fn read(sk: u64) {
    used(sk, first_use::READ, Lane::FirstRead, RecordKind::FirstRead);
}

/// Reports the current process if this is the first write to the socket `sk`, a `struct sock *`, by a process. `result` is
/// the call's: the bytes written, or a negative errno.
#[inline(always)]
pub(crate) fn written(sk: u64, result: i32) {
    if result > 0 {
        used(sk, first_use::WRITE, Lane::FirstWrite, RecordKind::FirstWrite);
    }
}

#[inline(always)]
fn used(sk: u64, bit: u32, lane: Lane, kind: RecordKind) {
    let Some(slot) = slot(sk) else {
        return;
    };
    // SAFETY: as above.
    let unused = unsafe { slot.read_volatile() };
    if unused & !u64::from(first_use::READ | first_use::WRITE) != sk || unused & u64::from(bit) == 0 {
        return;
    }
    let Some(caller) = process::current() else {
        return;
    };
    // Of several concurrent users more than one may pass, also of both kinds; user space takes the first report.
    // SAFETY: as above.
    unsafe { slot.write_volatile(unused & !u64::from(bit)) };
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(Writer::on_this_cpu(lane), sk) else {
        return;
    };
    let ends = Endpoints::of_common::<Typed>(sk, 0);
    endpoints::write_base(&mut slot, kind, sk, netns, ends, caller.flags());
    caller.write(&mut slot);
    slot.submit();
}
