//! The way out: the ring buffer, when it wakes its reader, and what is counted when it is full.

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RINGBUF_HDR_SZ,
    },
    btf_maps::{Array, RingBuf},
    helpers::generated::bpf_ringbuf_query,
    macros::btf_map,
    maps::ring_buf::RingBufEntry,
};
use tracer_ebpf::{Counters, Wire};

use crate::config;

/// User space sets the real size before loading. Without a type, as libbpf demands of ring buffers.
#[btf_map]
static EVENTS: RingBuf<(), 4096> = RingBuf::new();

#[btf_map]
static COUNTERS: Array<Counters, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Which counter a lost record adds to.
#[derive(Clone, Copy)]
pub(crate) enum Lost {
    Transition,
    Other,
}

/// A record being written in place in the ring buffer. It must be [`submit`](Slot::submit)ted.
pub(crate) struct Slot<T: 'static> {
    entry: RingBufEntry<T>,
}

impl<T: Wire> Slot<T> {
    /// Takes room for a `T`, or counts it as lost.
    #[inline(always)]
    pub(crate) fn reserve(lost: Lost) -> Option<Self> {
        if let Some(entry) = EVENTS.reserve_untyped::<T>(0) {
            return Some(Self { entry });
        }
        if let Some(counters) = COUNTERS.get_ptr_mut(0) {
            // SAFETY: the pointer is to a live map value; the addition is atomic because several
            // CPUs may lose records at once.
            unsafe {
                let counter = match lost {
                    Lost::Transition => &raw mut (*counters).transitions_lost,
                    Lost::Other => &raw mut (*counters).others_lost,
                };
                // `core` offers no atomic addition for this target; the instruction exists since 3.18.
                core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64);
            }
        }
        None
    }

    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.entry.as_mut_ptr()
    }

    /// Hands the record to the reader, who is woken only when the pending data crosses a multiple of
    /// `wakeup_bytes`: a wake-up costs several times what the rest of a program does, and the
    /// reader looks by itself every few milliseconds.
    #[inline(always)]
    pub(crate) fn submit(self) {
        // SAFETY: the map is a ring buffer.
        let pending =
            unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA)) };
        let step = u64::from(config!(wakeup_bytes));
        let crossed =
            pending >= step && pending & (step - 1) < (size_of::<T>() as u64 + u64::from(BPF_RINGBUF_HDR_SZ));
        self.entry.submit(u64::from(if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }));
    }
}
