//! Joins the handshakes of two hosts: which of SYN, SYN-ACK and ACK was lost, from what both ends saw.
//!
//! Each host contributes the [ends](HandshakeEnd) of its handshakes. [`HandshakeJoin`] matches the client's end of a connection on one
//! host with the server's end on the other by their initial sequence numbers, estimates the [offset](ClockBounds) of the
//! clocks from the matched pairs, and derives the [fate](HandshakeFate) of each segment.

mod clock;
mod end;
mod fate;
mod matching;
mod report;
mod traceless;

pub use clock::{ClockBounds, ClockEstimate, MAX_DRIFT};
pub use end::{HandshakeEnd, UtcTime};
pub use fate::{HandshakeFate, OneWayTimes, SpanBounds};
pub use matching::MatchedBy;
pub use report::{
    HandshakeJoin, JoinCounts, JoinReport, JoinSide, JoinSideCounts, JoinedHandshake, MAX_DROPS, MAX_ENDS,
};
