//! Reads recording files.

mod check;
mod file;
mod frames;
mod rows;

pub use file::{Missing, NotARecording, Reader};
pub use rows::{RowContent, Rows};
