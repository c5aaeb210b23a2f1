//! Strings of a batch, each stored once.

use std::{fmt::Display, hash::Hash, sync::Arc};

use arrow_array::{
    ArrayRef, DictionaryArray, PrimitiveArray, StringArray, builder::StringBuilder, types::Int32Type,
};
use arrow_schema::ArrowError;
use hashbrown::HashMap;

/// The dictionary of a column while its batch is written: from what a value is known by to its index.
///
/// It starts anew with each batch, so it is bounded by the rows of one.
#[derive(Debug)]
pub(super) struct Interner<K> {
    indices: HashMap<K, i32, foldhash::fast::FixedState>,
    values: StringBuilder,
}

impl<K: Hash + Eq> Default for Interner<K> {
    fn default() -> Self {
        Self { indices: HashMap::default(), values: StringBuilder::new() }
    }
}

impl<K: Hash + Eq> Interner<K> {
    /// The index of a value that has been seen in this batch.
    pub(super) fn known(&self, key: &K) -> Option<i32> {
        self.indices.get(key).copied()
    }

    /// The index of a value, which is written as `text` when it is new.
    pub(super) fn index(&mut self, key: K, text: impl FnOnce() -> String) -> i32 {
        let Self { indices, values } = self;
        let next = i32::try_from(indices.len()).unwrap_or(i32::MAX);
        *indices.entry(key).or_insert_with(|| {
            values.append_value(text());
            next
        })
    }

    /// The column with these indices; the dictionary begins anew.
    pub(super) fn finish(&mut self, keys: PrimitiveArray<Int32Type>) -> Result<ArrayRef, ArrowError> {
        self.indices.clear();
        Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(self.values.finish()))?))
    }
}

/// A dictionary that never changes, and so is written once.
pub(super) fn fixed<T: Display>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.into_iter().map(|value| value.to_string())))
}
