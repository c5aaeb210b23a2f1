//! Which TCP sockets exist now, read from the kernel's `NETLINK_SOCK_DIAG` (`man 7 sock_diag`).
//!
//! It only reads: no request that this module can build changes a socket. It needs no privilege for
//! the network namespace of the caller, and `CAP_SYS_ADMIN` to enter another one.
//!
//! The answer is a walk, not an instant: the kernel goes through its hash tables while connections
//! come and go, so a socket that is made or ended during the walk may or may not be in it.
//!
//! Sockets that are only bound, neither listening nor connecting, are in neither table and therefore
//! not listed.

pub mod decode;
mod dump;
mod error;
mod existing;
mod filter;
mod netlink;
mod reconcile;
mod socket;
mod tcp_info;
#[cfg(test)]
mod tests;

pub use decode::sockets_in;
pub use dump::{Channel, DumpReport, dump, dump_namespace, dump_namespace_at};
pub use error::SockDiagError;
pub use existing::{Existing, ResyncDump, existing, resync_dump};
pub use filter::{Filter, StateSet};
pub use reconcile::reconcile;
pub use socket::{Activity, Memory, Sending, Shutdown, SocketSnapshot, Timer, TimerKind};
