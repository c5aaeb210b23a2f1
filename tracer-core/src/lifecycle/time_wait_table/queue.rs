//! A FIFO queue that returns unused memory.

use std::collections::VecDeque;

/// Entries per chunk.
const CHUNK: usize = 1_024;
/// Empty chunks kept for reuse, so that a queue of constant length does not allocate.
const SPARE_CHUNKS: usize = 8;

/// A FIFO queue of fixed-size chunks, with access by position.
///
/// A `VecDeque` keeps up to twice the memory of its entries and copies all of them when it grows. This queue reuses
/// or frees each chunk that becomes empty.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// All chunks but the last are full. The first `consumed` entries of the first chunk are no longer in the queue.
    chunks: VecDeque<Vec<T>>,
    consumed: usize,
    length: usize,
    spare: Vec<Vec<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), consumed: 0, length: 0, spare: Vec::new() }
    }
}

impl<T: Copy> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn get(&self, position: usize) -> Option<&T> {
        let index = self.consumed + position;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut T> {
        let index = self.consumed + position;
        self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.get(0)
    }

    pub(super) fn last(&self) -> Option<&T> {
        self.get(self.length.checked_sub(1)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().skip(self.consumed)
    }

    pub(super) fn push(&mut self, entry: T) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(entry),
            _ => {
                let mut chunk = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK));
                chunk.push(entry);
                self.chunks.push_back(chunk);
            }
        }
        self.length += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = *self.first()?;
        self.consumed += 1;
        self.length -= 1;
        if self.consumed == CHUNK || self.length == 0 {
            self.consumed = 0;
            if let Some(mut chunk) = self.chunks.pop_front().filter(|_| self.spare.len() < SPARE_CHUNKS) {
                chunk.clear();
                self.spare.push(chunk);
            }
        }
        Some(first)
    }

    /// Removes the entries for which `keep` returns false; the others keep their order.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let mut kept = Self::default();
        while let Some(entry) = self.pop() {
            if keep(&entry) {
                kept.push(entry);
            }
        }
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_a_vec_deque(steps in proptest::collection::vec((0..3 * CHUNK, 0..3 * CHUNK), 1..8), step in 2..9_u32) {
            let (mut queue, mut expected) = (Queue::default(), VecDeque::new());
            let mut next = 0_u32;
            for (pushes, pops) in steps {
                for _ in 0..pushes {
                    queue.push(next);
                    expected.push_back(next);
                    next += 1;
                }
                for _ in 0..pops {
                    prop_assert_eq!(queue.pop(), expected.pop_front());
                }
                prop_assert_eq!((queue.len(), queue.first(), queue.last()), (expected.len(), expected.front(), expected.back()));
                prop_assert!(queue.iter().eq(&expected));
                for position in [0, pops, CHUNK - 1, CHUNK, expected.len()] {
                    prop_assert_eq!(queue.get(position), expected.get(position));
                    prop_assert_eq!(queue.get_mut(position), expected.get_mut(position));
                }
            }
            queue.retain(|entry| entry % step == 0);
            expected.retain(|entry| entry % step == 0);
            prop_assert!(queue.iter().eq(&expected));
        }
    }

    #[test]
    fn memory_shrinks_with_the_queue() {
        let mut queue = Queue::default();
        for entry in 0..100 * CHUNK {
            queue.push(entry);
        }
        for _ in 0..99 * CHUNK {
            queue.pop();
        }
        let capacity = queue.chunks.iter().chain(&queue.spare).map(Vec::capacity).sum::<usize>();
        assert_eq!(capacity, (1 + SPARE_CHUNKS) * CHUNK);
    }
}
