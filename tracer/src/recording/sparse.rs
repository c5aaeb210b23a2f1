//! The builders of single columns.

use std::{hash::Hash, sync::Arc};

use arrow_array::{
    ArrayRef, DictionaryArray, PrimitiveArray,
    builder::{ArrayBuilder as _, BooleanBuilder, PrimitiveBuilder},
    types::{ArrowPrimitiveType, Int8Type, Int32Type},
};
use arrow_schema::ArrowError;

use super::interner::{Interner, fixed};

/// A column that most rows leave out: absent values are filled in when the next one comes, so that they
/// cost nothing.
#[derive(Debug)]
pub(super) struct Sparse<T: ArrowPrimitiveType>(PrimitiveBuilder<T>);

impl<T: ArrowPrimitiveType> Default for Sparse<T> {
    fn default() -> Self {
        Self(PrimitiveBuilder::with_capacity(0))
    }
}

impl<T: ArrowPrimitiveType> Sparse<T> {
    pub(super) fn put(&mut self, row: usize, value: T::Native) {
        let absent = row - self.0.len();
        if absent != 0 {
            self.0.append_nulls(absent);
        }
        self.0.append_value(value);
    }

    pub(super) fn put_known(&mut self, row: usize, value: Option<T::Native>) {
        if let Some(value) = value {
            self.put(row, value);
        }
    }

    pub(super) fn finish(&mut self, rows: usize) -> PrimitiveArray<T> {
        self.0.append_nulls(rows - self.0.len());
        self.0.finish()
    }

    pub(super) fn array(&mut self, rows: usize) -> ArrayRef {
        Arc::new(self.finish(rows))
    }
}

/// As [`Sparse`], for true and false.
#[derive(Debug, Default)]
pub(super) struct SparseBool(BooleanBuilder);

impl SparseBool {
    pub(super) fn put(&mut self, row: usize, value: bool) {
        self.0.append_nulls(row - self.0.len());
        self.0.append_value(value);
    }

    pub(super) fn array(&mut self, rows: usize) -> ArrayRef {
        self.0.append_nulls(rows - self.0.len());
        Arc::new(self.0.finish())
    }
}

/// Text that repeats.
#[derive(Debug)]
pub(super) struct Text<K> {
    keys: Sparse<Int32Type>,
    interner: Interner<K>,
}

impl<K: Hash + Eq> Default for Text<K> {
    fn default() -> Self {
        Self { keys: Sparse::default(), interner: Interner::default() }
    }
}

impl<K: Hash + Eq> Text<K> {
    pub(super) fn put(&mut self, row: usize, key: K, text: impl FnOnce() -> String) {
        let index = self.interner.index(key, text);
        self.keys.put(row, index);
    }

    /// The index of a value that has been seen in this batch.
    pub(super) fn known(&self, key: &K) -> Option<i32> {
        self.interner.known(key)
    }

    /// As [`put`](Self::put), with the index of a known value.
    pub(super) fn put_known(&mut self, row: usize, index: i32) {
        self.keys.put(row, index);
    }

    pub(super) fn array(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        let keys = self.keys.finish(rows);
        self.interner.finish(keys)
    }
}

/// One of a few names, by its place among them.
#[derive(Debug)]
pub(super) struct Name {
    keys: Sparse<Int8Type>,
    names: ArrayRef,
}

impl Name {
    pub(super) fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self { keys: Sparse::default(), names: fixed(names) }
    }

    pub(super) fn put(&mut self, row: usize, place: i8) {
        self.keys.put(row, place);
    }

    pub(super) fn array(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        Ok(Arc::new(DictionaryArray::try_new(self.keys.finish(rows), Arc::clone(&self.names))?))
    }
}
