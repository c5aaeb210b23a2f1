//! The lanes that records come through: how the buffer is divided, and reading them.
//!
//! `tracer_ebpf::LaneHeader` describes a lane.

use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Ebpf;
use tracer_ebpf::{
    CHUNK, KnownNetns, LANES_PER_CPU, LaneHeader, REMEMBERED_NETNS, ROOM, RecordKind, lane_of, next_position,
};

use super::mapping::{self, Access, Mapping};

/// How the buffer is divided among lanes and the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// CPUs with lanes.
    pub cpus: u32,
    /// Bytes of each lane of transitions, a power of two of at least [`CHUNK`].
    pub transitions: u32,
    /// Bytes of each lane of another kind, likewise.
    pub others: u32,
    /// Bytes of the ring buffer, a power of two of at least a page.
    pub ring: u32,
}

impl Division {
    /// Divides `total` bytes, a power of two of at least a page, among so many CPUs.
    ///
    /// Transitions get half of it, each other kind an eighth of what they have, the ring an eighth of the whole. It
    /// takes what has no lane: a CPU that came later, and a program that interrupts itself (before 6.1).
    pub fn of(total: u32, cpus: u32) -> Self {
        if !LANES_WORK || cpus == 0 {
            return Self { cpus: 0, transitions: 0, others: 0, ring: total };
        }
        let share = total / 2 / cpus;
        let transitions = share.checked_ilog2().map_or(0, |bits| 1 << bits).max(CHUNK_BYTES);
        Self {
            cpus,
            transitions,
            others: (transitions / 8).max(CHUNK_BYTES),
            ring: (total / 8).max(page_size()),
        }
    }

    /// Elements of the map `LANES`; at least one, because no map is empty.
    pub fn lanes(&self) -> u32 {
        (self.cpus * LANES_PER_CPU).max(1)
    }

    /// Elements of the map `CHUNKS`; at least one, likewise.
    pub fn chunks(&self) -> u32 {
        let of_cpu = self.transitions + (LANES_PER_CPU - 1) * self.others;
        (self.cpus * (of_cpu / CHUNK_BYTES)).max(1)
    }
}

const CHUNK_BYTES: u32 = 4096;
const _: () = assert!(CHUNK_BYTES as usize == CHUNK);

/// A lane's position says that what is before it has been written, in that order. Processors that may show the one
/// before the other would need a barrier, and programs have none before 6.15.
const LANES_WORK: bool = cfg!(target_arch = "x86_64");

fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(CHUNK_BYTES)
}

/// CPUs that get lanes: all up to the last that is online now. One that comes later goes through the ring.
pub fn cpus() -> u32 {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    last_cpu(&online).map_or_else(
        || std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        |last| last.saturating_add(1),
    )
}

/// The last CPU of a list such as `0-3,8`.
fn last_cpu(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

/// Every lane, mapped.
#[derive(Debug)]
pub struct Lanes {
    headers: Mapping,
    chunks: Mapping,
    each: Vec<Lane>,
}

/// One lane and how far it has been read.
#[derive(Debug)]
struct Lane {
    /// Its element of the map `LANES`.
    index: usize,
    first_chunk: usize,
    size: u64,
    /// Where the next record is.
    tail: u64,
    /// What is before it has been written, as far as known.
    head: u64,
}

impl Lanes {
    /// Divides the maps of an object whose programs are not loaded yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to map them.
    pub fn new(ebpf: &Ebpf, division: &Division) -> io::Result<Self> {
        let headers = mapping::array(ebpf, "LANES")?;
        let length = division.lanes() as usize * size_of::<LaneHeader>();
        let headers = Mapping::new(headers, length, Access::Write)?;
        let chunks = mapping::array(ebpf, "CHUNKS")?;
        let chunks = Mapping::new(chunks, division.chunks() as usize * CHUNK, Access::Read)?;
        let mut each = Vec::new();
        let mut first_chunk = 0;
        for cpu in 0..division.cpus {
            for kind in RecordKind::ALL {
                let size =
                    if kind == RecordKind::Transition { division.transitions } else { division.others };
                let index = lane_of(cpu, kind) as usize;
                let header = headers.element::<LaneHeader>(index);
                // SAFETY: an element of the mapping, which no program uses yet.
                unsafe {
                    header.write(LaneHeader {
                        head: 0,
                        size,
                        first_chunk,
                        wakeup_bytes: size / 4,
                        busy: 0,
                        padding: [0; 5],
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
                });
                first_chunk += size / CHUNK_BYTES;
            }
        }
        Ok(Self { headers, chunks, each })
    }

    /// Asks each lane how far it has been written, and calls `pending` with those that have something to read and
    /// with the time of their next record.
    pub fn look(&mut self, mut pending: impl FnMut(usize, u64)) {
        for number in 0..self.each.len() {
            let header = self.headers.element::<LaneHeader>(self.each[number].index);
            // SAFETY: an aligned word of the mapping that the kernel writes whole.
            let head = unsafe { AtomicU64::from_ptr(&raw mut (*header).head) }.load(Ordering::Acquire);
            self.each[number].head = head;
            if let Some(time) = self.time(number) {
                pending(number, time);
            }
        }
    }

    /// The time of the next record of a lane; `None` when there is none.
    pub fn time(&self, number: usize) -> Option<u64> {
        let bytes = self.next(number);
        bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    /// What has been written of a lane from its next record on, at most to the end of its chunk; empty when there is
    /// nothing.
    pub fn next(&self, number: usize) -> &[u8] {
        let Lane { first_chunk, size, tail, head, .. } = self.each[number];
        let offset = tail % CHUNK as u64;
        let written = (head - tail).min(CHUNK as u64 - offset);
        let index = first_chunk + usize::try_from(tail % size / CHUNK as u64).unwrap_or_default();
        let chunk = self.chunks.element::<[u8; CHUNK]>(index).cast::<u8>().cast_const();
        let (offset, written) =
            (usize::try_from(offset).unwrap_or_default(), usize::try_from(written).unwrap_or_default());
        // SAFETY: inside the chunk; the kernel does not write there again before the tail in the header has passed it.
        unsafe { std::slice::from_raw_parts(chunk.add(offset), written) }
    }

    /// Takes the next record of a lane, which has this length, as read.
    pub fn advance(&mut self, number: usize, length: usize) {
        let lane = &mut self.each[number];
        let chunk = lane.tail / CHUNK as u64;
        // Never behind the head, whatever a record says of its length.
        lane.tail = next_position(lane.tail, length as u64).min(lane.head);
        // Not for each record: the writer reads the tail, and would miss its cache each time.
        if lane.tail / CHUNK as u64 != chunk || lane.tail == lane.head {
            self.give_back(number);
        }
    }

    /// Takes all that is known of a lane as read.
    pub fn skip(&mut self, number: usize) {
        self.each[number].tail = self.each[number].head;
        self.give_back(number);
    }

    /// Lets the kernel write over what has been read.
    fn give_back(&mut self, number: usize) {
        let Lane { index, tail, .. } = self.each[number];
        let header = self.headers.element::<LaneHeader>(index);
        // SAFETY: an aligned word of the mapping, which only this side writes.
        unsafe { AtomicU64::from_ptr(&raw mut (*header).tail) }.store(tail, Ordering::Release);
    }
}

const _: () = assert!(ROOM.is_multiple_of(8) && CHUNK.is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        for (total, cpus) in
            [(1 << 20, 1), (1 << 20, 3), (4 << 20, 2), (4 << 20, 8), (64 << 20, 96), (1 << 31, 64)]
        {
            let division = Division::of(total, cpus);
            let lanes = u64::from(division.chunks()) * CHUNK as u64;
            assert!(lanes + u64::from(division.ring) <= u64::from(total), "{division:?}");
            assert!(lanes * 3 >= u64::from(total), "{division:?}");
            assert!(division.transitions.is_power_of_two() && division.others.is_power_of_two());
        }
    }

    #[test]
    fn the_least_is_a_chunk_for_each_lane() {
        let division = Division::of(4096, 2);
        assert_eq!(division, Division { cpus: 2, transitions: 4096, others: 4096, ring: page_size() });
        assert_eq!((division.lanes(), division.chunks()), (8, 8));
    }

    #[test]
    fn the_last_cpu_of_a_list() {
        assert_eq!(last_cpu("0-1\n"), Some(1));
        assert_eq!(last_cpu("0,2-5,9"), Some(9));
        assert_eq!(last_cpu("0"), Some(0));
        assert_eq!(last_cpu(""), None);
    }
}
