//! Compares the documentation with the program: fields, reasons, sources, caveats, options, names.
//!
//! These tests need the source tree and no kernel support. `cargo xtask vm` runs static builds on machines
//! without the source tree, so static builds omit these tests.
#![cfg(not(target_feature = "crt-static"))]

mod commands;
mod links;
#[path = "../shared/markdown.rs"]
mod markdown;
mod output;
mod page;
mod reference;
