//! The text dictionaries of a batch.

use std::{borrow::Borrow, hash::Hash};

use arrow_buffer::ToByteSlice as _;
use hashbrown::HashMap;

use crate::recording::writer::{batches::Batches, compression::Backoff};

/// Concatenated texts.
#[derive(Debug)]
pub(super) struct Texts {
    /// 0, followed by the end of each text.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    backoffs: [Backoff; 2],
}

impl Default for Texts {
    fn default() -> Self {
        Self { ends: vec![0], bytes: Vec::new(), backoffs: Default::default() }
    }
}

impl Texts {
    /// Adds the text that `write` appends, and returns its index.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> i32 {
        let index = bounded(self.ends.len() - 1);
        write(&mut self.bytes);
        self.ends.push(bounded(self.bytes.len()));
        index
    }

    /// Writes the texts as dictionary `id`.
    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        let [ends, bytes] = &mut self.backoffs;
        to.begin(self.ends.len() - 1);
        to.all_valid();
        to.add(self.ends.to_byte_slice(), ends);
        to.add(&self.bytes, bytes);
        to.finish_dictionary(id, out);
    }

    fn clear(&mut self) {
        self.ends.truncate(1);
        self.bytes.clear();
    }
}

/// Converts a length. The text of a batch is at most about 100 MB: 16,384 cgroup paths of maximum length.
fn bounded(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// The dictionary of a column. A batch writes it only if it differs from that of the previous batch.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    texts: Texts,
    /// The ends and bytes of the last written dictionary; `None` in a new file.
    written: Option<(Vec<i32>, Vec<u8>)>,
}

impl Dictionary {
    /// Adds the text that `write` appends, and returns its index.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> i32 {
        self.texts.push(write)
    }

    /// Writes the dictionary if it has changed, and clears it.
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

/// Maps the keys of a column's values to their indices in the dictionary.
///
/// It is cleared with each batch, so the rows of a batch limit its size.
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
    /// Returns the index of a value that is already in this batch.
    pub(super) fn known<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<i32>
    where
        K: Borrow<Q>,
    {
        self.indices.get(key).copied()
    }

    /// Returns the index of a value. If it is new, `write` appends its text.
    pub(super) fn index(&mut self, key: K, write: impl FnOnce(&mut Vec<u8>)) -> i32 {
        let Self { indices, dictionary } = self;
        *indices.entry(key).or_insert_with(|| dictionary.push(write))
    }

    /// Writes the dictionary if it has changed, and clears it.
    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        self.indices.clear();
        self.dictionary.write(id, to, out);
    }
}
