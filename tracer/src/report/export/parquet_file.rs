//! Rows into a Parquet file.

use std::{fs::File, io};

use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::Value;

use crate::report::export::{columns::ExportColumns, schema::Table};

/// Rows that are handed on together.
const BATCH_ROWS: usize = 8_192;
/// Rows of a row group: what a reader skips or reads as a whole, and what is in memory until it is full.
const GROUP_ROWS: usize = 131_072;

/// A Parquet file, compressed by Zstandard.
pub(super) struct ParquetFile {
    columns: ExportColumns,
    writer: ArrowWriter<File>,
}

impl ParquetFile {
    pub(super) fn new(file: File, table: Table) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_created_by(concat!("tcptrace-bpf version ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let columns = ExportColumns::new(table);
        let writer = ArrowWriter::try_new(file, columns.schema().clone(), Some(properties))?;
        Ok(Self { columns, writer })
    }

    pub(super) fn push(&mut self, row: &Value) -> io::Result<()> {
        self.columns.push(row);
        if self.columns.rows() >= BATCH_ROWS { self.pass_on() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.pass_on()?;
        self.writer.close()?;
        Ok(())
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let batch = self.columns.finish().map_err(io::Error::other)?;
        self.writer.write(&batch)?;
        Ok(())
    }
}
