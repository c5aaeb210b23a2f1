//! Encodes events into a stream of record batches.

mod addresses;
mod batches;
mod columns;
mod compression;
mod info;
mod interner;
mod open_sockets;
mod owners;
mod sparse;
mod synced;
mod target;
mod validity;

pub(crate) use open_sockets::write_open_sockets;
pub(crate) use target::{Output, Rotation, Target, create_new};

use std::io::{self, Write};

use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;
use tracer_core::event::{Event, SourceCounts, Timestamp};

use crate::{
    host::CgroupResolver,
    recording::{
        Header, arrow_schema,
        writer::{batches::Batches, columns::BatchColumns},
    },
};

/// Most rows of a batch: some tens of milliseconds at the highest rates, about 0.5 MB.
pub const BATCH_ROWS: usize = 16_384;

/// Writes a recording file.
///
/// Each batch is written with one `write`, so a truncated file ends after a batch or inside the last one.
pub struct Writer<W: Write> {
    file: W,
    /// Encodes the schema and the end marker. `batches` encodes the batches between them.
    stream: StreamWriter<Vec<u8>>,
    batches: Batches,
    columns: BatchColumns,
    /// The last [`Event::Time`] that has not been written. Of several in a row, only the last matters.
    time: Option<Timestamp>,
    last_time: Timestamp,
    counts: SourceCounts,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Starts the file with its schema.
    ///
    /// # Errors
    ///
    /// When the write fails.
    pub fn new(file: W, header: &Header) -> io::Result<Self> {
        let schema = arrow_schema(header.to_metadata());
        let stream = StreamWriter::try_new(Vec::new(), &schema).map_err(encoding_error)?;
        let mut writer = Self {
            file,
            stream,
            batches: Batches::default(),
            columns: BatchColumns::new(header.clock),
            time: None,
            last_time: header.started,
            counts: SourceCounts::default(),
            bytes: 0,
        };
        writer.write_encoded()?;
        Ok(writer)
    }

    /// Adds an event, and writes a full batch.
    ///
    /// Of several [`Event::Time`] in a row, only the last is kept.
    ///
    /// # Errors
    ///
    /// When the write fails.
    pub fn event(&mut self, event: &Event, resolver: &mut CgroupResolver) -> io::Result<()> {
        if let Event::Time(time) = event {
            self.time = Some(*time);
            return Ok(());
        }
        self.put_time(resolver);
        self.last_time = event.time();
        self.columns.event(event, resolver);
        if self.columns.rows() >= BATCH_ROWS { self.write_batch() } else { Ok(()) }
    }

    /// Returns the number of unwritten rows, without a pending [`Event::Time`].
    pub fn pending(&self) -> usize {
        self.columns.rows()
    }

    /// Returns the size of the file, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the pending rows, and the counts of the source if they have changed.
    ///
    /// # Errors
    ///
    /// When the write fails.
    pub fn flush(&mut self, counts: &SourceCounts, resolver: &mut CgroupResolver) -> io::Result<()> {
        self.put_time(resolver);
        if *counts != self.counts {
            self.counts = *counts;
            self.columns.counts(self.last_time, counts);
        }
        self.write_batch()
    }

    /// Returns the file.
    pub(crate) fn file_mut(&mut self) -> &mut W {
        &mut self.file
    }

    /// Writes batches that another writer has encoded.
    ///
    /// The first of them, and the first after them, must have all dictionaries: each is the first batch of its writer.
    ///
    /// # Errors
    ///
    /// When the write fails.
    pub(crate) fn append_encoded(&mut self, batches: &[u8]) -> io::Result<()> {
        self.file.write_all(batches)?;
        self.bytes += batches.len() as u64;
        Ok(())
    }

    /// Writes the pending rows, the final counts and the end marker.
    ///
    /// # Errors
    ///
    /// When the write fails.
    pub fn finish(mut self, counts: &SourceCounts, resolver: &mut CgroupResolver) -> io::Result<W> {
        self.flush(counts, resolver)?;
        self.stream.finish().map_err(encoding_error)?;
        self.write_encoded()?;
        self.file.flush()?;
        Ok(self.file)
    }

    fn put_time(&mut self, resolver: &mut CgroupResolver) {
        if let Some(time) = self.time.take() {
            self.last_time = time;
            self.columns.event(&Event::Time(time), resolver);
        }
    }

    fn write_batch(&mut self) -> io::Result<()> {
        if self.columns.rows() == 0 {
            return Ok(());
        }
        self.columns.write(&mut self.batches, self.stream.get_mut());
        self.write_encoded()
    }

    fn write_encoded(&mut self) -> io::Result<()> {
        let encoded = self.stream.get_mut();
        self.file.write_all(encoded)?;
        self.bytes += encoded.len() as u64;
        encoded.clear();
        Ok(())
    }
}

/// Converts an encoding error. Encoding into memory fails only because of a bug.
fn encoding_error(error: ArrowError) -> io::Error {
    io::Error::other(error)
}
