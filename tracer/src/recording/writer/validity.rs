//! Which rows have a value.

/// Where a buffer is in the body of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) length: usize,
}

/// Which rows of a batch have a value. Several columns whose values come and go together share one.
#[derive(Debug, Default)]
pub(super) struct Validity {
    /// Rows that have one.
    present: usize,
    /// Those rows; only kept once a row had none, which most columns never see.
    rows: Vec<u32>,
    bitmap: Vec<u8>,
    /// Where the batch that is being written has the bitmap already.
    pub(super) place: Option<Place>,
}

impl Validity {
    /// Notes that this row, which is later than all before, has a value.
    #[inline]
    pub(super) fn put(&mut self, row: usize) {
        if self.present != row {
            self.keep();
            self.rows.push(number(row));
        }
        self.present += 1;
    }

    /// How many rows have a value.
    pub(super) fn present(&self) -> usize {
        self.present
    }

    /// The rows that have one.
    pub(super) fn rows(&mut self) -> impl Iterator<Item = usize> + '_ {
        self.keep();
        self.rows.iter().map(|&row| row as usize)
    }

    /// The bitmap of a batch with so many rows; empty when all have a value, as the format has it.
    pub(super) fn bitmap(&mut self, rows: usize) -> &[u8] {
        self.bitmap.clear();
        if self.present != rows {
            self.keep();
            self.bitmap.resize(rows.div_ceil(8), 0);
            for &row in &self.rows {
                set(&mut self.bitmap, row as usize);
            }
        }
        &self.bitmap
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        (self.present, self.place) = (0, None);
    }

    /// Begins with the rows: all until now have had a value.
    #[inline]
    fn keep(&mut self) {
        if self.rows.is_empty() {
            self.rows.extend(0..number(self.present));
        }
    }
}

/// A batch has far fewer rows.
fn number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

/// Sets the bit of a row, in the order of Arrow's bitmaps.
pub(super) fn set(bits: &mut [u8], row: usize) {
    if let Some(byte) = bits.get_mut(row / 8) {
        *byte |= 1 << (row % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[usize], length: usize) -> Vec<u8> {
        let mut validity = Validity::default();
        // Whatever the batch before had.
        validity.put(3);
        validity.clear();
        for &row in rows {
            validity.put(row);
        }
        assert_eq!(validity.present(), rows.len());
        assert_eq!(validity.rows().collect::<Vec<_>>(), rows);
        validity.bitmap(length).to_vec()
    }

    #[test]
    fn a_bitmap_has_a_bit_for_each_row_with_a_value() {
        assert_eq!(of(&[0, 1, 2], 3), [0; 0]);
        assert_eq!(of(&[0, 1, 2], 4), [0b111]);
        assert_eq!(of(&[], 9), [0, 0]);
        assert_eq!(of(&[9], 10), [0, 0b10]);
        assert_eq!(of(&[0, 1, 2, 3, 4, 5, 6, 7, 10], 17), [255, 0b100, 0]);
    }
}
