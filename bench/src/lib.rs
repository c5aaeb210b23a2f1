//! Loads for `cargo xtask bench` and for the limits in `tests/`.
//!
//! In-memory loads pass generated events to the library. Kernel loads open connections in a new network
//! namespace. `xtask` reads, compares and reports the results.

pub mod allocations;
pub mod replay;
pub mod workload;
