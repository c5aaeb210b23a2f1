//! Lines of tables: cells in columns, a space between them.

use std::fmt;

use crate::report::text::Text;

const SPACES: &str = "                                ";

/// Writes cells to a line, from left to right. A cell that is wider than its column moves those that follow.
pub(super) struct TableLine<'a>(pub(super) &'a mut String);

impl TableLine<'_> {
    /// A cell that begins where its column does.
    pub(super) fn left(&mut self, width: usize, cell: impl Text + Copy) -> Result<&mut Self, fmt::Error> {
        let start = self.0.len();
        cell.write_to(self.0)?;
        let padding = &SPACES[..self.missing(start, width)];
        self.0.push_str(padding);
        self.0.push(' ');
        Ok(self)
    }

    /// A cell that ends where its column does.
    pub(super) fn right(&mut self, width: usize, cell: impl Text + Copy) -> Result<&mut Self, fmt::Error> {
        let start = self.0.len();
        cell.write_to(self.0)?;
        let padding = &SPACES[..self.missing(start, width)];
        self.0.insert_str(start, padding);
        self.0.push(' ');
        Ok(self)
    }

    /// One space more.
    pub(super) fn gap(&mut self) -> &mut Self {
        self.0.push(' ');
        self
    }

    /// How many characters what was written since `start` lacks.
    fn missing(&self, start: usize, width: usize) -> usize {
        let cell = &self.0[start..];
        let characters = if cell.is_ascii() { cell.len() } else { cell.chars().count() };
        debug_assert!(width <= SPACES.len(), "no column is so wide");
        width.saturating_sub(characters).min(SPACES.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_where_their_columns_are() {
        let mut line = String::new();
        let mut columns = TableLine(&mut line);
        columns.left(5, "ab").unwrap().right(5, "cd").unwrap().gap().left(2, "wide").unwrap();
        columns.right(4, "caf\u{e9}s").unwrap().right(6, "caf\u{e9}").unwrap();
        assert_eq!(line, "ab       cd  wide caf\u{e9}s   caf\u{e9} ");
    }
}
