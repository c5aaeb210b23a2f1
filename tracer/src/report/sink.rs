//! Where rows go: one of four formats, flushed so that a reader sees them as they come.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use crate::report::{TimeStyle, json};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// TableLine for people.
    #[default]
    Table,
    /// More columns for people.
    Wide,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
}

/// One line of output in every format.
pub trait Row: Serialize {
    /// The keys of the JSON object, in order; the columns of CSV.
    const COLUMNS: &'static [&'static str];

    /// Writes the header of the table.
    ///
    /// # Errors
    ///
    /// None of its own: writing to a string does not fail.
    fn header(line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result;

    /// Writes the row of the table.
    ///
    /// # Errors
    ///
    /// None of its own: writing to a string does not fail.
    fn line(&self, line: &mut String, wide: bool, time: TimeStyle) -> fmt::Result;
}

/// Rows are passed on in pieces of this many bytes, or when it is asked for.
const PIECE: usize = 64 << 10;
/// More than a row has.
const ROOM: usize = 4 << 10;

/// Writes rows to a stream.
pub struct Sink<W: Write> {
    stream: W,
    format: Format,
    time: TimeStyle,
    header_due: bool,
    rows: u64,
    /// What is not passed on yet: whole lines, and room for the last.
    lines: String,
}

impl<W: Write> Sink<W> {
    /// A sink that writes rows in `format` to `stream`.
    pub fn new(stream: W, format: Format, time: TimeStyle) -> Self {
        Self { stream, format, time, header_due: true, rows: 0, lines: String::with_capacity(PIECE + ROOM) }
    }

    /// How many rows were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the header, for formats that have one, so that a table shows its columns before its first row.
    ///
    /// # Errors
    ///
    /// When the stream does not take it.
    pub fn begin<R: Row>(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.header_due) {
            return Ok(());
        }
        match self.format {
            Format::Table | Format::Wide => self.text_line(|line, wide, time| R::header(line, wide, time)),
            Format::Csv => {
                self.lines.extend([&R::COLUMNS.join(","), "\n"]);
                Ok(())
            }
            Format::Json => Ok(()),
        }
    }

    /// Writes one row.
    ///
    /// # Errors
    ///
    /// When the stream does not take it.
    pub fn write<R: Row>(&mut self, row: &R) -> io::Result<()> {
        self.begin::<R>()?;
        self.rows += 1;
        match self.format {
            Format::Table | Format::Wide => {
                self.text_line(|line, wide, time| row.line(line, wide, time))?;
            }
            Format::Json => {
                let start = self.lines.len();
                json::append(row, &mut self.lines).map_err(|error| {
                    self.lines.truncate(start);
                    io::Error::other(error)
                })?;
                self.lines.push('\n');
            }
            Format::Csv => self.lines.push_str(&csv_line(row)?),
        }
        if self.lines.len() >= PIECE { self.pass_on() } else { Ok(()) }
    }

    fn text_line(
        &mut self,
        write: impl FnOnce(&mut String, bool, TimeStyle) -> fmt::Result,
    ) -> io::Result<()> {
        let start = self.lines.len();
        write(&mut self.lines, self.format == Format::Wide, self.time).map_err(|error| {
            self.lines.truncate(start);
            io::Error::other(error)
        })?;
        self.lines.truncate(start + self.lines[start..].trim_end().len());
        self.lines.push('\n');
        Ok(())
    }

    /// What the stream does not take is given up: its reader has gone, or its disk is full.
    fn pass_on(&mut self) -> io::Result<()> {
        let written = self.stream.write_all(self.lines.as_bytes());
        self.lines.clear();
        written
    }

    /// Passes on what is buffered.
    ///
    /// # Errors
    ///
    /// When the stream does not take it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.stream.flush()
    }
}

impl<W: Write> Drop for Sink<W> {
    fn drop(&mut self) {
        // Whoever wants to know whether it arrives has flushed before.
        let _ = self.pass_on();
    }
}

fn csv_line(row: &impl Serialize) -> io::Result<String> {
    let serde_json::Value::Object(fields) = serde_json::to_value(row)? else {
        return Err(io::Error::other("a row is not an object"));
    };
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(fields.values().map(csv_cell))?;
    let line = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    String::from_utf8(line).map_err(io::Error::other)
}

fn csv_cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(csv_cell).collect::<Vec<_>>().join(" "),
        // A state of a lifecycle: `established:1234.5:observed`.
        serde_json::Value::Object(fields) => fields.values().map(csv_cell).collect::<Vec<_>>().join(":"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain(u32);

    impl Serialize for Plain {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            // One of them is what no row is.
            if self.0 == u32::MAX {
                serializer.serialize_bytes(&[])
            } else {
                serializer.serialize_u32(self.0)
            }
        }
    }

    impl Row for Plain {
        const COLUMNS: &'static [&'static str] = &["number"];

        fn header(line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
            line.push_str("NUMBER   ");
            Ok(())
        }

        fn line(&self, line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
            line.push_str(if self.0 == u32::MAX { return Err(fmt::Error) } else { "row \u{a0} " });
            Ok(())
        }
    }

    /// Counts what it takes, until it is full.
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
    fn rows_are_passed_on_in_pieces_and_at_the_end() {
        let mut stream = Stream::default();
        let mut json = sink(&mut stream, Format::Json);
        // Two bytes each.
        for _ in 0..PIECE / 2 + 3 {
            json.write(&Plain(7)).unwrap();
        }
        drop(json);
        assert_eq!(stream.taken, [PIECE, 6]);
    }

    #[test]
    fn a_row_that_cannot_be_written_leaves_nothing() {
        for (format, whole) in [(Format::Json, "7\n"), (Format::Table, "NUMBER\nrow\n")] {
            let mut bytes = Vec::new();
            let mut rows = sink(&mut bytes, format);
            rows.write(&Plain(7)).unwrap();
            assert!(rows.write(&Plain(u32::MAX)).is_err());
            drop(rows);
            assert_eq!(String::from_utf8(bytes).unwrap(), whole);
        }
    }

    #[test]
    fn what_the_stream_does_not_take_is_not_tried_again() {
        let mut stream = Stream { full: true, ..Stream::default() };
        let mut json = sink(&mut stream, Format::Json);
        json.write(&Plain(7)).unwrap();
        assert_eq!(json.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        json.stream.full = false;
        json.write(&Plain(8)).unwrap();
        json.flush().unwrap();
        drop(json);
        assert_eq!(stream.taken, [2]);
    }
}
