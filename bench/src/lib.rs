//! The loads that `cargo xtask bench` measures with, and what its guards in `tests/` share with them.
//!
//! Loads in memory feed the library with generated events; loads in the kernel make connections in a
//! network namespace of their own. Nothing here judges a figure: `xtask` reads, compares and reports them.

pub mod allocations;
pub mod replay;
pub mod workload;
