//! Who first reads from an accepted connection: the process that serves it, where the one that
//! listens does not.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use tracer_ebpf::{RecordKind, flags};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::{Memory as _, Typed},
    netns, process,
};

/// A power of two.
const SLOTS: u32 = 1 << 16;

/// Accepted connections that nobody has read from yet, each in the slot its hash falls on.
///
/// A later connection takes an earlier one's slot: that one keeps its listener's owner. So there is
/// nothing to lock, to fill up or to clean, and looking costs next to nothing on each read of every
/// connection of the host.
#[btf_map]
static UNREAD: Array<u64, { SLOTS as usize }> = Array::new();

/// By the hash of the connection's ends, which the kernel keeps for its own table: the verifier lets
/// nobody calculate with an address.
#[inline(always)]
fn slot(sk: u64) -> Option<*mut u64> {
    UNREAD.get_ptr_mut(Typed::load::<u32>(sk, config!(socket.skc_hash)) & (SLOTS - 1))
}

/// An accepted connection is established.
#[inline(always)]
pub(crate) fn expect(sk: u64) {
    if config!(first_reads) != 0
        && let Some(slot) = slot(sk)
    {
        // SAFETY: a live map value; an aligned word is written whole.
        unsafe { slot.write_volatile(sk) };
    }
}

/// A process has taken data from the socket `sk`, a `struct sock *`.
#[inline(always)]
pub(crate) fn read(sk: u64) {
    let Some(slot) = slot(sk) else {
        return;
    };
    // Of several readers at once more than one may pass; the first to be told counts.
    // SAFETY: as above.
    unsafe {
        if slot.read_volatile() != sk {
            return;
        }
        slot.write_volatile(0);
    }
    let Some((mut slot, netns)) = netns::slot_if_wanted::<Typed>(RecordKind::FirstRead, sk) else {
        return;
    };
    let ends = Endpoints::of_common::<Typed>(sk, 0);
    endpoints::write_base(&mut slot, RecordKind::FirstRead, sk, netns, ends, flags::PROCESS);
    process::write_current(&mut slot);
    slot.submit();
}
