//! Lines of tables: cells in columns, separated by spaces.

use std::fmt;

use crate::report::text::{
    style::{Mark, Palette},
    table_style::TableStyle,
    table_width::{TableWidth, shorten},
    write::Text,
};

const SPACES: &str = "                                ";

/// Appends cells to a line. A cell that is wider than its column shifts those to its right, or is shortened.
pub(in crate::report) struct TableLine<'a> {
    text: &'a mut String,
    shortens: bool,
    palette: Palette,
}

impl<'a> TableLine<'a> {
    /// Appends to a text.
    pub(in crate::report) fn new(text: &'a mut String, style: TableStyle) -> Self {
        Self { text, shortens: style.width.shortens(), palette: style.palette }
    }

    /// Appends a left-aligned cell in the style of its mark, and a space.
    pub(in crate::report) fn left(&mut self, width: usize, cell: &impl Text, mark: Mark) -> fmt::Result {
        let start = self.text.len();
        cell.write_to(self.text)?;
        if self.shortens {
            shorten(self.text, start, width);
        }
        let padding = &SPACES[..self.missing(start, width)];
        self.palette.paint(self.text, start, mark);
        self.text.push_str(padding);
        self.text.push(' ');
        Ok(())
    }

    /// Appends a right-aligned cell in the style of its mark, and a space.
    pub(in crate::report) fn right(&mut self, width: usize, cell: &impl Text, mark: Mark) -> fmt::Result {
        let start = self.text.len();
        cell.write_to(self.text)?;
        if self.shortens {
            shorten(self.text, start, width);
        }
        let padding = &SPACES[..self.missing(start, width)];
        self.palette.paint(self.text, start, mark);
        self.text.insert_str(start, padding);
        self.text.push(' ');
        Ok(())
    }

    /// Returns how many characters the cell that begins at `start`, and has no style yet, is short of `width`.
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
/// no width of its own; it is at `least` so wide. A cell has the style of its `mark`.
///
/// `[time]` begins the line with a time of day, unless times are off. `if wide` limits a column to the wide table. A
/// column of width 0 without a title widens the gap before the next.
macro_rules! table {
    ($row_type:ty, |$row:ident, $wide:ident| {
        $([time] $time_title:literal = $time:expr;)?
        $($align:ident $width:literal $title:literal = $cell:expr
            $(, if $condition:ident)? $(, drop $rank:literal)? $(, least $least:literal)? $(, mark $mark:expr)?;)+
    }) => {
        impl $crate::report::row::Row for $row_type {
            fn header(
                line: &mut String,
                style: $crate::report::text::table_style::TableStyle,
            ) -> std::fmt::Result {
                // Not every table has wide columns.
                let $wide = style.width.is_wide();
                let _ = $wide;
                let highest = $crate::report::text::table::highest_rank!(
                    style, $wide, [$($time_title)?],
                    $([$width $(, if $condition)? $(, drop $rank)? $(, least $least)?])+
                );
                let start = line.len();
                $($crate::report::text::wall_time::write_time_title(line, $time_title, style.time)?;)?
                let mut columns = $crate::report::text::table::TableLine::new(line, style);
                $(if $crate::report::text::table::fits(
                    $crate::report::text::table::or!(true $(, $condition)?),
                    $crate::report::text::table::or!(0 $(, $rank)?),
                    highest,
                ) {
                    columns.$align($width, &$title, $crate::report::text::style::Mark::Plain)?;
                })+
                style.palette.paint_trimmed(line, start, $crate::report::text::style::Mark::Title);
                Ok(())
            }

            fn line(
                &self,
                line: &mut String,
                style: $crate::report::text::table_style::TableStyle,
            ) -> std::fmt::Result {
                let $row = self;
                let $wide = style.width.is_wide();
                let _ = $wide;
                let highest = $crate::report::text::table::highest_rank!(
                    style, $wide, [$($time_title)?],
                    $([$width $(, if $condition)? $(, drop $rank)? $(, least $least)?])+
                );
                $($crate::report::text::wall_time::write_time_of_day(line, $time, style.time)?;)?
                let mut columns = $crate::report::text::table::TableLine::new(line, style);
                $(if $crate::report::text::table::fits(
                    $crate::report::text::table::or!(true $(, $condition)?),
                    $crate::report::text::table::or!(0 $(, $rank)?),
                    highest,
                ) {
                    let mark = $crate::report::text::table::or!(
                        $crate::report::text::style::Mark::Plain $(, $mark)?
                    );
                    columns.$align($width, &$cell, mark)?;
                })+
                Ok(())
            }
        }
    };
}

/// Returns the highest rank of the columns that fit: see [`TableWidth`](crate::report::text::table_width::TableWidth).
macro_rules! highest_rank {
    ($style:ident, $wide:ident, [$($time_title:literal)?],
     $([$column:literal $(, if $condition:ident)? $(, drop $rank:literal)? $(, least $least:literal)?])+) => {{
        // A table without a time has nothing before its columns.
        let before: &[&str] = &[$($time_title)?];
        let before = before.len() * $crate::report::text::wall_time::time_width($style.time);
        $style.width.highest_rank(before, &[$(
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
        let mut columns = TableLine::new(&mut line, TableStyle::default());
        columns.left(5, &"ab", Mark::Bad).unwrap();
        columns.right(5, &"cd", Mark::Plain).unwrap();
        columns.left(0, &"", Mark::Plain).unwrap();
        columns.left(2, &"wide", Mark::Plain).unwrap();
        columns.right(4, &"caf\u{e9}s", Mark::Plain).unwrap();
        columns.right(6, &"caf\u{e9}", Mark::Plain).unwrap();
        assert_eq!(line, "ab       cd  wide caf\u{e9}s   caf\u{e9} ");
    }

    #[test]
    fn styles_do_not_move_the_columns() {
        let palette = Palette::new(true);
        let written = |style| {
            let mut text = String::new();
            for cells in [["ab", "-", "long-name"], ["a", "cd", "x"]] {
                append_line(&mut text, TableWidth::Fit(17), |line| {
                    let mut columns = TableLine::new(line, style);
                    columns.left(3, &cells[0], Mark::Bad)?;
                    columns.right(4, &cells[1], Mark::Warning)?;
                    columns.left(8, &cells[2], Mark::Good)
                })
                .unwrap();
            }
            text
        };
        let style = TableStyle { width: TableWidth::Fit(17), ..TableStyle::default() };
        let plain = written(style);
        assert_eq!(plain, "ab     - long-na\u{2026}\na     cd x\n");
        let colored = written(TableStyle { palette, ..style });
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
        assert_eq!(
            colored.lines().next_back(),
            Some("\u{1b}[31ma\u{1b}[0m     \u{1b}[35mcd\u{1b}[0m \u{1b}[32mx\u{1b}[0m")
        );
    }
}
