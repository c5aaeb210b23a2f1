//! The file format of a recording: an Arrow IPC stream with one row per event.
//!
//! [`COLUMNS`] is the schema and [`Header`] its metadata. [`Writer`] writes a recording to a [`Target`].
//! [`sources::recording`](crate::sources::recording) reads it.
//!
//! Each batch is written with one `write(2)`. So after any end of the program, the file is readable up to the last
//! complete batch. A clean end adds the end marker of the stream format.

mod format;
pub mod reader;
mod writer;

pub use format::{COLUMNS, Column, ColumnType, FrozenBy, Header, HeaderError, Kind, arrow_schema};
pub(crate) use format::{from_utc, to_utc};
pub use writer::{BATCH_ROWS, Writer};
pub(crate) use writer::{Output, Rotation, Target, create_new, write_open_sockets};

/// The version of the format. A reader accepts this version and earlier ones. New columns and metadata do not change
/// the version.
pub const FORMAT_VERSION: u32 = 1;
