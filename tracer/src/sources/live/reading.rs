//! Reading what the programs wrote, in one order: lanes are merged by time.
//!
//! The order of one socket's events is never changed. The kernel runs the program for one of its transitions to the
//! end before it can begin the next, as both happen under the socket's lock. So an event whose successor has a time
//! up to T was written before T. A [pass](Reading::pass) is given the time T first, then asks each lane how far it has
//! been written, and delivers only what is not younger than T: nothing that it delivers can have a predecessor that
//! it did not see.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, binary_heap::PeekMut},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{MapData, RingBuf};
use tracer_core::event::Timestamp;
use tracer_ebpf::ROOM;

use crate::sources::live::{
    lanes::Lanes,
    mapping::{Access, Mapping},
};

/// What stands for the ring among the numbers of the lanes.
const RING: usize = usize::MAX;

/// Every way that records come by.
pub struct Reading {
    lanes: Lanes,
    ring: RingBuf<MapData>,
    positions: Positions,
    /// The most records that the ring holds.
    capacity: usize,
    /// Records of the ring that are not delivered yet, by time: CPUs take their places in the ring before they take
    /// the time.
    held: VecDeque<(u64, Vec<u8>)>,
    /// The ring was last read to its end at the beginning of a pass up to this.
    whole: Timestamp,
    /// The time of the next record of each lane that has one.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

/// What a [pass](Reading::pass) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// There is so much to read already that nobody will wake the reader for it.
    pub more: bool,
    /// All that had happened up to the moment that it was given was delivered. It was not when a record of the ring was
    /// just being written.
    pub complete: bool,
}

impl Pass {
    /// Where there is nothing to read from.
    pub const NOTHING: Self = Self { more: false, complete: true };
}

/// The positions of the ring's reader and of its writers.
struct Positions {
    reader: Mapping,
    writers: Mapping,
}

impl Positions {
    /// Maps both: the first two pages of a ring buffer (`kernel/bpf/ringbuf.c`).
    fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        let page = rustix::param::page_size();
        Ok(Self {
            reader: Mapping::behind(ring, 0, page, Access::Read)?,
            writers: Mapping::behind(ring, page as u64, page, Access::Read)?,
        })
    }

    /// Whether everything has been read. It has not while a record is being written, or lies behind one that is.
    fn are_equal(&self) -> bool {
        let load = |mapping: &Mapping| {
            // SAFETY: each page begins with a position, an aligned word that is written whole.
            unsafe { AtomicU64::from_ptr(mapping.element::<u64>(0)) }.load(Ordering::Acquire)
        };
        load(&self.reader) == load(&self.writers)
    }
}

impl Reading {
    /// Reads from these. `ring_bytes` is the size of the ring.
    ///
    /// # Errors
    ///
    /// When the ring's positions cannot be mapped.
    pub fn new(lanes: Lanes, ring: RingBuf<MapData>, ring_bytes: u32) -> io::Result<Self> {
        Ok(Self {
            lanes,
            positions: Positions::new(ring.as_fd())?,
            ring,
            // Each has a header of 8 bytes (`BPF_RINGBUF_HDR_SZ`).
            capacity: ring_bytes as usize / (ROOM + 8) + 1,
            held: VecDeque::new(),
            whole: Timestamp(0),
            next: BinaryHeap::new(),
        })
    }

    /// What becomes readable when the programs wake the reader.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Delivers every record that is there and not younger than `until`, by time; with [`Timestamp::END`] every one.
    /// `deliver` gives the record's length, or `None` when it cannot tell.
    pub fn pass(&mut self, until: Timestamp, mut deliver: impl FnMut(&[u8]) -> Option<usize>) -> Pass {
        let mut more = self.read_ring();
        let complete = self.positions.are_equal() || until == Timestamp::END;
        if complete {
            self.whole = until;
        }
        // A record that lies behind one being written may be older than what follows it in a lane.
        let until = until.min(self.whole);
        let Self { lanes, held, next, .. } = self;
        next.clear();
        lanes.look(|number, time| next.push(Reverse((time, number))));
        next.extend(held.front().map(|(time, _)| Reverse((*time, RING))));
        while let Some(mut first) = next.peek_mut() {
            let Reverse((time, number)) = *first;
            if time > until.0 {
                break;
            }
            let following = if number == RING {
                if let Some((_, record)) = held.pop_front() {
                    let _ = deliver(&record);
                }
                held.front().map(|(time, _)| *time)
            } else {
                match deliver(lanes.next(number)) {
                    Some(length) => lanes.advance(number, length),
                    // Where the next one begins is not known.
                    None => lanes.skip(number),
                }
                lanes.time(number)
            };
            match following {
                Some(time) => *first = Reverse((time, number)),
                None => drop(PeekMut::pop(first)),
            }
        }
        lanes.give_all_back();
        more |= lanes.is_crowded();
        Pass { more, complete }
    }

    /// Takes what is in the ring. True when there may be more: it ends also when the kernel writes faster than it is
    /// read.
    fn read_ring(&mut self) -> bool {
        let before = self.held.len();
        let mut more = true;
        for _ in 0..self.capacity {
            let Some(item) = self.ring.next() else {
                more = false;
                break;
            };
            let time = item.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            self.held.push_back((time, item.to_vec()));
        }
        if self.held.len() > before {
            // A stable order, which is there but for a few.
            self.held.make_contiguous().sort_by_key(|(time, _)| *time);
        }
        more
    }
}
