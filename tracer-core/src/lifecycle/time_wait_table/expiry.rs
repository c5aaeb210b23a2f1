//! Queues of timewait sockets in order of expiry, and the index of their entries.

use crate::{
    event::{TcpState, Timestamp},
    lifecycle::time_wait_table::{TimewaitSocket, queue::Queue},
};

/// The queues of a [`TimeWaitTable`](super::TimeWaitTable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueId {
    /// Sockets that started in TIME_WAIT.
    TimeWait = 0,
    /// Sockets that started in FIN_WAIT2.
    FinWait2 = 1,
    /// Sockets that socket dumps found.
    Dumped = 2,
}

impl QueueId {
    pub(super) const ALL: [Self; 3] = [Self::TimeWait, Self::FinWait2, Self::Dumped];

    pub(super) fn of(state: TcpState) -> Self {
        if state == TcpState::TimeWait { Self::TimeWait } else { Self::FinWait2 }
    }
}

/// A timewait socket with its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) socket: TimewaitSocket,
    /// When the kernel has certainly removed the socket, whether or not its removal was seen.
    pub(super) expires: Timestamp,
    /// Removed before `expires`.
    pub(super) removed: bool,
}

/// Timewait sockets in order of expiry.
///
/// All sockets that started in one state have the same timeout, so their order of expiry is the order of insertion; those
/// of a dump are sorted. Sockets that were removed early stay in the queue, marked as removed.
#[derive(Debug, Default)]
pub(super) struct ExpiryQueue {
    pub(super) entries: Queue<Entry>,
    /// The sequence number of the first entry; sequence numbers wrap around.
    pub(super) first: u32,
}

impl ExpiryQueue {
    /// Returns the sequence number of the next entry.
    pub(super) fn next(&self) -> u32 {
        // The queue is limited to twice the capacity of the table.
        self.first.wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn position(&self, location: Location) -> usize {
        (location.0.wrapping_sub(self.first) & Location::SEQUENCE) as usize
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop()?;
        self.first = self.first.wrapping_add(1);
        Some(entry)
    }
}

/// The queue of an entry (the top two bits) and its sequence number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location(u32);

impl Location {
    const QUEUE_SHIFT: u32 = 30;
    const SEQUENCE: u32 = (1 << Self::QUEUE_SHIFT) - 1;

    pub(super) fn new(queue: QueueId, sequence: u32) -> Self {
        Self(sequence & Self::SEQUENCE | (queue as u32) << Self::QUEUE_SHIFT)
    }

    pub(super) fn queue(self) -> usize {
        (self.0 >> Self::QUEUE_SHIFT) as usize
    }
}

/// The hash of a connection key and the location of its entry.
///
/// The stored hash rejects nearly all misses without reading the entry, and growing the index reads no entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) hash: u32,
    pub(super) location: Location,
}

impl IndexEntry {
    /// Expands a half hash to 64 bits: the hash table takes its bucket from the low bits and its tag from the
    /// high ones.
    pub(super) fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}
