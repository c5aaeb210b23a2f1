//! The program against the real kernel: each scenario makes one kind of connection in a network
//! namespace of its own and asserts what the program says about it.
//!
//! They take root, and fail without.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abandoned;
mod accounting;
mod closing;
mod crossing;
mod diagram;
mod filters;
mod formats;
mod handshakes;
mod investigation;
mod life;
mod opening;
mod overload;
mod owners;
mod prometheus;
mod recording;
mod remains;
mod robustness;
mod running;
mod serve;
mod snapshot;
mod stuck;
mod support;
mod top;
