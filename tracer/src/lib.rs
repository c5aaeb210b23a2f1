//! Traces every TCP state transition of a Linux host.
//!
//! One way through the house: a [`source`] delivers [`event`]s, the pure [`lifecycle`] core turns them
//! into observations, [`analysis`] sums them up, and [`output`] writes them. ARCHITECTURE.md has the map.

pub mod agent;
pub mod cli;
pub mod commands;
pub mod event_loop;
pub mod host;
pub mod recording;
pub mod report;
pub mod sources;
pub mod top;
