//! The values of single columns while their batch is collected.

use arrow_buffer::{ArrowNativeType, ToByteSlice as _};

use crate::recording::writer::{
    batches::Batches,
    interner::Texts,
    packing::Effort,
    validity::{self, Validity},
};

/// The values of a column, without gaps. They are given their places when the batch is written: a batch often has one
/// value and no other.
#[derive(Debug, Default)]
pub(super) struct Values<T> {
    known: Vec<T>,
    placed: Vec<T>,
    effort: Effort,
}

impl<T: ArrowNativeType> Values<T> {
    #[inline]
    pub(super) fn put(&mut self, value: T) {
        self.known.push(value);
    }

    /// Writes the column; the next batch begins empty. `validity` is as it was when the values came.
    pub(super) fn write(&mut self, validity: &mut Validity, to: &mut Batches) {
        let Self { known, placed, effort } = self;
        let rows = to.rows();
        to.validity(validity);
        let first = known.first().copied().unwrap_or_default();
        if known.iter().all(|&value| value == first) {
            if first == T::default() {
                to.zeros(rows * size_of::<T>());
            } else {
                placed.resize(rows, first);
                to.pack(placed.to_byte_slice(), effort);
            }
        } else if known.len() == rows {
            to.pack(known.to_byte_slice(), effort);
        } else {
            // Nobody sees what is in the rows without a value. A value that others have packs best.
            placed.resize(rows, first);
            for (row, &value) in validity.rows().zip(&*known) {
                placed[row] = value;
            }
            to.pack(placed.to_byte_slice(), effort);
        }
        known.clear();
        placed.clear();
    }
}

/// A column that rows may leave out.
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
    pub(super) fn put_known(&mut self, row: usize, value: Option<T>) {
        if let Some(value) = value {
            self.put(row, value);
        }
    }

    pub(super) fn write(&mut self, to: &mut Batches) {
        self.values.write(&mut self.validity, to);
        self.validity.clear();
    }
}

/// A column of 16 bytes that hardly any row has.
#[derive(Debug, Default)]
pub(super) struct Rare {
    values: Vec<(usize, [u8; 16])>,
    effort: Effort,
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
        let mut placed = vec![0; to.rows() * 16];
        let places = placed.as_chunks_mut().0;
        for (row, value) in self.values.drain(..) {
            places[row] = value;
        }
        to.pack(&placed, &mut self.effort);
    }
}

/// A column of true and false: the rows in which it is true.
#[derive(Debug, Default)]
pub(super) struct Flag {
    rows: Vec<usize>,
    bits: Vec<u8>,
    effort: Effort,
}

impl Flag {
    #[inline]
    pub(super) fn put(&mut self, row: usize, value: bool) {
        if value {
            self.rows.push(row);
        }
    }

    /// Writes the column; `validity` is as it was when the values came.
    pub(super) fn write(&mut self, validity: &mut Validity, to: &mut Batches) {
        let length = to.rows().div_ceil(8);
        to.validity(validity);
        if self.rows.is_empty() {
            to.zeros(length);
            return;
        }
        self.bits.resize(length, 0);
        self.rows.drain(..).for_each(|row| validity::set(&mut self.bits, row));
        to.pack(&self.bits, &mut self.effort);
        self.bits.clear();
    }
}

/// The names that a column has for its numbers, written once in a file.
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
