//! Text for people: durations, sizes, endpoints, names, times, table lines.

pub(super) mod comparison;
pub(super) mod endpoint;
pub(super) mod errno;
pub(super) mod handshake;
pub(super) mod joined;
pub(super) mod marks;
pub(super) mod name;
pub(super) mod quantity;
pub(super) mod style;
pub(super) mod table;
pub(super) mod table_style;
pub(super) mod table_width;
pub(super) mod wall_time;
mod write;

pub(super) use write::{OrDash, Text};
