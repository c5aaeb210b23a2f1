//! Aggregates observations over many connections.
//!
//! Like the tracker, the analyses perform no I/O and read no clock, so a replay gives the same results. Their
//! memory is bounded, and everything over a limit is counted.

mod attempt;
mod compare;
mod connection_readings;
mod freeze;
mod group_key;
mod handshakes;
mod histogram;
mod join;
mod listeners;
mod retransmits;
mod score;
mod sketch;
mod state_graph;

pub use attempt::{HandshakeAttempt, HandshakeOutcome, TimeSplit};
pub use compare::{
    ComparePeriod, CompareReport, ComparedGroup, MAX_COMPARED_GROUPS, MAX_COMPARED_SAMPLES, MIN_SHIFT,
    MIN_SHIFT_PERCENT, Measure, PeriodShare, SIGNIFICANCE, Shift, Verdict,
};
pub use connection_readings::{
    ByteRates, ConnectionCounters, ConnectionDump, ConnectionReading, ConnectionReadings, ConnectionSnapshot,
};
pub use freeze::{
    FreezeCondition, FreezeCount, FreezeMeasure, FreezeReason, FreezeTrigger, FreezeTriggerOptions,
    MIN_HANDSHAKES, Measured,
};
pub use group_key::{GroupKey, HandshakesBy};
pub use handshakes::{GroupReport, HandshakeReport, HandshakeStats, Handshakes, HandshakesOptions};
pub use histogram::{Bucket, Histogram};
pub use join::{
    ClockBounds, ClockEstimate, HandshakeEnd, HandshakeFate, HandshakeJoin, JoinCounts, JoinReport, JoinSide,
    JoinSideCounts, JoinedHandshake, MAX_DRIFT, MAX_DROPS, MAX_ENDS, MatchedBy, OneWayTimes, SpanBounds,
    UtcTime,
};
pub use listeners::{
    AddressCounts, ListenAddress, ListenerActivity, ListenerDump, ListenerHandshakes, ListenerProcesses,
    ListenerReport, ListenerSnapshot, NetnsSet,
};
pub use retransmits::RetransmitSchedule;
pub use score::{Fault, GroupScore};
pub use sketch::DurationSketch;
pub use state_graph::{Edge, EdgeStats, LiveCounts, StateGraph, is_pathological};
