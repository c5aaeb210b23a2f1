//! Who first reads from an accepted connection: the process that serves it, where the one that
//! listens does not.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use tracer_ebpf::{Record, RecordKind};

use crate::{
    config,
    endpoints::{self, Endpoints},
    memory::Typed,
    output::{Lost, Slot},
    process,
};

/// Accepted connections that nobody has read from yet, by socket. When it is full, connections keep
/// their listener's owner.
#[btf_map]
static UNREAD: HashMap<u64, u8, 16384> = HashMap::new();

/// An accepted connection is established.
#[inline(always)]
pub(crate) fn expect(sk: u64) {
    if config!(first_reads) != 0 {
        // Full is no error: see above.
        let _ = UNREAD.insert(sk, 1, 0);
    }
}

/// A socket is closed.
#[inline(always)]
pub(crate) fn forget(sk: u64) {
    if config!(first_reads) != 0 {
        // Most have been read from.
        let _ = UNREAD.remove(sk);
    }
}

/// A process has taken data from the socket `sk`, a `struct sock *`.
#[inline(always)]
pub(crate) fn read(sk: u64) {
    if config!(first_reads) == 0 {
        return;
    }
    // Removing is the only look: of several readers at once, one wins.
    if UNREAD.remove(sk).is_err() {
        return;
    }
    let netns = endpoints::netns::<Typed>(sk);
    let Some(mut slot) = Slot::<Record>::reserve(Lost::Other) else {
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the slot is a record in the ring buffer.
    unsafe {
        let ends = Endpoints::of_common::<Typed>(sk, 0);
        endpoints::write_base(record, RecordKind::FirstRead, sk, netns, ends);
        process::write_current(record);
    }
    slot.submit();
}
