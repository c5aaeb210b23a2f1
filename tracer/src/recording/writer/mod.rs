//! Events into a stream of record batches.

mod addresses;
mod batches;
mod columns;
mod figures;
mod interner;
mod owners;
mod packing;
mod sparse;
mod synced;
mod target;
mod validity;

pub(crate) use target::create_new;
pub use target::{Output, Rotation, Target, TargetError};

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

/// Most rows of a batch: some tens of milliseconds at the highest rates, some 0.5 MB.
pub const BATCH_ROWS: usize = 16_384;

/// Writes one file.
///
/// A batch reaches the file by one `write`, so a file that was cut off ends at the end of a batch or
/// inside the last one.
pub struct Writer<W: Write> {
    file: W,
    /// Writes the schema and the end marker; the batches between them are made by `batches`.
    stream: StreamWriter<Vec<u8>>,
    batches: Batches,
    columns: BatchColumns,
    /// Time that has passed, not written yet: only the last of several in a row tells anything.
    time: Option<Timestamp>,
    last_time: Timestamp,
    counts: SourceCounts,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins the file with its schema.
    ///
    /// # Errors
    ///
    /// When the file does not take it.
    pub fn new(file: W, header: &Header) -> io::Result<Self> {
        let schema = arrow_schema(header.to_metadata());
        let stream = StreamWriter::try_new(Vec::new(), &schema).map_err(not_written)?;
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
        writer.pass_on()?;
        Ok(writer)
    }

    /// Takes in an event; a full batch is written.
    ///
    /// Of several [`Event::Time`] in a row only the last is kept.
    ///
    /// # Errors
    ///
    /// When the file does not take it.
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

    /// How many rows wait to be written, not counting that time has passed.
    pub fn pending(&self) -> usize {
        self.columns.rows()
    }

    /// How many bytes the file has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes what is pending, with the source's account if that has changed.
    ///
    /// # Errors
    ///
    /// When the file does not take it.
    pub fn flush(&mut self, counts: &SourceCounts, resolver: &mut CgroupResolver) -> io::Result<()> {
        self.put_time(resolver);
        if *counts != self.counts {
            self.counts = *counts;
            self.columns.counts(self.last_time, counts);
        }
        self.write_batch()
    }

    /// Writes the end marker, after which nothing is missing.
    ///
    /// # Errors
    ///
    /// When the file does not take it.
    pub fn finish(mut self, counts: &SourceCounts, resolver: &mut CgroupResolver) -> io::Result<W> {
        self.flush(counts, resolver)?;
        self.stream.finish().map_err(not_written)?;
        self.pass_on()?;
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
        self.pass_on()
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let encoded = self.stream.get_mut();
        self.file.write_all(encoded)?;
        self.bytes += encoded.len() as u64;
        encoded.clear();
        Ok(())
    }
}

/// Encoding into memory fails only on a mistake of this program.
fn not_written(error: ArrowError) -> io::Error {
    io::Error::other(error)
}
