//! How tables look.

use crate::report::text::{style::Palette, table_width::TableWidth, wall_time::TimeStyle};

/// How tables look on their stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStyle {
    /// Which columns they have.
    pub width: TableWidth,
    /// The style of times of day.
    pub time: TimeStyle,
    /// The colors.
    pub palette: Palette,
}
