//! The lanes that records come through: how the buffer is divided, and reading them.
//!
//! `tracer_ebpf::LaneHeader` describes a lane.

use std::{
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Ebpf;
use tracer_ebpf::{
    CHUNK, KnownNetns, LANES_PER_CPU, Lane as LaneKind, LaneHeader, REMEMBERED_NETNS, STRIDE, lane_of,
};

use super::mapping::{self, Access, Mapping};

/// How the buffer is divided among lanes and the ring.
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
    /// Divides `total` bytes, a power of two of at least a page, among so many CPUs.
    ///
    /// Transitions get half of it, or as much of that as is a power of two for each CPU; [`lane`](Self::lane) says what
    /// the others get, and the ring a sixteenth. It takes what has no lane: a CPU that came later, a program that
    /// interrupts itself (before 6.1), and what the twin's lane cannot hold.
    pub fn of(total: u32, cpus: u32) -> Self {
        let headers = cpus.max(self::cpus());
        if !LANES_WORK || cpus == 0 {
            return Self { cpus: 0, headers, transitions: 0, ring: total };
        }
        let share = total / 2 / cpus;
        let transitions = share.checked_ilog2().map_or(0, |bits| 1 << bits).max(CHUNK_BYTES);
        Self { cpus, headers, transitions, ring: (total / 16).max(page_size()) }
    }

    /// Bytes of a lane of this kind.
    ///
    /// The kernel ends TIME_WAIT in bursts: its timers for a minute fire together every few seconds (`kernel/time/timer.c`).
    pub fn lane(&self, kind: LaneKind) -> u32 {
        let bytes = match kind {
            LaneKind::Transition => self.transitions,
            LaneKind::TimeWaitEnd => self.transitions / 2,
            LaneKind::FirstRead | LaneKind::TransitionTwin => self.transitions / 8,
            LaneKind::SynAckRetransmit => self.transitions / 16,
        };
        bytes.max(CHUNK_BYTES)
    }

    /// Elements of the map `LANES`; at least one, because no map is empty.
    pub fn lanes(&self) -> u32 {
        (self.headers * LANES_PER_CPU).max(1)
    }

    /// Elements of the map `CHUNKS`; at least one, likewise.
    pub fn chunks(&self) -> u32 {
        let of_cpu: u32 = LaneKind::ALL.iter().map(|kind| self.lane(*kind) / CHUNK_BYTES).sum();
        (self.cpus * of_cpu).max(1)
    }
}

const CHUNK_BYTES: u32 = 4096;
const _: () = assert!(CHUNK_BYTES as usize == CHUNK);

/// A lane's position says that what is before it has been written, in that order. Processors that may show the one
/// before the other would need a barrier, and programs have none before 6.15.
const LANES_WORK: bool = cfg!(target_arch = "x86_64");

/// How far ahead of its next record a lane is asked for, bytes.
const AHEAD: usize = 256;

fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(CHUNK_BYTES)
}

/// CPUs that get lanes: all up to the last that is there. One that is added later goes through the ring.
pub fn cpus() -> u32 {
    // Not the list of those that are online: in a container it may be the container's.
    let folders = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let last =
        folders.filter_map(|folder| folder.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()).max();
    last.map_or_else(
        || std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        |last: u32| last.saturating_add(1),
    )
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
    /// Bytes, a power of two.
    size: u64,
    /// Where the next record is.
    tail: u64,
    /// What is before it has been written, as far as known.
    head: u64,
    /// The tail that the kernel knows of.
    given_back: u64,
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
        let chunks = Mapping::new(chunks, division.chunks() as usize * STRIDE, Access::Read)?;
        let mut each = Vec::new();
        let mut first_chunk = 0;
        for cpu in 0..division.cpus {
            for kind in LaneKind::ALL {
                let size = division.lane(kind);
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
                    given_back: 0,
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
            self.each[number].head = self.written(number);
            if let Some(time) = self.time(number) {
                pending(number, time);
            }
        }
    }

    /// Whether a lane has as much to read as wakes the reader, so that it must not wait for being woken.
    pub fn is_crowded(&self) -> bool {
        (0..self.each.len()).any(|number| {
            let Lane { tail, size, .. } = self.each[number];
            self.written(number) - tail >= size / 4
        })
    }

    fn written(&self, number: usize) -> u64 {
        let header = self.headers.element::<LaneHeader>(self.each[number].index);
        // SAFETY: an aligned word of the mapping that the kernel writes whole.
        unsafe { AtomicU64::from_ptr(&raw mut (*header).head) }.load(Ordering::Acquire)
    }

    /// The time of the next record of a lane; `None` when there is none.
    pub fn time(&self, number: usize) -> Option<u64> {
        let bytes = self.next(number);
        bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    /// What has been written of a lane from its next record on, at most to where a record of this chunk may end; empty
    /// when there is nothing.
    pub fn next(&self, number: usize) -> &[u8] {
        let Lane { first_chunk, size, tail, head, .. } = self.each[number];
        let offset = tail % CHUNK as u64;
        let written = (head - tail).min(STRIDE as u64 - offset);
        // A remainder, but of a power of two: a division for each record would be felt.
        let index = first_chunk + usize::try_from((tail & (size - 1)) / CHUNK as u64).unwrap_or_default();
        let chunk = self.chunks.element::<[u8; STRIDE]>(index).cast::<u8>().cast_const();
        let (offset, written) =
            (usize::try_from(offset).unwrap_or_default(), usize::try_from(written).unwrap_or_default());
        // SAFETY: inside the chunk; the kernel does not write there again before the tail in the header has passed it. Behind
        // a record that runs on beyond the chunk lies what was written before.
        unsafe { std::slice::from_raw_parts(chunk.add(offset), written) }
    }

    /// Takes the next record of a lane, which has this length, as read.
    pub fn advance(&mut self, number: usize, length: usize) {
        let lane = &mut self.each[number];
        let chunk = lane.tail / CHUNK as u64;
        // Never behind the head, whatever a record says of its length.
        lane.tail = (lane.tail + length as u64).min(lane.head);
        self.prefetch(number);
        let lane = &self.each[number];
        // Not for each record: the writer reads the tail, and would miss its cache each time.
        if lane.tail / CHUNK as u64 != chunk {
            self.give_back(number);
        }
    }

    /// Asks the processor for what is a few records ahead: another one has it, and it takes longer to come than an event
    /// takes.
    #[cfg(target_arch = "x86_64")]
    fn prefetch(&self, number: usize) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let ahead = self.next(number).get(AHEAD..).and_then(<[u8]>::first_chunk::<128>);
        if let Some(lines) = ahead {
            // SAFETY: every x86-64 processor has it, and it does not access what it is given.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(lines.as_ptr().cast());
                _mm_prefetch::<_MM_HINT_T0>(lines[64..].as_ptr().cast());
            }
        }
    }

    /// Others have no lanes.
    #[cfg(not(target_arch = "x86_64"))]
    fn prefetch(&self, _number: usize) {}

    /// Takes all that is known of a lane as read.
    pub fn skip(&mut self, number: usize) {
        self.each[number].tail = self.each[number].head;
    }

    /// Lets the kernel write over all that has been read.
    pub fn give_all_back(&mut self) {
        for number in 0..self.each.len() {
            if self.each[number].given_back != self.each[number].tail {
                self.give_back(number);
            }
        }
    }

    fn give_back(&mut self, number: usize) {
        let lane = &mut self.each[number];
        lane.given_back = lane.tail;
        let header = self.headers.element::<LaneHeader>(lane.index);
        // SAFETY: an aligned word of the mapping, which only this side writes.
        unsafe { AtomicU64::from_ptr(&raw mut (*header).tail) }.store(lane.tail, Ordering::Release);
    }
}

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
            assert!(LaneKind::ALL.iter().all(|kind| division.lane(*kind).is_power_of_two()));
        }
    }

    #[test]
    fn the_least_is_a_chunk_for_each_lane() {
        let division = Division::of(4096, 2);
        let headers = cpus().max(2);
        assert_eq!(division, Division { cpus: 2, headers, transitions: 4096, ring: page_size() });
        assert_eq!((division.lanes(), division.chunks()), (headers * 5, 10));
        assert!(LaneKind::ALL.iter().all(|kind| division.lane(*kind) == 4096));
    }

    #[test]
    fn no_cpu_of_this_machine_is_without_a_lane() {
        let here = std::thread::available_parallelism().unwrap().get();
        assert!(cpus() as usize >= here, "{} of {here}", cpus());
    }
}
