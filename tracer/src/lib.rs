//! Traces every TCP state transition of a Linux host.
//!
//! Data flow: [`sources`] deliver events, the core (`tracer_core::lifecycle`) turns them into observations,
//! `tracer_core::analysis` aggregates them, and [`report`], [`agent`], [`top`] or [`recording`] outputs them.
//! ARCHITECTURE.md has the code map.

pub mod agent;
pub mod cli;
pub mod commands;
mod event_loop;
pub mod host;
pub mod recording;
pub mod report;
pub mod sources;
pub mod top;
