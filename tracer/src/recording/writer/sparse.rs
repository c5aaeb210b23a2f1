//! Collects the values of single columns.

use arrow_buffer::{ArrowNativeType, ToByteSlice as _};

use crate::recording::writer::{
    batches::Batches,
    compression::Backoff,
    interner::Texts,
    validity::{self, Validity},
};

/// The values of a column, without gaps. [`write`](Self::write) spreads them over the rows only if they differ, because
/// batches often have only one distinct value.
#[derive(Debug, Default)]
pub(super) struct Values<T> {
    dense: Vec<T>,
    spread: Vec<T>,
    backoff: Backoff,
}

impl<T: ArrowNativeType> Values<T> {
    #[inline]
    pub(super) fn put(&mut self, value: T) {
        self.dense.push(value);
    }

    /// Writes the column and clears it. `validity` has the rows of the values.
    pub(super) fn write(&mut self, validity: &mut Validity, to: &mut Batches) {
        let Self { dense, spread, backoff } = self;
        let rows = to.rows();
        to.validity(validity);
        let first = dense.first().copied().unwrap_or_default();
        if dense.iter().all(|&value| value == first) {
            if first == T::default() {
                to.zeros(rows * size_of::<T>());
            } else {
                spread.resize(rows, first);
                to.add(spread.to_byte_slice(), backoff);
            }
        } else if dense.len() == rows {
            to.add(dense.to_byte_slice(), backoff);
        } else {
            // Rows without a value may contain anything. An existing value compresses best.
            spread.resize(rows, first);
            for (row, &value) in validity.rows().zip(&*dense) {
                spread[row] = value;
            }
            to.add(spread.to_byte_slice(), backoff);
        }
        dense.clear();
        spread.clear();
    }
}

/// A column in which rows may be null.
#[derive(Debug, Default)]
pub(super) struct Sparse<T> {
    validity: Validity,
    values: Values<T>,
}

impl<T: ArrowNativeType> Sparse<T> {
    #[inline]
    pub(super) fn put(&mut self, row: usize, value: T) {
        self.validity.put(row);
        self.values.put(value);
    }

    #[inline]
    pub(super) fn put_optional(&mut self, row: usize, value: Option<T>) {
        if let Some(value) = value {
            self.put(row, value);
        }
    }

    pub(super) fn write(&mut self, to: &mut Batches) {
        self.values.write(&mut self.validity, to);
        self.validity.clear();
    }
}

/// A column of 16 bytes in which nearly all rows are null.
#[derive(Debug, Default)]
pub(super) struct Rare {
    values: Vec<(usize, [u8; 16])>,
    backoff: Backoff,
}

impl Rare {
    pub(super) fn put(&mut self, row: usize, value: [u8; 16]) {
        self.values.push((row, value));
    }

    pub(super) fn write(&mut self, to: &mut Batches) {
        let mut validity = Validity::default();
        self.values.iter().for_each(|&(row, _)| validity.put(row));
        to.validity(&mut validity);
        if self.values.is_empty() {
            to.zeros(to.rows() * 16);
            return;
        }
        let mut spread = vec![0; to.rows() * 16];
        let rows = spread.as_chunks_mut().0;
        for (row, value) in self.values.drain(..) {
            rows[row] = value;
        }
        to.add(&spread, &mut self.backoff);
    }
}

/// A boolean column: the rows in which it is true.
#[derive(Debug, Default)]
pub(super) struct Flag {
    rows: Vec<usize>,
    bits: Vec<u8>,
    backoff: Backoff,
}

impl Flag {
    #[inline]
    pub(super) fn put(&mut self, row: usize, value: bool) {
        if value {
            self.rows.push(row);
        }
    }

    /// Writes the column and clears it. `validity` has the rows of the values.
    pub(super) fn write(&mut self, validity: &mut Validity, to: &mut Batches) {
        let length = to.rows().div_ceil(8);
        to.validity(validity);
        if self.rows.is_empty() {
            to.zeros(length);
            return;
        }
        self.bits.resize(length, 0);
        self.rows.drain(..).for_each(|row| validity::set(&mut self.bits, row));
        to.add(&self.bits, &mut self.backoff);
        self.bits.clear();
    }
}

/// The fixed dictionary of a column, which is written once per file.
#[derive(Debug)]
pub(super) struct Names {
    names: Option<Texts>,
}

impl Names {
    pub(super) fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let mut texts = Texts::default();
        for name in names {
            texts.push(|bytes| bytes.extend_from_slice(name.as_bytes()));
        }
        Self { names: Some(texts) }
    }

    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        if let Some(mut names) = self.names.take() {
            names.write(id, to, out);
        }
    }
}
