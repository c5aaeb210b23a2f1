//! Traces every TCP state transition of a Linux host.
//!
//! One way through the house: a [`source`] delivers [`event`]s, the pure [`lifecycle`] core turns them
//! into observations, [`analysis`] sums them up, and [`output`] writes them. ARCHITECTURE.md has the map.

pub mod analysis;
pub mod cli;
pub mod commands;
pub mod event;
pub mod export;
pub mod filter;
pub mod lifecycle;
pub mod metrics;
pub mod output;
pub mod owner;
pub mod recording;
pub mod source;
pub mod top;
