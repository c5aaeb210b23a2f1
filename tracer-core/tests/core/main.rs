//! The lifecycle core through its public interface: events in, observations out, no kernel.
//!
//! What the kernel sends for each case is written down in the tests as it was seen on 6.18, or read in
//! its source: states, socket flags, figures, and whether a process is named.

mod after_close;
mod close_reasons;
mod eviction;
mod handshakes;
mod identity;
mod lives;
mod observed;
mod owners;
mod properties;
mod reference;
mod socket_dumps;
