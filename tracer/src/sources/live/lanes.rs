//! Divides the buffer into lanes, and reads records from them.
//!
//! `tracer_ebpf::LaneHeader` describes a lane.

use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Ebpf;
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use tracer_ebpf::{
    CHUNK, KnownNetns, LANES_PER_CPU, Lane as LaneKind, LaneHeader, REMEMBERED_NETNS, STRIDE, lane_of,
};

use crate::sources::live::mapping::{self, Access, Mapping};

/// The sizes of the lanes and of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// CPUs with lanes.
    pub cpus: u32,
    /// CPUs with lane headers, with lanes or without: the twin program needs the headers.
    pub headers: u32,
    /// Bytes of each lane of transitions, a power of two of at least [`CHUNK`].
    pub transitions: u32,
    /// Bytes of the ring buffer, a power of two of at least a page.
    pub ring: u32,
}

impl Division {
    /// Divides `total` bytes, a power of two of at least a page, among `cpus` CPUs.
    ///
    /// The lanes of transitions get half of it, rounded down to a power of two per CPU. [`lane`](Self::lane) has the
    /// sizes of the other lanes. The ring gets a thirty-second part. It takes records without a lane: from a CPU that was added
    /// later, from a program that interrupts itself (before 6.1), and what exceeds the lane of the twin.
    pub fn of(total: u32, cpus: u32) -> Self {
        let headers = cpus.max(self::cpus());
        if Visibility::of_this_machine().is_none() || cpus == 0 {
            return Self { cpus: 0, headers, transitions: 0, ring: total };
        }
        let share = total / 2 / cpus;
        let transitions = share.checked_ilog2().map_or(0, |bits| 1 << bits).max(CHUNK_BYTES);
        Self { cpus, headers, transitions, ring: (total / 32).max(page_size()) }
    }

    /// Returns the size of a lane of this kind, bytes.
    ///
    /// TIME_WAIT ends in bursts: the timers for a minute fire together every few seconds (`kernel/time/timer.c`).
    pub fn lane(&self, kind: LaneKind) -> u32 {
        let bytes = match kind {
            LaneKind::Transition => self.transitions,
            LaneKind::TimeWaitEnd => self.transitions / 4,
            LaneKind::FirstRead | LaneKind::FirstWrite | LaneKind::Accepted => self.transitions / 8,
            LaneKind::TransitionTwin
            | LaneKind::SynAckRetransmit
            | LaneKind::ResetSent
            | LaneKind::SegmentDropped => self.transitions / 16,
            LaneKind::ResetReceived | LaneKind::AcceptQueueFull => self.transitions / 32,
        };
        bytes.max(CHUNK_BYTES)
    }

    /// Returns the number of elements of the map `LANES`, at least one.
    pub fn lanes(&self) -> u32 {
        (self.headers * LANES_PER_CPU).max(1)
    }

    /// Returns the number of elements of the map `CHUNKS`, at least one.
    pub fn chunks(&self) -> u32 {
        let of_cpu: u32 = LaneKind::ALL.iter().map(|kind| self.lane(*kind) / CHUNK_BYTES).sum();
        (self.cpus * of_cpu).max(1)
    }
}

const CHUNK_BYTES: u32 = 4096;
const _: () = assert!(CHUNK_BYTES as usize == CHUNK);

/// How the reader makes sure that it sees a record whose position it has read.
///
/// A program writes a record and then moves the lane's head. It has no barrier in between: programs have none before 6.15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visibility {
    /// The processor makes stores visible in program order.
    Ordered,
    /// The reader lets every CPU pass a memory barrier after it has read the heads. The barrier is a grace period of RCU
    /// (`kernel/sched/membarrier.c`), within which each CPU executes a full barrier. So what a CPU stored before a head that
    /// the reader has read is visible afterwards.
    Barrier,
}

impl Visibility {
    /// Returns the way of this machine; `None` if it has none, and lanes cannot be used: kernels with CPUs in `nohz_full`
    /// have no such barrier.
    fn of_this_machine() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            return Some(Self::Ordered);
        }
        membarrier_query().contains_command(MembarrierCommand::Global).then_some(Self::Barrier)
    }
}

/// Distance of the prefetch from the next record, bytes.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 256;

fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(CHUNK_BYTES)
}

/// Returns the number of CPUs with lanes: all up to the last present CPU. A CPU that is added later uses the ring.
pub fn cpus() -> u32 {
    // Not the file with the online CPUs, which in a container may be limited to those of the container.
    let folders = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let last =
        folders.filter_map(|folder| folder.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()).max();
    last.map_or_else(
        || std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        |last: u32| last.saturating_add(1),
    )
}

/// All lanes, mapped into memory.
#[derive(Debug)]
pub struct Lanes {
    headers: Mapping,
    chunks: Mapping,
    each: Vec<Lane>,
    visibility: Visibility,
}

/// A lane and its read position.
#[derive(Debug)]
struct Lane {
    /// The index in the map `LANES`.
    index: usize,
    first_chunk: usize,
    /// The size, bytes; a power of two.
    size: u64,
    /// The position of the next record.
    tail: u64,
    /// The last known write position.
    head: u64,
    /// The tail that was last published to the kernel.
    published: u64,
}

impl Lanes {
    /// Maps and initializes the lanes of an object whose programs are not loaded yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn new(ebpf: &Ebpf, division: &Division) -> io::Result<Self> {
        let headers = mapping::array(ebpf, "LANES")?;
        let length = division.lanes() as usize * size_of::<LaneHeader>();
        let headers = Mapping::new(headers, length, Access::Write)?;
        let chunks = mapping::array(ebpf, "CHUNKS")?;
        let chunks = Mapping::new(chunks, division.chunks() as usize * STRIDE, Access::Read)?;
        let mut each = Vec::new();
        let mut first_chunk = 0;
        for cpu in 0..division.cpus {
            for kind in LaneKind::ALL {
                let size = division.lane(kind);
                let index = lane_of(cpu, kind) as usize;
                let header = headers.element::<LaneHeader>(index);
                // SAFETY: the header is inside the mapping, and no program uses it yet.
                unsafe {
                    header.write(LaneHeader {
                        head: 0,
                        size,
                        first_chunk,
                        wakeup_bytes: size / 4,
                        busy: 0,
                        receipt: 0,
                        padding: [0; 4],
                        tail: 0,
                        reader_padding: [0; 7],
                        netns: [KnownNetns::default(); REMEMBERED_NETNS],
                    });
                }
                each.push(Lane {
                    index,
                    first_chunk: first_chunk as usize,
                    size: u64::from(size),
                    tail: 0,
                    head: 0,
                    published: 0,
                });
                first_chunk += size / CHUNK_BYTES;
            }
        }
        // Without a way, there are no lanes to read.
        let visibility = Visibility::of_this_machine().unwrap_or(Visibility::Ordered);
        Ok(Self { headers, chunks, each, visibility })
    }

    /// Reads the write position of each lane. Calls `pending` with each lane that has a record and the time of the
    /// record.
    pub fn refresh(&mut self, mut pending: impl FnMut(usize, u64)) {
        for number in 0..self.each.len() {
            self.each[number].head = self.written(number);
        }
        if self.visibility == Visibility::Barrier && self.each.iter().any(|lane| lane.head != lane.tail) {
            self.wait_until_visible();
        }
        for number in 0..self.each.len() {
            if let Some(time) = self.time(number) {
                pending(number, time);
            }
        }
    }

    /// Waits until every record before a known head is visible.
    fn wait_until_visible(&mut self) {
        // The query has answered that the kernel supports the command, which then does not fail
        // (`SYSCALL_DEFINE3(membarrier)`). If it does, nothing is read: a later pass tries again.
        if membarrier(MembarrierCommand::Global).is_err() {
            for lane in &mut self.each {
                lane.head = lane.tail;
            }
        }
    }

    /// Returns whether a lane is past its wakeup threshold, so that the reader must not block.
    pub fn is_past_wakeup(&self) -> bool {
        (0..self.each.len()).any(|number| {
            let Lane { tail, size, .. } = self.each[number];
            self.written(number) - tail >= size / 4
        })
    }

    fn written(&self, number: usize) -> u64 {
        let header = self.headers.element::<LaneHeader>(self.each[number].index);
        // SAFETY: an aligned word inside the mapping, which the kernel writes in one access.
        unsafe { AtomicU64::from_ptr(&raw mut (*header).head) }.load(Ordering::Acquire)
    }

    /// Returns the time of the next record of a lane; `None` without a record.
    pub fn time(&self, number: usize) -> Option<u64> {
        let bytes = self.next(number);
        bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    /// Returns the written bytes of a lane from its next record on, at most to the last possible end of a record in
    /// this chunk; empty without a record.
    pub fn next(&self, number: usize) -> &[u8] {
        let Lane { first_chunk, size, tail, head, .. } = self.each[number];
        let offset = tail % CHUNK as u64;
        let written = (head - tail).min(STRIDE as u64 - offset);
        // The size is a power of two, so a mask replaces the division, which would be measurable per record.
        let index = first_chunk + usize::try_from((tail & (size - 1)) / CHUNK as u64).unwrap_or_default();
        let chunk = self.chunks.element::<[u8; STRIDE]>(index).cast::<u8>().cast_const();
        let (offset, written) =
            (usize::try_from(offset).unwrap_or_default(), usize::try_from(written).unwrap_or_default());
        // SAFETY: the bytes are inside the chunk. The kernel overwrites them only after the published tail has passed
        // them. After a record that extends past the chunk, the bytes are initialized by earlier records.
        unsafe { std::slice::from_raw_parts(chunk.add(offset), written) }
    }

    /// Marks the next record of a lane, of this length, as read.
    pub fn advance(&mut self, number: usize, length: usize) {
        let lane = &mut self.each[number];
        let chunk = lane.tail / CHUNK as u64;
        // Never past the head, whatever the length of the record.
        lane.tail = (lane.tail + length as u64).min(lane.head);
        self.prefetch(number);
        let lane = &self.each[number];
        // Not for every record, because each store causes a cache miss in the writer, which reads the tail.
        if lane.tail / CHUNK as u64 != chunk {
            self.publish_tail(number);
        }
    }

    /// Prefetches the bytes a few records ahead. They are in another CPU's cache, and the transfer takes longer than
    /// the processing of an event.
    #[cfg(target_arch = "x86_64")]
    fn prefetch(&self, number: usize) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = self.next(number).get(AHEAD..).and_then(<[u8]>::first_chunk::<128>);
        if let Some(lines) = ahead {
            // SAFETY: every x86-64 CPU has the instruction, and it does not access memory architecturally.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(lines.as_ptr().cast());
                _mm_prefetch::<_MM_HINT_T0>(lines[64..].as_ptr().cast());
            }
        }
    }

    /// Does nothing: there is no stable intrinsic for other architectures.
    #[cfg(not(target_arch = "x86_64"))]
    fn prefetch(&self, _number: usize) {}

    /// Marks all known records of a lane as read.
    pub fn skip(&mut self, number: usize) {
        self.each[number].tail = self.each[number].head;
    }

    /// Publishes all read positions, so that the kernel can reuse the space.
    pub fn publish_tails(&mut self) {
        for number in 0..self.each.len() {
            if self.each[number].published != self.each[number].tail {
                self.publish_tail(number);
            }
        }
    }

    fn publish_tail(&mut self, number: usize) {
        let lane = &mut self.each[number];
        lane.published = lane.tail;
        let header = self.headers.element::<LaneHeader>(lane.index);
        // SAFETY: an aligned word inside the mapping, which only user space writes.
        unsafe { AtomicU64::from_ptr(&raw mut (*header).tail) }.store(lane.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_and_the_ring_fit_into_the_buffer() {
        for (total, cpus) in
            [(1 << 20, 1), (1 << 20, 3), (4 << 20, 2), (4 << 20, 8), (64 << 20, 96), (1 << 31, 64)]
        {
            let division = Division::of(total, cpus);
            let lanes = u64::from(division.chunks()) * CHUNK as u64;
            assert!(lanes + u64::from(division.ring) <= u64::from(total), "{division:?}");
            assert!(lanes * 3 >= u64::from(total), "{division:?}");
            assert!(LaneKind::ALL.iter().all(|kind| division.lane(*kind).is_power_of_two()));
        }
    }

    #[test]
    fn a_lane_has_at_least_one_chunk() {
        let division = Division::of(4096, 2);
        let headers = cpus().max(2);
        assert_eq!(division, Division { cpus: 2, headers, transitions: 4096, ring: page_size() });
        assert_eq!((division.lanes(), division.chunks()), (headers * LANES_PER_CPU, 2 * LANES_PER_CPU));
        assert!(LaneKind::ALL.iter().all(|kind| division.lane(*kind) == 4096));
    }

    #[test]
    fn every_cpu_of_this_machine_has_lanes() {
        let here = std::thread::available_parallelism().unwrap().get();
        assert!(cpus() as usize >= here, "{} of {here}", cpus());
    }
}
