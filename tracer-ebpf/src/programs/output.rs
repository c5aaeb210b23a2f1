//! Output: the program's lane on this CPU, or the ring buffer where there is no lane; when to wake the reader; counting
//! records that are dropped because a buffer is full.

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
use tracer_ebpf::{CHUNK, Counters, KnownNetns, Lane, LaneHeader, ROOM, Record, STRIDE, Wire, lane_of};

use crate::config;

/// The state of each lane. User space sets the number of elements before loading.
#[btf_map]
static LANES: Array<LaneHeader, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The chunks of all lanes. User space sets the number of elements before loading.
#[btf_map]
static CHUNKS: Array<[u64; STRIDE / 8], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Takes records that cannot use a lane, and wakes the reader. User space sets the size before loading. The map has no
/// value type, as libbpf requires for ring buffers.
#[btf_map]
static RING: RingBuf<(), 4096> = RingBuf::new();

#[btf_map]
static COUNTERS: Array<Counters, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// A program's lane on the CPU that it runs on.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    pub(crate) lane: Lane,
    /// Null for a CPU that was added after the start. A header of size 0 has no lane.
    pub(crate) header: Option<*mut LaneHeader>,
}

impl Writer {
    /// Finds this CPU's header of `lane`.
    #[inline(always)]
    pub(crate) fn on_this_cpu(lane: Lane) -> Self {
        // SAFETY: the helper has no conditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        Self { lane, header: LANES.get_ptr_mut(lane_of(cpu, lane)) }
    }
}

/// A record being written in place, with room for the longest. It must be [`submit`](Slot::submit)ted or
/// [given back](Slot::give_back).
pub(crate) struct Slot {
    /// The program's lane, also when the slot is in the ring.
    lane: Lane,
    at: *mut u8,
    /// Where the next part begins. A pointer and not a length: the verifier would backtrack through the program for each
    /// scalar that is added to a pointer.
    end: *mut u8,
    /// Whether the slot is in a lane; otherwise it is in the ring buffer. The fields below belong to the lane and are set in
    /// both cases: up to 6.2 the verifier rejects moves of uninitialised values.
    in_lane: bool,
    header: *mut LaneHeader,
    head: u64,
    pending: u64,
}

/// Why a record cannot use the lane.
pub(crate) enum NoSlot {
    /// The lane is full.
    Full,
    /// This CPU has no lane, or the program has interrupted itself while it writes to it.
    NoLane,
}

impl Slot {
    /// Reserves room for a record in the program's lane.
    #[inline(always)]
    pub(crate) fn in_lane(writer: Writer) -> Result<Self, NoSlot> {
        let Writer { lane, header: Some(header) } = writer else {
            return Err(NoSlot::NoLane);
        };
        // SAFETY: the pointer is to a live map value. The reads of `busy` and `tail` are volatile: an interrupted run of this
        // program changes `busy`, and user space changes `tail`.
        unsafe {
            if (*header).size == 0 || (&raw const (*header).busy).read_volatile() != 0 {
                return Err(NoSlot::NoLane);
            }
            (&raw mut (*header).busy).write_volatile(1);
            // Read after `busy` is set: until then an inner run of the program may move it.
            let head = (&raw const (*header).head).read_volatile();
            let pending = head - (&raw const (*header).tail).read_volatile();
            let size = u64::from((*header).size);
            let index = (*header).first_chunk + ((head & (size - 1)) / CHUNK as u64) as u32;
            let offset = head & (CHUNK as u64 - 8);
            if pending + ROOM as u64 <= size
                && let Some(chunk) = CHUNKS.get_ptr_mut(index)
            {
                let at = chunk.cast::<u8>().add(offset as usize);
                return Ok(Self { lane, at, end: at, in_lane: true, header, head, pending });
            }
            (&raw mut (*header).busy).write_volatile(0);
        }
        Err(NoSlot::Full)
    }

    /// Reserves room for a record in the ring buffer. Returns `None` when it is full.
    #[inline(always)]
    pub(crate) fn in_ring(lane: Lane) -> Option<Self> {
        // SAFETY: the map is a ring buffer.
        let at = unsafe { bpf_ringbuf_reserve(ring(), ROOM as u64, 0) }.cast::<u8>();
        let header = core::ptr::null_mut();
        (!at.is_null()).then_some(Self { lane, at, end: at, in_lane: false, header, head: 0, pending: 0 })
    }

    /// The lane of the program that writes the record.
    #[inline(always)]
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// The lane's cache of [`tracer_ebpf::REMEMBERED_NETNS`] namespaces. `None` for a slot in the ring buffer.
    #[inline(always)]
    pub(crate) fn known_netns(&self) -> Option<*mut KnownNetns> {
        // SAFETY: the pointer is to a live map value.
        self.in_lane.then(|| unsafe { (&raw mut (*self.header).netns).cast() })
    }

    /// The record itself, which must be written first.
    #[inline(always)]
    pub(crate) fn record(&mut self) -> *mut Record {
        self.part()
    }

    /// The record, to change fields that are already written.
    #[inline(always)]
    pub(crate) fn written(&mut self) -> *mut Record {
        self.at.cast()
    }

    /// The next part, which the caller must write completely.
    #[inline(always)]
    pub(crate) fn part<T: Wire>(&mut self) -> *mut T {
        let part = self.end;
        // SAFETY: the slot has room for a record with all parts. The assembly hides the constants from the compiler, which
        // would otherwise combine them into one variable offset.
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

    /// Releases the room without writing a record.
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

    /// Makes the record visible to the reader. Wakes the reader only when the pending bytes cross a multiple of the lane's
    /// `wakeup_bytes`: a wakeup costs several times as much as the rest of a program, and the reader polls every few
    /// milliseconds anyway.
    #[inline(always)]
    pub(crate) fn submit(self) {
        if self.in_lane {
            let Self { header, head, .. } = self;
            let length = self.end as u64 - self.at as u64;
            // SAFETY: the pointer is to a live map value. The empty assembly keeps the compiler's order, the record before the
            // position. Where the processor does not keep the order of stores, the reader waits until both are visible.
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

/// Forces a wakeup of the reader by reserving and discarding an empty record in the ring buffer. If the ring is full, the
/// records that filled it have already woken the reader.
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

/// Counts a record that the program of this lane drops because the buffer is full.
#[inline(always)]
pub(crate) fn count_lost(lane: Lane) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is to a live map value.
        unsafe {
            increment(match lane {
                Lane::Transition | Lane::TransitionTwin => &raw mut (*counters).transitions_lost,
                _ => &raw mut (*counters).others_lost,
            });
        }
    }
}

/// Counts a transition for which the twin program found no receipt.
#[inline(always)]
pub(crate) fn count_twin_taken() {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the pointer is to a live map value.
        unsafe { increment(&raw mut (*counters).twin_taken) };
    }
}

/// Increments a counter that several CPUs may change at the same time.
///
/// # Safety
///
/// `counter` points into a live map value.
#[inline(always)]
unsafe fn increment(counter: *mut u64) {
    // `core` has no atomic addition for this target; the instruction exists since 3.18.
    // SAFETY: as the caller promises.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64) };
}
