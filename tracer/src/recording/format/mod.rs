//! The format of a recording file: schema, metadata and kinds of rows.

mod header;
mod kind;
mod schema;
mod utc;

pub use header::{FrozenBy, Header, HeaderError};
pub use kind::Kind;
pub use schema::{COLUMNS, Column, ColumnType, arrow_schema};
pub(crate) use utc::{from_utc, to_utc};
