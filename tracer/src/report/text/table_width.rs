//! Which columns a table has, and how wide they are.

use crate::report::text::style;

/// The width of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableWidth {
    /// The usual columns, as wide as their cells are.
    #[default]
    Standard,
    /// All columns.
    Wide,
    /// The columns that fit into so many characters, with cells shortened to their columns.
    Fit(u16),
}

/// A column, for the choice of those that fit.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct ColumnSize {
    /// Characters of its cells, without the space behind them; for the last column the least that is worth showing.
    pub(in crate::report) width: usize,
    /// The column with the highest rank is left out first; those of rank 0 stay.
    pub(in crate::report) rank: u8,
    /// The table has it.
    pub(in crate::report) shown: bool,
}

impl TableWidth {
    /// Returns whether the table has all columns.
    pub(in crate::report) fn is_wide(self) -> bool {
        self == Self::Wide
    }

    /// Returns whether cells and lines are shortened.
    pub(in crate::report) fn shortens(self) -> bool {
        matches!(self, Self::Fit(_))
    }

    /// Returns the highest rank of a column that fits. `before` is the width of what precedes the columns.
    pub(in crate::report) fn highest_rank(self, before: usize, columns: &[ColumnSize]) -> u8 {
        let Self::Fit(width) = self else { return u8::MAX };
        let needed = |rank| {
            let shown = columns.iter().filter(|column| column.shown && column.rank <= rank);
            before + shown.map(|column| column.width + 1).sum::<usize>()
        };
        let highest = columns.iter().map(|column| column.rank).max().unwrap_or_default();
        // The last column has no space behind it.
        (0..=highest).rev().find(|rank| needed(*rank) <= usize::from(width) + 1).unwrap_or_default()
    }

    /// Cuts the last line of a text to the width.
    pub(crate) fn cut(self, text: &mut String, start: usize) {
        if let Self::Fit(width) = self {
            style::cut(text, start, width.into());
        }
    }

    /// Breaks a line between words if it is too wide; further lines begin with `indent` spaces.
    pub(crate) fn wrapped(self, line: &str, indent: usize) -> String {
        match self {
            Self::Fit(width) => style::wrapped(line, width.into(), indent),
            Self::Standard | Self::Wide => line.to_owned(),
        }
    }
}

/// Shortens the cell at the end of a text to `width` characters. A wide cell keeps its end, which is the port of an endpoint.
pub(in crate::report) fn shorten(text: &mut String, start: usize, width: usize) {
    /// The longest port, with the colon and the bracket before it.
    const END: usize = 7;
    let count = text[start..].chars().count();
    if count <= width || width == 0 {
        return;
    }
    let end = if width > 2 * END { END } else { 0 };
    let cell: Vec<char> = text[start..].chars().collect();
    text.truncate(start);
    text.extend(&cell[..width - 1 - end]);
    text.push('\u{2026}');
    text.extend(&cell[count - end..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(width: usize, rank: u8) -> ColumnSize {
        ColumnSize { width, rank, shown: true }
    }

    #[test]
    fn columns_of_the_highest_rank_are_left_out_first() {
        let columns =
            [column(9, 0), column(9, 2), column(9, 1), ColumnSize { shown: false, ..column(50, 0) }];
        let highest = |width| TableWidth::Fit(width).highest_rank(10, &columns);
        assert_eq!([40, 39, 38, 29, 28, 5].map(highest), [2, 2, 1, 1, 0, 0]);
        assert_eq!(TableWidth::Standard.highest_rank(10, &columns), u8::MAX);
    }

    #[test]
    fn a_line_and_a_cell_are_shortened_by_characters() {
        let cut = |text: &str, width| {
            let mut text = format!("first\n{text}");
            TableWidth::Fit(width).cut(&mut text, 6);
            text[6..].to_owned()
        };
        assert_eq!(cut("caf\u{e9}s", 5), "caf\u{e9}s");
        assert_eq!(cut("caf\u{e9}s", 4), "caf\u{2026}");
        let cell = |text: &str, width| {
            let mut text = text.to_owned();
            shorten(&mut text, 0, width);
            text
        };
        assert_eq!(cell("[2001:db8:1:2:3:4:5:6]:50123", 23), "[2001:db8:1:2:3\u{2026}]:50123");
        assert_eq!(cell("a-long-process", 8), "a-long-\u{2026}");
        assert_eq!(cell("short", 8), "short");
    }
}
