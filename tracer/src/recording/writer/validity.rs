//! The rows of a column that have a value.

/// The range of a buffer in the body of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyRange {
    pub(super) at: usize,
    pub(super) length: usize,
}

/// The rows of a batch that have a value. Columns with values in the same rows share one.
#[derive(Debug, Default)]
pub(super) struct Validity {
    /// The number of rows with a value.
    count: usize,
    /// These rows. Empty until a row has no value, which is rare in most columns.
    rows: Vec<u32>,
    bitmap: Vec<u8>,
    /// The range of the bitmap, if it is already in the current message.
    pub(super) range: Option<BodyRange>,
}

impl Validity {
    /// Marks a row as valid. Rows are added in ascending order.
    #[inline]
    pub(super) fn put(&mut self, row: usize) {
        if self.count != row {
            self.list_rows();
            self.rows.push(number(row));
        }
        self.count += 1;
    }

    /// Returns the number of rows with a value.
    pub(super) fn valid_rows(&self) -> usize {
        self.count
    }

    /// Returns the rows with a value.
    pub(super) fn rows(&mut self) -> impl Iterator<Item = usize> + '_ {
        self.list_rows();
        self.rows.iter().map(|&row| row as usize)
    }

    /// Returns the bitmap of a batch with this number of rows. It is empty when all rows have a value, as the format
    /// requires.
    pub(super) fn bitmap(&mut self, rows: usize) -> &[u8] {
        self.bitmap.clear();
        if self.count != rows {
            self.list_rows();
            self.bitmap.resize(rows.div_ceil(8), 0);
            for &row in &self.rows {
                set(&mut self.bitmap, row as usize);
            }
        }
        &self.bitmap
    }

    /// Clears all rows.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        (self.count, self.range) = (0, None);
    }

    /// Fills the list of rows, if it is empty: all rows so far have a value.
    #[inline]
    fn list_rows(&mut self) {
        if self.rows.is_empty() {
            self.rows.extend(0..number(self.count));
        }
    }
}

/// Converts a row number. A batch has far fewer rows than `u32::MAX`.
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
        // Rows of a previous batch.
        validity.put(3);
        validity.clear();
        for &row in rows {
            validity.put(row);
        }
        assert_eq!(validity.valid_rows(), rows.len());
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
