//! The processes that hold sockets, from `/proc`.

pub(super) mod files;
mod holder;
mod info;
pub(super) mod scan;

pub(crate) use info::ProcessInfo;
pub use scan::{ScanLimits, SocketOwners, scan};
