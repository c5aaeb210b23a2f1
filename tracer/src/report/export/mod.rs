//! Exports connections and transitions to Parquet and CSV files, partitioned by host and hour.

mod columns;
mod parquet_file;
mod partitions;
mod schema;

pub use partitions::{Destination, ExportError, FileFormat, Partitions};
pub use schema::{ExportRow, Table};
