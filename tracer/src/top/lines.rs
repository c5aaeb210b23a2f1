//! The data of a screen, ready to draw.

use tracer_core::{
    analysis::{ConnectionReading, Edge},
    event::{AcceptQueue, Endpoint, Nanos, Netns, Process, SocketId, TcpState, Timestamp},
    lifecycle::{Role, StateSpan},
};

use crate::top::Tab;

/// Everything on the screen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The traced host's time.
    pub now: Timestamp,
    /// Connections in the core's table, including filtered ones.
    pub live: u64,
    /// Transitions seen.
    pub transitions: u64,
    /// Transitions in the last second.
    pub per_second: u64,
    /// Transitions that were lost or skipped.
    pub missing: u64,
    /// The states.
    pub states: Vec<StateLine>,
    /// The edges with at least one transition.
    pub edges: Vec<EdgeLine>,
    /// The listed connections, sorted.
    pub connections: Vec<ConnectionLine>,
    /// The number of matching connections; the list may be shorter.
    pub matching: u64,
    /// Whether bytes and round-trip times are read; false in a replay, which has no sockets to read them from.
    pub reads_bytes: bool,
    /// Open connections of the host whose bytes are not read because there are too many.
    pub unread_connections: u64,
    /// The listed processes, sorted.
    pub owners: Vec<OwnerLine>,
    /// The listed handshake groups, sorted.
    pub handshakes: Vec<HandshakeLine>,
    /// The slowest handshakes: group and explanation.
    pub slowest: Vec<(String, String)>,
    /// The histogram of handshake durations, as text.
    pub histogram: Vec<String>,
    /// The listed connections beyond the threshold of their state, sorted.
    pub stuck: Vec<ConnectionLine>,
    /// The number of connections beyond the threshold of their state, including those that are not listed.
    pub beyond_threshold: u64,
    /// The listed listening sockets, sorted; none in a replay, which has no queues to look at.
    pub listeners: Option<Vec<ListenerLine>>,
    /// Half-open handshakes in the last socket dump, also of filtered listeners.
    pub half_open: u64,
}

impl Screen {
    /// Returns the number of lines of the table in a tab.
    pub fn lines(&self, tab: Tab) -> usize {
        match tab {
            Tab::Diagram | Tab::Connections => self.connections.len(),
            Tab::Owners => self.owners.len(),
            Tab::Handshakes => self.handshakes.len(),
            Tab::Stuck => self.stuck.len(),
            Tab::Listeners => self.listeners.as_ref().map_or(0, Vec::len),
        }
    }
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLine {
    /// Which.
    pub state: TcpState,
    /// Live connections in it.
    pub live: u64,
    /// Median time in it.
    pub p50: Option<Nanos>,
    /// 99th percentile of the time in it.
    pub p99: Option<Nanos>,
}

/// An edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLine {
    /// Which.
    pub edge: Edge,
    /// Transitions along it.
    pub count: u64,
    /// Transitions in the last second.
    pub per_second: u64,
}

/// A live connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLine {
    /// Its socket.
    pub socket: SocketId,
    /// The local address and port.
    pub local: Endpoint,
    /// The remote address and port.
    pub remote: Endpoint,
    /// This host's role.
    pub role: Role,
    /// Its process.
    pub process: Option<Process>,
    /// How the process was found.
    pub owner_source: &'static str,
    /// Inode of its network namespace.
    pub netns: Option<Netns>,
    /// Its state.
    pub state: TcpState,
    /// The time in the state.
    pub age: Option<Nanos>,
    /// The time in the state is a lower bound.
    pub at_least: bool,
    /// The handshake duration.
    pub handshake: Option<Nanos>,
    /// Retransmitted SYNs or SYN-ACKs.
    pub syn_retransmits: Option<u8>,
    /// Its states so far.
    pub spans: Vec<StateSpan>,
    /// Its start was not seen.
    pub incomplete: bool,
    /// The kernel's counters; none before the first reading, and in a replay.
    pub reading: Option<ConnectionReading>,
}

impl ConnectionLine {
    /// Returns the bytes sent per second, between the last two readings.
    pub(super) fn sent_rate(&self) -> Option<u64> {
        Some(self.reading?.rates?.sent)
    }

    /// Returns the bytes received per second, between the last two readings.
    pub(super) fn received_rate(&self) -> Option<u64> {
        Some(self.reading?.rates?.received)
    }

    /// Returns the smoothed round-trip time of the last reading.
    pub(super) fn rtt(&self) -> Option<Nanos> {
        self.reading?.counters.srtt.map(Nanos::from)
    }
}

/// A group of handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeLine {
    /// The group key.
    pub group: String,
    /// Finished handshakes.
    pub count: u64,
    /// Handshakes that did not complete.
    pub failed: u64,
    /// Completed handshakes with a retransmitted SYN or SYN-ACK.
    pub resent: u64,
    /// Handshakes that finished in the last second.
    pub per_second: u64,
    /// Median, 99th percentile and maximum duration of the completed handshakes.
    pub times: [Option<Nanos>; 3],
    /// The faults in words; empty without a fault.
    pub why: String,
    /// The group is a worst offender.
    pub is_offender: bool,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLine {
    /// The address and port on which it listens.
    pub local: Endpoint,
    /// Inode of its network namespace.
    pub netns: Option<Netns>,
    /// A process that holds it.
    pub process: Option<Process>,
    /// The accept queue.
    pub queue: Option<AcceptQueue>,
    /// Half-open handshakes; none if unknown.
    pub half_open: Option<u64>,
    /// Drops since the start; none if unknown.
    pub drops: Option<u32>,
    /// Completed handshakes since the start; none if other listeners share the address.
    pub established: Option<u64>,
    /// Handshakes that clients abandoned, likewise.
    pub abandoned: Option<u64>,
    /// Handshakes that completed in the last second, likewise.
    pub per_second: Option<u64>,
    /// 99th percentile of the durations of completed handshakes.
    pub handshake_p99: Option<Nanos>,
    /// 99th percentile of the waits for `accept()`.
    pub accept_wait_p99: Option<Nanos>,
}

/// A process with its live connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerLine {
    /// The process; `None` for connections without a known process.
    pub process: Option<Process>,
    /// Connections.
    pub count: u64,
    /// Connections by state, most first; states without connections are omitted.
    pub states: Vec<(TcpState, u64)>,
    /// Bytes sent per second by the connections whose rate is known; none if no rate is known.
    pub sent_rate: Option<u64>,
    /// Bytes received per second, likewise.
    pub received_rate: Option<u64>,
}
