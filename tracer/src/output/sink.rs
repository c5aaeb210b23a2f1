//! Where rows go: one of four formats, flushed so that a reader sees them as they come.

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use serde::Serialize;

use super::TimeStyle;

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

/// Writes rows to a stream.
pub struct Sink<W: Write> {
    stream: BufWriter<W>,
    format: Format,
    time: TimeStyle,
    header_due: bool,
    rows: u64,
    line: String,
}

impl<W: Write> Sink<W> {
    /// A sink that writes rows in `format` to `stream`.
    pub fn new(stream: W, format: Format, time: TimeStyle) -> Self {
        Self {
            stream: BufWriter::with_capacity(64 << 10, stream),
            format,
            time,
            header_due: true,
            rows: 0,
            line: String::new(),
        }
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
            Format::Csv => writeln!(self.stream, "{}", R::COLUMNS.join(",")),
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
            Format::Table | Format::Wide => self.text_line(|line, wide, time| row.line(line, wide, time)),
            Format::Json => {
                serde_json::to_writer(&mut self.stream, row)?;
                self.stream.write_all(b"\n")
            }
            Format::Csv => write_csv(&mut self.stream, row),
        }
    }

    fn text_line(
        &mut self,
        write: impl FnOnce(&mut String, bool, TimeStyle) -> fmt::Result,
    ) -> io::Result<()> {
        self.line.clear();
        write(&mut self.line, self.format == Format::Wide, self.time).map_err(io::Error::other)?;
        writeln!(self.stream, "{}", self.line.trim_end())
    }

    /// Passes on what is buffered.
    ///
    /// # Errors
    ///
    /// When the stream does not take it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn write_csv(stream: &mut impl Write, row: &impl Serialize) -> io::Result<()> {
    let serde_json::Value::Object(fields) = serde_json::to_value(row)? else {
        return Err(io::Error::other("a row is not an object"));
    };
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(stream);
    writer.write_record(fields.values().map(csv_cell))?;
    writer.flush()
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
