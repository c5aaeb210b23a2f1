//! What many connections have in common: pure aggregation over what the core reports.
//!
//! As pure as the core: no I/O and no clock, so a replay gives the same figures. Everything is bounded,
//! and what did not fit is counted.

mod attempt;
mod group_key;
mod handshakes;
mod histogram;
mod resends;
mod score;
mod sketch;
mod state_graph;

pub use attempt::{HandshakeAttempt, HandshakeOutcome, TimeSplit};
pub use group_key::{GroupKey, HandshakesBy};
pub use handshakes::{GroupReport, HandshakeReport, HandshakeStats, Handshakes, HandshakesOptions};
pub use histogram::{Bucket, Histogram};
pub use resends::{ResendSchedule, client_schedule, server_schedule};
pub use score::{Fault, WorstOffender};
pub use sketch::DurationSketch;
pub use state_graph::{Edge, EdgeStats, LiveCounts, StateGraph, is_pathological};
