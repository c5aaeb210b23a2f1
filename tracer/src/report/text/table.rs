//! Lines of tables: cells in columns, separated by spaces.

use std::fmt;

use crate::report::text::{
    table_width::{TableWidth, shorten},
    write::Text,
};

const SPACES: &str = "                                ";

/// Appends cells to a line. A cell that is wider than its column shifts those to its right, or is shortened.
pub(in crate::report) struct TableLine<'a> {
    text: &'a mut String,
    shortens: bool,
}

impl<'a> TableLine<'a> {
    /// Appends to a text.
    pub(in crate::report) fn new(text: &'a mut String, shortens: bool) -> Self {
        Self { text, shortens }
    }

    /// Appends a left-aligned cell and a space.
    pub(in crate::report) fn left(&mut self, width: usize, cell: &impl Text) -> fmt::Result {
        let start = self.text.len();
        cell.write_to(self.text)?;
        if self.shortens {
            shorten(self.text, start, width);
        }
        let padding = &SPACES[..self.missing(start, width)];
        self.text.push_str(padding);
        self.text.push(' ');
        Ok(())
    }

    /// Appends a right-aligned cell and a space.
    pub(in crate::report) fn right(&mut self, width: usize, cell: &impl Text) -> fmt::Result {
        let start = self.text.len();
        cell.write_to(self.text)?;
        if self.shortens {
            shorten(self.text, start, width);
        }
        let padding = &SPACES[..self.missing(start, width)];
        self.text.insert_str(start, padding);
        self.text.push(' ');
        Ok(())
    }

    /// Returns how many characters the cell that begins at `start` is short of `width`.
    fn missing(&self, start: usize, width: usize) -> usize {
        let cell = &self.text[start..];
        let characters = if cell.is_ascii() { cell.len() } else { cell.chars().count() };
        debug_assert!(width <= SPACES.len(), "a column is wider than {}", SPACES.len());
        width.saturating_sub(characters).min(SPACES.len())
    }
}

/// Appends a line without its trailing spaces, cut to the width, and nothing if writing it fails.
///
/// # Errors
///
/// The error of `write`.
pub(in crate::report) fn append_line(
    text: &mut String,
    width: TableWidth,
    write: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    let start = text.len();
    let written = write(text);
    text.truncate(if written.is_ok() { start + text[start..].trim_end().len() } else { start });
    if written.is_ok() {
        width.cut(text, start);
        text.push('\n');
    }
    written
}

/// Implements [`Row`](crate::report::row::Row) from the columns of its table: alignment, width, title, and cell.
///
/// Of the columns with `drop`, a terminal that is too narrow lacks those with the highest number first. The last column has
/// no width of its own; it is at `least` so wide.
///
/// `[time]` begins the line with a time of day, unless times are off. `if wide` limits a column to the wide table. A
/// column of width 0 without a title widens the gap before the next.
macro_rules! table {
    ($row_type:ty, |$row:ident, $wide:ident| {
        $([time] $time_title:literal = $time:expr;)?
        $($align:ident $width:literal $title:literal = $cell:expr
            $(, if $condition:ident)? $(, drop $rank:literal)? $(, least $least:literal)?;)+
    }) => {
        impl $crate::report::row::Row for $row_type {
            fn header(
                line: &mut String,
                width: $crate::report::text::table_width::TableWidth,
                time: $crate::report::text::wall_time::TimeStyle,
            ) -> std::fmt::Result {
                // Not every table has a time and wide columns.
                let $wide = width.is_wide();
                let _ = ($wide, time);
                let highest = $crate::report::text::table::highest_rank!(
                    width, time, $wide, [$($time_title)?],
                    $([$width $(, if $condition)? $(, drop $rank)? $(, least $least)?])+
                );
                $($crate::report::text::wall_time::write_time_title(line, $time_title, time)?;)?
                let mut columns = $crate::report::text::table::TableLine::new(line, width.shortens());
                $(if $crate::report::text::table::fits(
                    $crate::report::text::table::or!(true $(, $condition)?),
                    $crate::report::text::table::or!(0 $(, $rank)?),
                    highest,
                ) {
                    columns.$align($width, &$title)?;
                })+
                Ok(())
            }

            fn line(
                &self,
                line: &mut String,
                width: $crate::report::text::table_width::TableWidth,
                time: $crate::report::text::wall_time::TimeStyle,
            ) -> std::fmt::Result {
                let $row = self;
                let $wide = width.is_wide();
                let _ = ($wide, time);
                let highest = $crate::report::text::table::highest_rank!(
                    width, time, $wide, [$($time_title)?],
                    $([$width $(, if $condition)? $(, drop $rank)? $(, least $least)?])+
                );
                $($crate::report::text::wall_time::write_time_of_day(line, $time, time)?;)?
                let mut columns = $crate::report::text::table::TableLine::new(line, width.shortens());
                $(if $crate::report::text::table::fits(
                    $crate::report::text::table::or!(true $(, $condition)?),
                    $crate::report::text::table::or!(0 $(, $rank)?),
                    highest,
                ) {
                    columns.$align($width, &$cell)?;
                })+
                Ok(())
            }
        }
    };
}

/// Returns the highest rank of the columns that fit: see [`TableWidth`](crate::report::text::table_width::TableWidth).
macro_rules! highest_rank {
    ($width:ident, $time:ident, $wide:ident, [$($time_title:literal)?],
     $([$column:literal $(, if $condition:ident)? $(, drop $rank:literal)? $(, least $least:literal)?])+) => {{
        // A table without a time has nothing before its columns.
        let before: &[&str] = &[$($time_title)?];
        let before = before.len() * $crate::report::text::wall_time::time_width($time);
        $width.highest_rank(before, &[$(
            $crate::report::text::table_width::ColumnSize {
                width: $crate::report::text::table::or!($column $(, $least)?),
                rank: $crate::report::text::table::or!(0 $(, $rank)?),
                shown: $crate::report::text::table::or!(true $(, $condition)?),
            }
        ),+])
    }};
}

/// Returns the given value, or the default if there is none.
macro_rules! or {
    ($default:expr) => {
        $default
    };
    ($default:expr, $given:expr) => {
        $given
    };
}

/// Returns whether a column of this rank is in the table.
pub(in crate::report) fn fits(shown: bool, rank: u8, highest: u8) -> bool {
    shown && rank <= highest
}

pub(in crate::report) use {highest_rank, or, table};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_padded_to_their_columns() {
        let mut line = String::new();
        let mut columns = TableLine::new(&mut line, false);
        columns.left(5, &"ab").unwrap();
        columns.right(5, &"cd").unwrap();
        columns.left(0, &"").unwrap();
        columns.left(2, &"wide").unwrap();
        columns.right(4, &"caf\u{e9}s").unwrap();
        columns.right(6, &"caf\u{e9}").unwrap();
        assert_eq!(line, "ab       cd  wide caf\u{e9}s   caf\u{e9} ");
    }
}
