//! Texts of a batch, each stored once.

use std::{borrow::Borrow, hash::Hash};

use arrow_buffer::ToByteSlice as _;
use hashbrown::HashMap;

use crate::recording::writer::{batches::Batches, packing::Effort};

/// Texts, one behind the other.
#[derive(Debug)]
pub(super) struct Texts {
    /// Where each ends, behind a 0.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    efforts: [Effort; 2],
}

impl Default for Texts {
    fn default() -> Self {
        Self { ends: vec![0], bytes: Vec::new(), efforts: Default::default() }
    }
}

impl Texts {
    /// Adds what `write` writes, and gives its index.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> i32 {
        let index = bounded(self.ends.len() - 1);
        write(&mut self.bytes);
        self.ends.push(bounded(self.bytes.len()));
        index
    }

    /// Writes them as the dictionary with this number.
    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        let [ends, bytes] = &mut self.efforts;
        to.begin(self.ends.len() - 1);
        to.all_valid();
        to.pack(self.ends.to_byte_slice(), ends);
        to.pack(&self.bytes, bytes);
        to.finish_dictionary(id, out);
    }

    fn clear(&mut self) {
        self.ends.truncate(1);
        self.bytes.clear();
    }
}

/// A batch has no more than some 100 MB of text: 16,384 paths of a cgroup at their longest.
fn bounded(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Texts of which each batch tells those that it has, unless the one before has told the same.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    texts: Texts,
    /// The ends and bytes of the last one that was written; none in a new file.
    written: Option<(Vec<i32>, Vec<u8>)>,
}

impl Dictionary {
    /// Adds what `write` writes, and gives its index.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> i32 {
        self.texts.push(write)
    }

    /// Writes it where it has changed; the next batch begins empty.
    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        let Texts { ends, bytes, .. } = &self.texts;
        let same = self.written.as_ref().is_some_and(|(old_ends, old)| old_ends == ends && old == bytes);
        if !same {
            self.texts.write(id, to, out);
            let (ends, bytes) = self.written.get_or_insert_default();
            std::mem::swap(ends, &mut self.texts.ends);
            std::mem::swap(bytes, &mut self.texts.bytes);
            if self.texts.ends.is_empty() {
                self.texts.ends.push(0);
            }
        }
        self.texts.clear();
    }
}

/// The dictionary of a column while its batch is collected: from what a value is known by to its index.
///
/// It starts anew with each batch, so it is bounded by the rows of one.
#[derive(Debug)]
pub(super) struct Interner<K> {
    indices: HashMap<K, i32, foldhash::fast::FixedState>,
    dictionary: Dictionary,
}

impl<K: Hash + Eq> Default for Interner<K> {
    fn default() -> Self {
        Self { indices: HashMap::default(), dictionary: Dictionary::default() }
    }
}

impl<K: Hash + Eq> Interner<K> {
    /// The index of a value that has been seen in this batch.
    pub(super) fn known<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<i32>
    where
        K: Borrow<Q>,
    {
        self.indices.get(key).copied()
    }

    /// The index of a value, which `write` writes when it is new.
    pub(super) fn index(&mut self, key: K, write: impl FnOnce(&mut Vec<u8>)) -> i32 {
        let Self { indices, dictionary } = self;
        *indices.entry(key).or_insert_with(|| dictionary.push(write))
    }

    /// Writes the dictionary where it has changed; the next batch begins empty.
    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        self.indices.clear();
        self.dictionary.write(id, to, out);
    }
}
