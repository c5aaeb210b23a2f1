//! Writes rows to a Parquet file.

use std::{fs::File, io};

use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use crate::report::{
    export::{columns::ExportColumns, schema::Table},
    fields::Fields,
};

/// Rows per Arrow batch.
const BATCH_ROWS: usize = 8_192;
/// Rows per row group, which readers skip or read as a whole. The writer holds one in memory.
const GROUP_ROWS: usize = 131_072;

/// A Parquet file, compressed with Zstandard.
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

    pub(super) fn push(&mut self, row: &impl Fields) -> io::Result<()> {
        self.columns.push(row);
        if self.columns.rows() >= BATCH_ROWS { self.write_batch() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write_batch()?;
        self.writer.close()?;
        Ok(())
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let batch = self.columns.finish().map_err(io::Error::other)?;
        self.writer.write(&batch)?;
        Ok(())
    }
}
