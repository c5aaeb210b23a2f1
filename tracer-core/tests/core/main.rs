//! Tests of the tracker through its public interface: events in, observations out, no kernel.
//!
//! The scripted events of each case were observed on 6.18 or derived from its source: states, socket flags,
//! connection statistics, and whether the event names a process.

mod after_close;
mod backends;
mod close_reasons;
mod compare;
mod eviction;
mod freeze;
mod handshakes;
mod identity;
mod join;
mod lifecycles;
mod observed;
mod owners;
mod properties;
mod reference;
mod socket_dumps;
mod whole_handshake;
