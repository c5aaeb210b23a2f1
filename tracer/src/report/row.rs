//! A line of output in every format.

use std::fmt;

use crate::report::{fields::Fields, text::table_style::TableStyle};

/// A row: its fields for machines, and its line of a table for people.
pub trait Row: Fields {
    /// Writes the header of the table. A line may end in spaces.
    ///
    /// # Errors
    ///
    /// None: writing to a string does not fail.
    fn header(line: &mut String, style: TableStyle) -> fmt::Result;

    /// Writes the row of the table. A line may end in spaces.
    ///
    /// # Errors
    ///
    /// None: writing to a string does not fail.
    fn line(&self, line: &mut String, style: TableStyle) -> fmt::Result;
}
