//! The backends behind translated addresses, from the kernel's connection tracking (conntrack, `nf_conntrack_netlink`).
//!
//! The kernel announces each new entry of the table before the client's SYN leaves the host, so the translation of a
//! handshake is known before the handshake ends. An open subscription needs no privilege, and no connection is looked up.
//! The cost is that of an announcement for every tracked connection of the network namespace, translated or not.

mod decode;
mod subscription;

pub(crate) use decode::Translation;
pub(crate) use subscription::{ConntrackError, Subscription, probe};
