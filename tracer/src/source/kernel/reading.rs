//! Reading what the programs wrote, in one order: lanes are merged by time.
//!
//! The order of one socket's events is never changed. The kernel runs the program for one of its transitions to the
//! end before it can begin the next, as both happen under the socket's lock. So an event whose successor has a time
//! up to T was written before T. A [pass](Reading::pass) notes the time T first, then asks each lane how far it has
//! been written, and delivers only what is not younger than T: nothing that it delivers can have a predecessor that
//! it did not see.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, binary_heap::PeekMut},
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::{MapData, RingBuf};

use super::lanes::Lanes;
use crate::event::Timestamp;

/// What stands for the ring among the numbers of the lanes.
const RING: usize = usize::MAX;

/// Every way that records come by.
pub struct Reading {
    lanes: Lanes,
    ring: RingBuf<MapData>,
    /// The most records that the ring is asked for in one pass.
    capacity: usize,
    /// Records of the ring that are not delivered yet, by time: CPUs take their places in the ring before they take
    /// the time.
    held: VecDeque<(u64, Vec<u8>)>,
    /// The time of the next record of each lane that has one.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Reading {
    /// Reads from these. `ring_bytes` is the size of the ring.
    pub fn new(lanes: Lanes, ring: RingBuf<MapData>, ring_bytes: u32) -> Self {
        // A record takes `ROOM` there; what only wakes, less.
        let capacity = ring_bytes as usize / 16;
        Self { lanes, ring, capacity, held: VecDeque::new(), next: BinaryHeap::new() }
    }

    /// What becomes readable when the programs wake the reader.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Delivers every record that is there and not younger than `until`, by time. `deliver` gives the record's
    /// length, or `None` when it does not understand it.
    ///
    /// True when the ring may not be empty yet: it ends also when the kernel writes faster than it is read.
    pub fn pass(&mut self, until: Timestamp, mut deliver: impl FnMut(&[u8]) -> Option<usize>) -> bool {
        let Self { lanes, held, next, .. } = self;
        next.clear();
        lanes.look(|number, time| next.push(Reverse((time, number))));
        let mut more = true;
        let before = held.len();
        for _ in 0..self.capacity {
            let Some(item) = self.ring.next() else {
                more = false;
                break;
            };
            let time = item.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            held.push_back((time, item.to_vec()));
        }
        if held.len() > before {
            // A stable order, which is there but for a few.
            held.make_contiguous().sort_by_key(|(time, _)| *time);
        }
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
        more
    }
}
