//! Where rows go: one of four formats, flushed so that a reader sees them as they come.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use super::{TimeStyle, json};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
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

/// Writes rows to a stream.
pub struct Sink<W: Write> {
    stream: W,
    format: Format,
    time: TimeStyle,
    header_due: bool,
    rows: u64,
    /// Whole lines that are not passed on yet.
    lines: String,
}

impl<W: Write> Sink<W> {
    /// A sink that writes rows in `format` to `stream`.
    pub fn new(stream: W, format: Format, time: TimeStyle) -> Self {
        Self { stream, format, time, header_due: true, rows: 0, lines: String::with_capacity(PIECE) }
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
                json::append(row, &mut self.lines).map_err(io::Error::other)?;
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
        write(&mut self.lines, self.format == Format::Wide, self.time).map_err(io::Error::other)?;
        self.lines.truncate(start + self.lines[start..].trim_end().len());
        self.lines.push('\n');
        Ok(())
    }

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
