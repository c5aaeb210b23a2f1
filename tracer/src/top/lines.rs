//! What there is to draw.

use tracer_core::{
    analysis::Edge,
    event::{Endpoint, Process, SocketId, TcpState, Timestamp},
    lifecycle::{Role, StateSpan},
};

/// All that the screen shows, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The traced host's time.
    pub now: Timestamp,
    /// Connections in the table of the core, those that a filter hides included.
    pub live: u64,
    /// Transitions seen.
    pub transitions: u64,
    /// Transitions in the last second.
    pub per_second: u64,
    /// Transitions that were lost or skipped.
    pub missing: u64,
    /// The states.
    pub states: Vec<StateLine>,
    /// The edges that a connection went along.
    pub edges: Vec<EdgeLine>,
    /// The connections that are listed, sorted.
    pub connections: Vec<ConnectionLine>,
    /// How many match, of which those listed are the first.
    pub matching: u64,
    /// The processes, those with the most connections first.
    pub owners: Vec<OwnerLine>,
    /// Handshakes in groups, those that cost the most first.
    pub handshakes: Vec<HandshakeLine>,
    /// The slowest handshakes: their group, and their story.
    pub slowest: Vec<(String, String)>,
    /// How the handshakes' durations are distributed, drawn.
    pub histogram: Vec<String>,
    /// The connections that stay too long in a state, the longest first.
    pub stuck: Vec<ConnectionLine>,
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLine {
    /// Which.
    pub state: TcpState,
    /// Connections in it.
    pub live: u64,
    /// The median of the time in it, nanoseconds.
    pub p50_ns: Option<u64>,
    /// The 99th percentile, nanoseconds.
    pub p99_ns: Option<u64>,
}

/// An edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLine {
    /// Which.
    pub edge: Edge,
    /// Connections that went along it.
    pub count: u64,
    /// In the last second.
    pub per_second: u64,
}

/// A live connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLine {
    /// Its socket.
    pub socket: SocketId,
    /// The local end.
    pub local: Endpoint,
    /// The remote end.
    pub remote: Endpoint,
    /// Which side opened it.
    pub role: Role,
    /// Its process.
    pub process: Option<Process>,
    /// How the process is known.
    pub owner_source: &'static str,
    /// Inode of its network namespace.
    pub netns: Option<u32>,
    /// Its state.
    pub state: TcpState,
    /// The time in the state, nanoseconds.
    pub age_ns: Option<u64>,
    /// The time is a lower bound.
    pub at_least: bool,
    /// Its handshake, nanoseconds.
    pub handshake_ns: Option<u64>,
    /// SYNs that were sent again.
    pub syn_retransmits: Option<u8>,
    /// Its states so far.
    pub spans: Vec<StateSpan>,
    /// Its beginning was not seen.
    pub incomplete: bool,
}

/// A group of handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeLine {
    /// What they share.
    pub group: String,
    /// Openings that were over.
    pub count: u64,
    /// Those that were not completed.
    pub failed: u64,
    /// Completed ones that lost a SYN.
    pub lost: u64,
    /// The median, the 99th percentile and the maximum of the completed ones, nanoseconds.
    pub times_ns: [Option<u64>; 3],
    /// What is wrong, in words; empty for nothing.
    pub why: String,
    /// It is worth naming.
    pub culprit: bool,
}

/// A process with its live connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerLine {
    /// The process; none for those whose process is not known.
    pub process: Option<Process>,
    /// Connections.
    pub count: u64,
    /// How many of them in each state that there are any in, the most first.
    pub states: Vec<(TcpState, u64)>,
}
