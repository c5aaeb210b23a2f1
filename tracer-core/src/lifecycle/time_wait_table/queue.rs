//! A queue whose memory follows its length, but for a few spare pieces.

use std::collections::VecDeque;

/// Entries of a piece.
const PIECE: usize = 1_024;
/// Pieces that are kept for those that come, so that a queue that stays as long as it is obtains no memory.
const SPARE: usize = 8;

/// First in, first out, with access by position.
///
/// A `VecDeque` goes round all of its memory, up to twice what it holds, and moves all when it grows. This one is made of
/// pieces: those that have become empty are used again, or given back.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// All are full but the last; of the first, `gone` entries are no more part of the queue.
    pieces: VecDeque<Vec<T>>,
    gone: usize,
    length: usize,
    spare: Vec<Vec<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), gone: 0, length: 0, spare: Vec::new() }
    }
}

impl<T: Copy> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn get(&self, position: usize) -> Option<&T> {
        let place = self.gone + position;
        self.pieces.get(place / PIECE)?.get(place % PIECE)
    }

    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut T> {
        let place = self.gone + position;
        self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.get(0)
    }

    pub(super) fn last(&self) -> Option<&T> {
        self.get(self.length.checked_sub(1)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten().skip(self.gone)
    }

    pub(super) fn push(&mut self, entry: T) {
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(entry),
            _ => {
                let mut piece = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE));
                piece.push(entry);
                self.pieces.push_back(piece);
            }
        }
        self.length += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = *self.first()?;
        self.gone += 1;
        self.length -= 1;
        if self.gone == PIECE || self.length == 0 {
            self.gone = 0;
            if let Some(mut piece) = self.pieces.pop_front().filter(|_| self.spare.len() < SPARE) {
                piece.clear();
                self.spare.push(piece);
            }
        }
        Some(first)
    }

    /// Keeps only those that `keep` wants, in their order.
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
        fn it_is_a_queue(steps in proptest::collection::vec((0..3 * PIECE, 0..3 * PIECE), 1..8), step in 2..9_u32) {
            let (mut queue, mut known) = (Queue::default(), VecDeque::new());
            let mut next = 0_u32;
            for (pushes, pops) in steps {
                for _ in 0..pushes {
                    queue.push(next);
                    known.push_back(next);
                    next += 1;
                }
                for _ in 0..pops {
                    prop_assert_eq!(queue.pop(), known.pop_front());
                }
                prop_assert_eq!((queue.len(), queue.first(), queue.last()), (known.len(), known.front(), known.back()));
                prop_assert!(queue.iter().eq(&known));
                for position in [0, pops, PIECE - 1, PIECE, known.len()] {
                    prop_assert_eq!(queue.get(position), known.get(position));
                    prop_assert_eq!(queue.get_mut(position), known.get_mut(position));
                }
            }
            queue.retain(|entry| entry % step == 0);
            known.retain(|entry| entry % step == 0);
            prop_assert!(queue.iter().eq(&known));
        }
    }

    #[test]
    fn its_memory_follows_its_length() {
        let mut queue = Queue::default();
        for entry in 0..100 * PIECE {
            queue.push(entry);
        }
        for _ in 0..99 * PIECE {
            queue.pop();
        }
        let room = queue.pieces.iter().chain(&queue.spare).map(Vec::capacity).sum::<usize>();
        assert_eq!(room, (1 + SPARE) * PIECE);
    }
}
