//! Writes rows to a stream in one of four formats.

use std::{
    fmt,
    io::{self, Write},
};

use crate::report::{
    csv, json,
    row::Row,
    text::{table::append_line, table_style::TableStyle, table_width::TableWidth, wall_time::TimeStyle},
};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// One JSON object per line.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

/// Buffered bytes that are written to the stream at once.
const FLUSH_BYTES: usize = 64 << 10;
/// Spare capacity for the row that reaches [`FLUSH_BYTES`]; more than a row has.
const ROW_BYTES: usize = 4 << 10;

/// Writes rows to a stream, through a buffer.
pub struct Sink<W: Write> {
    stream: W,
    format: Format,
    style: TableStyle,
    header_due: bool,
    rows: u64,
    /// Whole lines that are not written to the stream yet.
    lines: Vec<u8>,
    /// The line of a table, before it is added to `lines`.
    line: String,
}

impl<W: Write> Sink<W> {
    /// Creates a sink that writes rows in `format` to `stream`.
    pub fn new(stream: W, format: Format, time: TimeStyle) -> Self {
        let lines = Vec::with_capacity(FLUSH_BYTES + ROW_BYTES);
        let width = if format == Format::Wide { TableWidth::Wide } else { TableWidth::Standard };
        let style = TableStyle { width, time, ..TableStyle::default() };
        Self { stream, format, style, header_due: true, rows: 0, lines, line: String::new() }
    }

    /// Sets the look of tables. The default has the width of the format and no colors.
    #[must_use]
    pub fn with_style(mut self, style: TableStyle) -> Self {
        self.style = style;
        self
    }

    /// Returns how many rows were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the header if the format has one. [`write`](Self::write) does so before the first row.
    ///
    /// # Errors
    ///
    /// When writing to the stream fails.
    pub fn begin<R: Row>(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.header_due) {
            return Ok(());
        }
        match self.format {
            Format::Table | Format::Wide => self.table_line(R::header),
            Format::Csv => csv::append_header::<R>(&mut self.lines),
            Format::Json => Ok(()),
        }
    }

    /// Writes one row.
    ///
    /// # Errors
    ///
    /// When writing to the stream fails.
    pub fn write<R: Row>(&mut self, row: &R) -> io::Result<()> {
        self.begin::<R>()?;
        self.rows += 1;
        match self.format {
            Format::Table | Format::Wide => self.table_line(|line, style| row.line(line, style))?,
            Format::Json => {
                json::append(row, &mut self.lines);
                self.lines.push(b'\n');
            }
            Format::Csv => csv::append(row, &mut self.lines)?,
        }
        if self.lines.len() >= FLUSH_BYTES { self.write_buffer() } else { Ok(()) }
    }

    fn table_line(&mut self, write: impl FnOnce(&mut String, TableStyle) -> fmt::Result) -> io::Result<()> {
        self.line.clear();
        append_line(&mut self.line, self.style.width, |line| write(line, self.style))
            .map_err(io::Error::other)?;
        self.lines.extend_from_slice(self.line.as_bytes());
        Ok(())
    }

    /// Writes the buffer to the stream and empties it, also after an error: the reader has gone or the disk is full.
    fn write_buffer(&mut self) -> io::Result<()> {
        let written = self.stream.write_all(&self.lines);
        self.lines.clear();
        written
    }

    /// Writes the buffer to the stream and flushes the stream.
    ///
    /// # Errors
    ///
    /// When either fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_buffer()?;
        self.stream.flush()
    }
}

impl<W: Write> Drop for Sink<W> {
    fn drop(&mut self) {
        // Callers that need the error call `flush` before.
        let _ = self.write_buffer();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fields::fields;

    struct Plain(u32);

    fields! { Plain, |row| {
        /// The number
        n: u32 = row.0;
    }}

    impl Row for Plain {
        fn header(line: &mut String, _style: TableStyle) -> fmt::Result {
            line.push_str("NUMBER   ");
            Ok(())
        }

        fn line(&self, line: &mut String, _style: TableStyle) -> fmt::Result {
            line.push_str(if self.0 == u32::MAX { return Err(fmt::Error) } else { "row \u{a0} " });
            Ok(())
        }
    }

    /// Records the size of each write; fails while it is full.
    #[derive(Default)]
    struct Stream {
        taken: Vec<usize>,
        full: bool,
    }

    impl Write for &mut Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.push(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sink<W: Write>(stream: W, format: Format) -> Sink<W> {
        Sink::new(stream, format, TimeStyle::None)
    }

    #[test]
    fn rows_are_written_in_blocks_and_at_the_end() {
        let mut stream = Stream::default();
        let mut json = sink(&mut stream, Format::Json);
        // `{"n":7}` and a line feed.
        for _ in 0..FLUSH_BYTES / 8 + 3 {
            json.write(&Plain(7)).unwrap();
        }
        drop(json);
        assert_eq!(stream.taken, [FLUSH_BYTES, 24]);
    }

    #[test]
    fn a_failed_row_leaves_nothing() {
        let mut bytes = Vec::new();
        let mut rows = sink(&mut bytes, Format::Table);
        rows.write(&Plain(7)).unwrap();
        assert!(rows.write(&Plain(u32::MAX)).is_err());
        drop(rows);
        assert_eq!(String::from_utf8(bytes).unwrap(), "NUMBER\nrow\n");
    }

    #[test]
    fn a_failed_write_is_not_repeated() {
        let mut stream = Stream { full: true, ..Stream::default() };
        let mut json = sink(&mut stream, Format::Json);
        json.write(&Plain(7)).unwrap();
        assert_eq!(json.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        json.stream.full = false;
        json.write(&Plain(8)).unwrap();
        json.flush().unwrap();
        drop(json);
        assert_eq!(stream.taken, [8]);
    }
}
