//! Reads the records of all lanes and of the ring, merged by time.
//!
//! The order of a socket's events is always kept. Both transitions of a pair happen under the socket's lock, so the
//! program finishes for the first before the second starts. An event whose successor has a time up to T was therefore
//! written before T. A [pass](Reading::pass) up to T first reads the write position of each lane, and then delivers
//! only records with a time up to T. So every delivered event follows its predecessor.

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

/// The ring's number among the numbers of the lanes.
const RING: usize = usize::MAX;

/// The lanes and the ring.
pub struct Reading {
    lanes: Lanes,
    ring: RingBuf<MapData>,
    positions: Positions,
    /// Most records that fit into the ring.
    capacity: usize,
    /// Undelivered records of the ring, by time. The ring's own order differs, because a CPU reserves space before it
    /// reads the clock.
    held: VecDeque<(u64, Vec<u8>)>,
    /// The time up to which all records of the ring have been read.
    complete_until: Timestamp,
    /// The time of the next record of each lane that has one.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

/// The result of a [pass](Reading::pass).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// A lane is past its wakeup threshold, or the ring may have more records. Nothing wakes the reader for them.
    pub more: bool,
    /// All records up to the given time were delivered. False while a record of the ring is being written.
    pub complete: bool,
}

/// The read and write positions of the ring.
struct Positions {
    reader: Mapping,
    writers: Mapping,
}

impl Positions {
    /// Maps both positions: the first two pages of a ring buffer (`kernel/bpf/ringbuf.c`).
    fn new(ring: BorrowedFd<'_>) -> io::Result<Self> {
        let page = rustix::param::page_size();
        Ok(Self {
            reader: Mapping::at_offset(ring, 0, page, Access::Read)?,
            writers: Mapping::at_offset(ring, page as u64, page, Access::Read)?,
        })
    }

    /// Returns whether everything has been read. False while a record is being written, and for records after it.
    fn are_equal(&self) -> bool {
        let load = |mapping: &Mapping| {
            // SAFETY: each page starts with a position, an aligned word that is written in one access.
            unsafe { AtomicU64::from_ptr(mapping.element::<u64>(0)) }.load(Ordering::Acquire)
        };
        load(&self.reader) == load(&self.writers)
    }
}

impl Reading {
    /// Creates a reader. `ring_bytes` is the size of the ring.
    ///
    /// # Errors
    ///
    /// When the ring's positions cannot be mapped.
    pub fn new(lanes: Lanes, ring: RingBuf<MapData>, ring_bytes: u32) -> io::Result<Self> {
        Ok(Self {
            lanes,
            positions: Positions::new(ring.as_fd())?,
            ring,
            // Each record has a header of 8 bytes (`BPF_RINGBUF_HDR_SZ`).
            capacity: ring_bytes as usize / (ROOM + 8) + 1,
            held: VecDeque::new(),
            complete_until: Timestamp(0),
            next: BinaryHeap::new(),
        })
    }

    /// Returns the descriptor that becomes readable when the programs wake the reader.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Delivers the available records with a time up to `until`, in order of time; all with [`Timestamp::END`].
    /// `deliver` returns the length of the record, or `None` if it is unknown.
    pub fn pass(&mut self, until: Timestamp, mut deliver: impl FnMut(&[u8]) -> Option<usize>) -> Pass {
        let mut more = self.read_ring();
        let complete = self.positions.are_equal() || until == Timestamp::END;
        if complete {
            self.complete_until = until;
        }
        // A record after one that is being written may be older than records of a lane.
        let until = until.min(self.complete_until);
        let Self { lanes, held, next, .. } = self;
        next.clear();
        lanes.refresh(|number, time| next.push(Reverse((time, number))));
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
                    // The position of the next record is unknown.
                    None => lanes.skip(number),
                }
                lanes.time(number)
            };
            match following {
                Some(time) => *first = Reverse((time, number)),
                None => drop(PeekMut::pop(first)),
            }
        }
        lanes.publish_tails();
        more |= lanes.is_past_wakeup();
        Pass { more, complete }
    }

    /// Reads the records of the ring. Returns true if there may be more: the number of records per call is limited,
    /// because the kernel may write faster than they are read.
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
            // A stable sort, and nearly all records are in order.
            self.held.make_contiguous().sort_by_key(|(time, _)| *time);
        }
        more
    }
}
