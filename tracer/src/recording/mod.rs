//! The file format of a recording: an Arrow IPC stream with one row per event.
//!
//! [`COLUMNS`] is the schema, [`Header`] its metadata, [`Writer`] writes it, [`Target`] is where to. The
//! reader is a source like any other: [`source::recording`](crate::source::recording).
//!
//! A batch is handed to the kernel by one `write(2)`, so that whatever ends the program leaves a file that
//! reads up to the last whole batch; a clean end leaves the end marker of the stream format behind it.

mod addresses;
mod batches;
mod columns;
mod figures;
mod header;
mod interner;
mod kind;
mod owners;
mod packing;
mod presence;
mod schema;
mod sparse;
mod synced;
mod target;
mod wall;
mod writer;

pub use header::{Header, HeaderError};
pub use kind::Kind;
pub use schema::{COLUMNS, Column, ColumnType, arrow_schema};
pub(crate) use target::create_new;
pub use target::{Output, Rotation, Target, TargetError};
pub use wall::{from_utc, to_utc};
pub use writer::{BATCH_ROWS, Writer};

/// The version of the format. A reader takes files of this version and of earlier ones; columns and
/// metadata may be added without a new one.
pub const FORMAT_VERSION: u32 = 1;
