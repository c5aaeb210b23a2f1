//! Lines of tables: cells in columns, separated by spaces.

use std::fmt;

use crate::report::text::write::Text;

const SPACES: &str = "                                ";

/// Appends cells to a line. A cell that is wider than its column shifts those to its right.
pub(in crate::report) struct TableLine<'a>(pub(in crate::report) &'a mut String);

impl TableLine<'_> {
    /// Appends a left-aligned cell and a space.
    pub(in crate::report) fn left(&mut self, width: usize, cell: &impl Text) -> fmt::Result {
        let start = self.0.len();
        cell.write_to(self.0)?;
        let padding = &SPACES[..self.missing(start, width)];
        self.0.push_str(padding);
        self.0.push(' ');
        Ok(())
    }

    /// Appends a right-aligned cell and a space.
    pub(in crate::report) fn right(&mut self, width: usize, cell: &impl Text) -> fmt::Result {
        let start = self.0.len();
        cell.write_to(self.0)?;
        let padding = &SPACES[..self.missing(start, width)];
        self.0.insert_str(start, padding);
        self.0.push(' ');
        Ok(())
    }

    /// Returns how many characters the cell that begins at `start` is short of `width`.
    fn missing(&self, start: usize, width: usize) -> usize {
        let cell = &self.0[start..];
        let characters = if cell.is_ascii() { cell.len() } else { cell.chars().count() };
        debug_assert!(width <= SPACES.len(), "a column is wider than {}", SPACES.len());
        width.saturating_sub(characters).min(SPACES.len())
    }
}

/// Appends a line without its trailing spaces, and nothing if writing it fails.
///
/// # Errors
///
/// The error of `write`.
pub(in crate::report) fn append_line(
    text: &mut String,
    write: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    let start = text.len();
    let written = write(text);
    text.truncate(if written.is_ok() { start + text[start..].trim_end().len() } else { start });
    if written.is_ok() {
        text.push('\n');
    }
    written
}

/// Implements [`Row`](crate::report::row::Row) from the columns of its table: alignment, width, title, and cell.
///
/// `[time]` begins the line with a time of day, unless times are off. `if wide` limits a column to the wide table. A
/// column of width 0 without a title widens the gap before the next.
macro_rules! table {
    ($row_type:ty, |$row:ident, $wide:ident| {
        $([time] $time_title:literal = $time:expr;)?
        $($align:ident $width:literal $title:literal = $cell:expr $(, if $condition:expr)?;)+
    }) => {
        impl $crate::report::row::Row for $row_type {
            fn header(
                line: &mut String,
                $wide: bool,
                time: $crate::report::text::wall_time::TimeStyle,
            ) -> std::fmt::Result {
                // Not every table has a time and wide columns.
                let _ = ($wide, time);
                $($crate::report::text::wall_time::write_time_title(line, $time_title, time)?;)?
                let mut columns = $crate::report::text::table::TableLine(line);
                $($(if $condition)? { columns.$align($width, &$title)?; })+
                Ok(())
            }

            fn line(
                &self,
                line: &mut String,
                $wide: bool,
                time: $crate::report::text::wall_time::TimeStyle,
            ) -> std::fmt::Result {
                let $row = self;
                let _ = ($wide, time);
                $($crate::report::text::wall_time::write_time_of_day(line, $time, time)?;)?
                let mut columns = $crate::report::text::table::TableLine(line);
                $($(if $condition)? { columns.$align($width, &$cell)?; })+
                Ok(())
            }
        }
    };
}

pub(in crate::report) use table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_padded_to_their_columns() {
        let mut line = String::new();
        let mut columns = TableLine(&mut line);
        columns.left(5, &"ab").unwrap();
        columns.right(5, &"cd").unwrap();
        columns.left(0, &"").unwrap();
        columns.left(2, &"wide").unwrap();
        columns.right(4, &"caf\u{e9}s").unwrap();
        columns.right(6, &"caf\u{e9}").unwrap();
        assert_eq!(line, "ab       cd  wide caf\u{e9}s   caf\u{e9} ");
    }
}
