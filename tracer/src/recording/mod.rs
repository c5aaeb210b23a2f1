//! The file format of a recording: an Arrow IPC stream with one row per event.
//!
//! [`COLUMNS`] is the schema, [`Header`] its metadata, [`Writer`] writes it, [`Target`] is where to. The
//! reader is a source like any other: [`source::recording`](crate::sources::recording).
//!
//! A batch is handed to the kernel by one `write(2)`, so that whatever ends the program leaves a file that
//! reads up to the last whole batch; a clean end leaves the end marker of the stream format behind it.

mod format;
pub mod reader;
mod writer;

pub use format::{COLUMNS, Column, ColumnType, Header, HeaderError, Kind, arrow_schema};
pub(crate) use format::{from_utc, to_utc};
pub(crate) use writer::create_new;
pub use writer::{BATCH_ROWS, Output, Rotation, Target, TargetError, Writer};

/// The version of the format. A reader takes files of this version and of earlier ones; columns and
/// metadata may be added without a new one.
pub const FORMAT_VERSION: u32 = 1;
