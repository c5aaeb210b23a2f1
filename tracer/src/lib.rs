//! Traces every TCP state transition of a Linux host.
//!
//! Data flow: [`sources`] deliver events, the core (`tracer_core::lifecycle`) turns them into observations,
//! `tracer_core::analysis` aggregates them, and [`report`], [`agent`], [`top`] or [`recording`] outputs them.
//! ARCHITECTURE.md has the code map.
//!
//! Without the feature `program`, which is on by default, the crate is a library: [`sources`], [`host`] and
//! [`recording`], and no dependency of the commands or the daemon.

#![cfg_attr(
    not(feature = "program"),
    allow(dead_code, unused_imports, reason = "the program uses more of the modules than they export")
)]

#[cfg(feature = "program")]
pub mod agent;
#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "program")]
pub mod commands;
#[cfg(feature = "program")]
mod event_loop;
#[cfg(feature = "program")]
mod flight_recorder;
pub mod host;
pub mod recording;
#[cfg(feature = "program")]
pub mod report;
pub mod sources;
#[cfg(feature = "program")]
pub mod top;
