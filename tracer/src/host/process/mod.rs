//! Processes: which holds a socket, and what `/proc` says of it.

pub(super) mod files;
mod holder;
mod info;
pub(super) mod scan;

pub use info::ProcessInfo;
pub use scan::{ScanCounts, ScanLimits, SocketOwners, scan};
