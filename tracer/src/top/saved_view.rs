//! The view as a JSON object, with every table of the moment. Names and units are those of the other output.

use std::net::IpAddr;

use tracer_core::{
    event::{ClockOffset, Nanos, Netns, Process, TcpState, Timestamp},
    lifecycle::{Age, StateSpan},
};

use crate::{
    report::{
        ProcessName, Rfc3339, fields::fields, json_line, known_address, known_port, microseconds,
        network_type, rfc3339,
    },
    top::{
        ConnectionLine, EdgeLine, HandshakeLine, ListenerLine, OwnerLine, Queries, Screen, Settings,
        StateLine, Tab,
    },
};

/// A view to save.
#[derive(Clone, Copy, Debug)]
pub struct SavedView<'a> {
    screen: &'a Screen,
    settings: &'a Settings,
    clock: ClockOffset,
}

impl<'a> SavedView<'a> {
    /// Creates the view of a screen under these settings. `clock` is the traced host's.
    pub fn new(screen: &'a Screen, settings: &'a Settings, clock: ClockOffset) -> Self {
        Self { screen, settings, clock }
    }

    /// Returns the view as one line with a JSON object.
    pub fn to_json(&self) -> Vec<u8> {
        json_line(self)
    }

    fn connections(&self, lines: &'a [ConnectionLine]) -> Vec<SavedConnection<'a>> {
        lines.iter().map(|line| SavedConnection { line, now: self.screen.now }).collect()
    }
}

fields! { SavedView<'_>, |view| {
    /// `top`
    type: &'static str = "top";
    /// The traced host's time of the view
    time: Rfc3339 ["ns"] = rfc3339(view.screen.now, view.clock);
    /// The selected tab: `diagram`, `connections`, `owners`, `handshakes`, `stuck`, `listeners`
    tab: String = view.settings.tab.name().to_lowercase();
    /// The order and the filters of each table
    tables: Vec<SavedQuery<'_>> = queries(&view.settings.queries);
    /// Open connections of the host, filtered ones included
    open_connections: u64 ["connections"] = view.screen.live;
    /// Transitions since the start
    transitions: u64 ["transitions"] = view.screen.transitions;
    /// Transitions in the last second
    transitions_per_second: u64 ["transitions"] = view.screen.per_second;
    /// Transitions that were lost or skipped
    missed: u64 ["transitions"] = view.screen.missing;
    /// Half-open handshakes in the last socket dump
    half_open: u64 ["handshakes"] = view.screen.half_open;
    /// The states of the diagram
    states: Vec<SavedState> = view.screen.states.iter().map(|line| SavedState(*line)).collect();
    /// The edges of the diagram that connections took
    edges: Vec<SavedEdge> = view.screen.edges.iter().map(|line| SavedEdge(*line)).collect();
    /// Connections that match the filters; at most 1000 of them are listed
    matching_connections: u64 ["connections"] = view.screen.matching;
    /// The listed connections
    connections: Vec<SavedConnection<'_>> = view.connections(&view.screen.connections);
    /// Open connections whose bytes are not read, because at most 131,072 are
    unread_connections: u64 ["connections"] = view.screen.unread_connections;
    /// The listed processes
    owners: Vec<SavedOwner<'_>> = view.screen.owners.iter().map(SavedOwner).collect();
    /// The listed groups of handshakes
    handshake_groups: Vec<SavedGroup<'_>> = view.screen.handshakes.iter().map(SavedGroup).collect();
    /// The slowest handshakes
    handshake_slow: Vec<SavedSlow<'_>> =
        view.screen.slowest.iter().map(|(group, story)| SavedSlow { group, story }).collect();
    /// Connections beyond the threshold of their state
    stuck_connections: u64 ["connections"] = view.screen.beyond_threshold;
    /// Those that are listed, with the fields of `connections`
    stuck: Vec<SavedConnection<'_>> = view.connections(&view.screen.stuck);
    /// The listed listeners; null for a recording
    listeners: Option<Vec<SavedListener<'_>>> =
        view.screen.listeners.as_ref().map(|lines| lines.iter().map(SavedListener).collect());
}}

/// The order and the filters of a table.
struct SavedQuery<'a> {
    tab: Tab,
    queries: &'a Queries,
}

/// Returns the order and the filters of each table. The diagram has no table of its own.
fn queries(queries: &Queries) -> Vec<SavedQuery<'_>> {
    Tab::ALL.into_iter().filter(|tab| *tab != Tab::Diagram).map(|tab| SavedQuery { tab, queries }).collect()
}

fields! { SavedQuery<'_>, |table| {
    /// The tab with the table
    tab: String = table.tab.name().to_lowercase();
    /// The column that sorts the table, as in its title
    sort: &'static str = table.queries.of(table.tab).sort.name();
    /// The order is reversed
    reversed: bool = table.queries.of(table.tab).reversed;
    /// Only connections in this state are listed; null if all are
    state: Option<&'static str> = table.queries.of(table.tab).state.map(TcpState::name);
    /// Only lines with this text are listed; empty if all are
    search: &str = table.queries.of(table.tab).search.as_str();
}}

/// A state of the diagram.
struct SavedState(StateLine);

fields! { SavedState, |line| {
    /// The state
    state: &'static str = line.0.state.name();
    /// Connections in the state
    live: u64 ["connections"] = line.0.live;
    /// Median time in the state, within 1 %. Null if unknown
    p50_us: Option<f64> ["us"] = line.0.p50.map(microseconds);
    /// 99th percentile of that time, within 1 %. Null if unknown
    p99_us: Option<f64> ["us"] = line.0.p99.map(microseconds);
}}

/// An edge of the diagram.
struct SavedEdge(EdgeLine);

fields! { SavedEdge, |line| {
    /// State left
    from: &'static str = line.0.edge.0.name();
    /// State entered
    to: &'static str = line.0.edge.1.name();
    /// Connections that took the edge
    count: u64 ["connections"] = line.0.count;
    /// Connections that took the edge in the last second
    count_per_second: u64 ["connections"] = line.0.per_second;
}}

/// A connection at the time of the view.
struct SavedConnection<'a> {
    line: &'a ConnectionLine,
    now: Timestamp,
}

impl SavedConnection<'_> {
    fn age_source(&self) -> &'static str {
        let age = self.line.age.unwrap_or_default();
        if self.line.at_least { Age::AtLeast(age).source() } else { Age::Observed(age).source() }
    }
}

fields! { SavedConnection<'_>, |row| {
    /// As in `connection`
    role: &'static str = row.line.role.name();
    /// `ipv4` or `ipv6`
    network_type: &'static str = network_type(row.line.local);
    /// Local address
    local_address: IpAddr = row.line.local.address;
    /// Local port; null if none is bound
    local_port: Option<u16> = known_port(row.line.local);
    /// Remote address
    remote_address: Option<IpAddr> = known_address(row.line.remote);
    /// Remote port
    remote_port: Option<u16> = known_port(row.line.remote);
    /// Its state
    state: &'static str = row.line.state.name();
    /// Time in that state; null if unknown
    age_us: Option<f64> ["us"] = row.line.age.map(microseconds);
    /// `observed`: the transition into the state was traced. `at_least`: a lower bound
    age_source: &'static str = row.age_source();
    /// Every state and the time spent in it, as in `connection`; the last is the current state
    states: Vec<StateSpan> = row.line.spans.clone();
    /// As in `connection`
    handshake_us: Option<f64> ["us"] = row.line.handshake.map(microseconds);
    /// As in `connection`
    syn_retransmits: Option<u8> ["segments"] = row.line.syn_retransmits;
    /// Payload bytes sent, without retransmissions. Null before the first reading, and for a recording
    bytes_sent: Option<u64> ["bytes"] = row.line.reading.map(|reading| reading.counters.bytes_sent);
    /// Payload bytes received in order
    bytes_received: Option<u64> ["bytes"] = row.line.reading.map(|reading| reading.counters.bytes_received);
    /// Bytes sent per second between the last two readings. Null before the second reading
    bytes_sent_per_second: Option<u64> ["bytes"] = row.line.sent_rate();
    /// Bytes received per second between the last two readings
    bytes_received_per_second: Option<u64> ["bytes"] = row.line.received_rate();
    /// Segments retransmitted over the whole connection, SYN and SYN-ACK included
    retransmits: Option<u32> ["segments"] = row.line.reading.map(|reading| reading.counters.retransmits);
    /// Smoothed round-trip time, whole microseconds
    srtt_us: Option<u32> ["us"] = row.line.reading.and_then(|reading| reading.counters.srtt).map(|rtt| rtt.0);
    /// Smallest round-trip time in the kernel's window, whole microseconds
    min_rtt_us: Option<u32> ["us"] =
        row.line.reading.and_then(|reading| reading.counters.min_rtt).map(|rtt| rtt.0);
    /// Bytes received that the application has not read
    unread_bytes: Option<u32> ["bytes"] = row.line.reading.map(|reading| reading.counters.unread_bytes);
    /// Bytes written that the peer has not acknowledged
    unacked_bytes: Option<u32> ["bytes"] = row.line.reading.map(|reading| reading.counters.unacked_bytes);
    /// Time since the socket dump that read `bytes_sent` to `unacked_bytes` began
    reading_age_us: Option<f64> ["us"] =
        row.line.reading.map(|reading| microseconds(row.now.since(reading.read_at)));
    /// Process id of the owner
    pid: Option<u32> = row.line.process.map(|process| process.pid);
    /// Name of the owner
    process: Option<ProcessName> = row.line.process.map(ProcessName);
    /// How the owner was found: see [owners](#owners)
    owner_source: &'static str = row.line.owner_source;
    /// Inode of the network namespace
    netns: Option<Netns> = row.line.netns;
    /// Its start was not seen
    incomplete: bool = row.line.incomplete;
}}

/// A process with its connections.
struct SavedOwner<'a>(&'a OwnerLine);

/// How many connections of a process are in a state.
struct StateCount {
    state: TcpState,
    count: u64,
}

fields! { StateCount, |state| {
    /// The state
    state: &'static str = state.state.name();
    /// Connections in the state
    count: u64 ["connections"] = state.count;
}}

fn state_counts(line: &OwnerLine) -> Vec<StateCount> {
    line.states.iter().map(|&(state, count)| StateCount { state, count }).collect()
}

fields! { SavedOwner<'_>, |owner| {
    /// Process id; null for connections without a known process
    pid: Option<u32> = pid(owner.0.process);
    /// Name of the process
    process: Option<ProcessName> = owner.0.process.map(ProcessName);
    /// Its listed connections
    count: u64 ["connections"] = owner.0.count;
    /// `{state, count}` for each state, the most frequent first
    states: Vec<StateCount> = state_counts(owner.0);
    /// Bytes sent per second by the connections whose rate is known. Null if no rate is known
    bytes_sent_per_second: Option<u64> ["bytes"] = owner.0.sent_rate;
    /// Bytes received per second, likewise
    bytes_received_per_second: Option<u64> ["bytes"] = owner.0.received_rate;
}}

fn pid(process: Option<Process>) -> Option<u32> {
    process.map(|process| process.pid)
}

/// A group of handshakes.
struct SavedGroup<'a>(&'a HandshakeLine);

impl SavedGroup<'_> {
    fn time(&self, index: usize) -> Option<f64> {
        let times: [Option<Nanos>; 3] = self.0.times;
        times[index].map(microseconds)
    }
}

fields! { SavedGroup<'_>, |group| {
    /// The peer or local port that its handshakes share, as in the table
    group: &str = group.0.group.as_str();
    /// Handshakes that completed, failed or were abandoned
    count: u64 ["handshakes"] = group.0.count;
    /// `count` in the last second
    count_per_second: u64 ["handshakes"] = group.0.per_second;
    /// Handshakes that failed or were abandoned
    failed: u64 ["handshakes"] = group.0.failed;
    /// Completed handshakes with a retransmitted SYN; for a server, SYN-ACK
    lost_syn: u64 ["handshakes"] = group.0.resent;
    /// Median duration of completed handshakes, within 1 %. Null if none completed
    p50_us: Option<f64> ["us"] = group.time(0);
    /// 99th percentile, within 1 %. Null if none completed
    p99_us: Option<f64> ["us"] = group.time(1);
    /// Longest duration, exact. Null if none completed
    max_us: Option<f64> ["us"] = group.time(2);
    /// The group's problem, in words that may change; null if there is none
    why: Option<&str> = Some(group.0.why.as_str()).filter(|why| !why.is_empty());
}}

/// A slow handshake.
struct SavedSlow<'a> {
    group: &'a str,
    story: &'a str,
}

fields! { SavedSlow<'_>, |slow| {
    /// The group of the handshake
    group: &str = slow.group;
    /// What happened, in words that may change
    story: &str = slow.story;
}}

/// A listening socket.
struct SavedListener<'a>(&'a ListenerLine);

fields! { SavedListener<'_>, |listener| {
    /// Address that it listens on; `0.0.0.0` or `::` for every address
    local_address: IpAddr = listener.0.local.address;
    /// Port that it listens on
    local_port: Option<u16> = known_port(listener.0.local);
    /// Connections waiting for `accept()`
    accept_queue: Option<u32> ["connections"] = listener.0.queue.map(|queue| queue.length);
    /// The backlog of `listen()`, capped by `somaxconn`
    accept_queue_limit: Option<u32> ["connections"] = listener.0.queue.map(|queue| queue.limit);
    /// Half-open handshakes. Null if other listeners share the address
    half_open: Option<u64> ["handshakes"] = listener.0.half_open;
    /// Segments dropped since the start; null as in `listener`
    drops_during: Option<u32> ["segments"] = listener.0.drops;
    /// Handshakes that completed since the start. Null if other listeners share the address
    established: Option<u64> ["handshakes"] = listener.0.established;
    /// `established` in the last second, likewise
    established_per_second: Option<u64> ["handshakes"] = listener.0.per_second;
    /// Handshakes that clients abandoned, likewise
    abandoned: Option<u64> ["handshakes"] = listener.0.abandoned;
    /// 99th percentile of the durations of completed handshakes, within 1 %. Null if none is known
    handshake_p99_us: Option<f64> ["us"] = listener.0.handshake_p99.map(microseconds);
    /// 99th percentile of the time that a connection waited for `accept()`, within 1 %. Null if none is known
    accept_wait_p99_us: Option<f64> ["us"] = listener.0.accept_wait_p99.map(microseconds);
    /// Process id of a process that holds the listener
    pid: Option<u32> = pid(listener.0.process);
    /// Name of that process
    process: Option<ProcessName> = listener.0.process.map(ProcessName);
    /// Inode of the network namespace
    netns: Option<Netns> = listener.0.netns;
}}
