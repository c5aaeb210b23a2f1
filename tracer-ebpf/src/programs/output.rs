//! The way out: a lane of the program on this CPU, the ring buffer where there is none, when either wakes its reader,
//! and what is counted when the one that is taken is full.

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RINGBUF_HDR_SZ,
    },
    btf_maps::{Array, RingBuf},
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ringbuf_discard, bpf_ringbuf_query, bpf_ringbuf_reserve,
        bpf_ringbuf_submit,
    },
    macros::btf_map,
};
use tracer_ebpf::{CHUNK, Counters, KnownNetns, LaneHeader, ROOM, Record, RecordKind, STRIDE, Wire, lane_of};

use crate::config;

/// The state of each lane. User space sets the real number before loading.
#[btf_map]
static LANES: Array<LaneHeader, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What the lanes consist of. User space sets the real number before loading.
#[btf_map]
static CHUNKS: Array<[u64; STRIDE / 8], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// For records that have no lane, and to wake the reader. User space sets the real size before loading. Without a
/// type, as libbpf demands of ring buffers.
#[btf_map]
static RING: RingBuf<(), 4096> = RingBuf::new();

#[btf_map]
static COUNTERS: Array<Counters, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// A record being written in place, with room for the longest. It must be [`submit`](Slot::submit)ted or
/// [given back](Slot::give_back).
pub(crate) struct Slot {
    at: *mut u8,
    /// Where the next part goes. A pointer and not a length: for every number that is added to a pointer the verifier
    /// goes back over all that led to it.
    end: *mut u8,
    /// Of a lane and not of the ring. What follows is of the lane, and otherwise set all the same: up to 6.2 the verifier
    /// refuses to move what was never written.
    in_lane: bool,
    header: *mut LaneHeader,
    head: u64,
    pending: u64,
}

/// Why a record cannot take a lane.
pub(crate) enum NoSlot {
    /// The lane is full.
    Full,
    /// This CPU has none, or the program has interrupted itself while it writes there.
    NoLane,
}

impl Slot {
    /// Takes room for a record in the lane of its kind.
    #[inline(always)]
    pub(crate) fn in_lane(kind: RecordKind) -> Result<Self, NoSlot> {
        // SAFETY: the helper has no conditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let Some(header) = LANES.get_ptr_mut(lane_of(cpu, kind)) else {
            return Err(NoSlot::NoLane);
        };
        // SAFETY: the pointer is to a live map value. `busy` and `tail` are read where they are written: the one may be
        // set by the program that this one has interrupted, the other by user space.
        unsafe {
            if (*header).size == 0 || (&raw const (*header).busy).read_volatile() != 0 {
                return Err(NoSlot::NoLane);
            }
            (&raw mut (*header).busy).write_volatile(1);
            // Not before `busy` is set: an inner run of the program moves it.
            let head = (&raw const (*header).head).read_volatile();
            let pending = head - (&raw const (*header).tail).read_volatile();
            let size = u64::from((*header).size);
            let index = (*header).first_chunk + ((head & (size - 1)) / CHUNK as u64) as u32;
            let offset = head & (CHUNK as u64 - 8);
            if pending + ROOM as u64 <= size
                && let Some(chunk) = CHUNKS.get_ptr_mut(index)
            {
                let at = chunk.cast::<u8>().add(offset as usize);
                return Ok(Self { at, end: at, in_lane: true, header, head, pending });
            }
            (&raw mut (*header).busy).write_volatile(0);
        }
        Err(NoSlot::Full)
    }

    /// Takes room for a record in the ring buffer; `None` when it is full.
    #[inline(always)]
    pub(crate) fn in_ring() -> Option<Self> {
        // SAFETY: the map is a ring buffer.
        let at = unsafe { bpf_ringbuf_reserve(ring(), ROOM as u64, 0) }.cast::<u8>();
        let header = core::ptr::null_mut();
        (!at.is_null()).then_some(Self { at, end: at, in_lane: false, header, head: 0, pending: 0 })
    }

    /// Namespaces that this program remembers on this CPU; as many as [`tracer_ebpf::REMEMBERED_NETNS`].
    #[inline(always)]
    pub(crate) fn known_netns(&self) -> Option<*mut KnownNetns> {
        // SAFETY: the pointer is to a live map value.
        self.in_lane.then(|| unsafe { (&raw mut (*self.header).netns).cast() })
    }

    /// The record itself, the first to be written.
    #[inline(always)]
    pub(crate) fn record(&mut self) -> *mut Record {
        self.part()
    }

    /// The record, to change what has been written of it.
    #[inline(always)]
    pub(crate) fn written(&mut self) -> *mut Record {
        self.at.cast()
    }

    /// The next part, to be written whole.
    #[inline(always)]
    pub(crate) fn part<T: Wire>(&mut self) -> *mut T {
        let part = self.end;
        // SAFETY: the room is for a record with every part. The compiler is not to know what is added, or it would add
        // the numbers first.
        unsafe {
            core::arch::asm!(
                "{0} += {1}",
                inout(reg) self.end,
                const size_of::<T>(),
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        part.cast()
    }

    /// Gives the room back unused.
    #[inline(always)]
    pub(crate) fn give_back(self) {
        if self.in_lane {
            // SAFETY: the pointer is to a live map value.
            unsafe { (&raw mut (*self.header).busy).write_volatile(0) };
        } else {
            // SAFETY: the room is from the ring buffer.
            unsafe { bpf_ringbuf_discard(self.at.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
        }
    }

    /// Hands the record to the reader, who is woken only when what is pending crosses a multiple of the lane's
    /// `wakeup_bytes`: a wake-up costs several times what the rest of a program does, and the reader looks by
    /// itself every few milliseconds.
    #[inline(always)]
    pub(crate) fn submit(self) {
        if self.in_lane {
            let Self { header, head, .. } = self;
            let length = self.end as u64 - self.at as u64;
            // SAFETY: the pointer is to a live map value. The record is written before the position says so: the
            // compiler is held to that here, and the processor by itself, or there would be no lanes.
            let step = unsafe {
                core::arch::asm!("", options(nostack, preserves_flags));
                (&raw mut (*header).head).write_volatile(head + length);
                (&raw mut (*header).busy).write_volatile(0);
                u64::from((*header).wakeup_bytes)
            };
            let pending = self.pending + length;
            if pending >= step && pending & (step - 1) < length {
                wake();
            }
        } else {
            // SAFETY: the map is a ring buffer, and the room is from it.
            unsafe {
                let pending = bpf_ringbuf_query(ring(), u64::from(BPF_RB_AVAIL_DATA));
                let step = u64::from(config!(wakeup_bytes));
                let taken = ROOM as u64 + u64::from(BPF_RINGBUF_HDR_SZ);
                let crossed = pending >= step && pending & (step - 1) < taken;
                let flags = if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
                bpf_ringbuf_submit(self.at.cast(), u64::from(flags));
            }
        }
    }
}

fn ring() -> *mut core::ffi::c_void {
    (&raw const RING).cast_mut().cast()
}

/// Wakes the reader through the ring buffer with a record that it does not get to see. Where the ring is full, what
/// filled it has woken the reader.
#[inline(always)]
fn wake() {
    // SAFETY: the map is a ring buffer, and the room is from it.
    unsafe {
        let room = bpf_ringbuf_reserve(ring(), 8, 0);
        if !room.is_null() {
            bpf_ringbuf_discard(room, u64::from(BPF_RB_FORCE_WAKEUP));
        }
    }
}

/// Counts a record of this kind that found no room.
#[inline(always)]
pub(crate) fn lost(kind: RecordKind) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is to a live map value; the addition is atomic because several CPUs may lose
        // records at once.
        unsafe {
            let counter = match kind {
                RecordKind::Transition => &raw mut (*counters).transitions_lost,
                _ => &raw mut (*counters).others_lost,
            };
            // `core` offers no atomic addition for this target; the instruction exists since 3.18.
            core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64);
        }
    }
}
