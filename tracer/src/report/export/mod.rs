//! Connections and transitions as files for other engines: Parquet and CSV, by host and hour.

mod columns;
mod parquet_file;
mod partitions;
mod schema;

pub use partitions::{Destination, ExportError, FileFormat, Partitions};
pub use schema::{ExportColumn, ExportType, SCHEMA_VERSION, Table};
