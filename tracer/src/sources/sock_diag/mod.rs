//! Dumps the existing TCP sockets with `NETLINK_SOCK_DIAG` (`man 7 sock_diag`).
//!
//! The module only reads: none of its requests changes a socket. The network namespace of the caller requires no
//! privilege; entering another one requires `CAP_SYS_ADMIN`.
//!
//! A dump is not atomic. The kernel walks its hash tables while connections open and close, so a socket that is created
//! or closed during the dump may be missing.
//!
//! Sockets that are bound, but neither listen nor connect, are in none of these tables and therefore missing.

pub mod decode;
mod dump;
mod error;
mod existing;
mod listeners;
pub(in crate::sources) mod netlink;
mod readings;
mod reconcile;
mod socket;
mod states;
mod tcp_info;
#[cfg(test)]
mod tests;

pub use decode::sockets_in;
pub(crate) use dump::in_namespace;
pub use dump::{Channel, DumpReport};
pub use error::SockDiagError;
pub(crate) use existing::{Existing, ResyncDump, existing, own_namespace, resync_dump};
pub(crate) use listeners::{ListenerWatch, WatchedListeners};
pub(crate) use reconcile::reconcile;
pub use socket::{SocketSnapshot, Timer, TimerKind};
pub use states::StateSet;
