//! Selects, sorts and describes connections.

use std::cmp::{Ordering, Reverse};

use tracer_core::{
    analysis::{ConnectionReading, ConnectionReadings},
    escape::escape,
    event::{Nanos, SocketId, Timestamp},
    lifecycle::{Age, Connection},
};

use crate::top::{ConnectionLine, Query, Sort};

/// Most lines of a table.
pub(super) const MAX_LINES: usize = 1000;

/// A connection to list.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    socket: SocketId,
    connection: &'a Connection,
    /// The figure that the query sorts by; none if it is unknown, or if the query does not sort by a figure.
    figure: Option<u64>,
}

impl<'a> Found<'a> {
    /// Creates the entry of a connection with its last reading, for a table in this order.
    pub(super) fn new(
        socket: SocketId,
        connection: &'a Connection,
        reading: Option<&ConnectionReading>,
        sort: Sort,
    ) -> Self {
        let counters = reading.map(|reading| &reading.counters);
        let rates = reading.and_then(|reading| reading.rates);
        let figure = match sort {
            Sort::Handshake => handshake_duration(connection).map(|time| time.0),
            Sort::Rtt => counters.and_then(|counters| counters.srtt).map(|time| time.0.into()),
            Sort::SentRate => rates.map(|rates| rates.sent),
            Sort::ReceivedRate => rates.map(|rates| rates.received),
            Sort::Sent => counters.map(|counters| counters.bytes_sent),
            Sort::Received => counters.map(|counters| counters.bytes_received),
            _ => None,
        };
        Self { socket, connection, figure }
    }
}

/// Returns whether a query lists a connection.
pub(super) fn is_listed(connection: &Connection, query: &Query) -> bool {
    query.state.is_none_or(|wanted| wanted == connection.state())
        && (query.search.is_empty() || query.matches(&text(connection)))
}

/// Returns the text that a search looks in.
fn text(connection: &Connection) -> String {
    let process = connection
        .owner
        .process
        .map(|process| format!("{} {}", escape(process.name()), process.pid))
        .unwrap_or_default();
    format!(
        "{}:{} {}:{} {} {} {process}",
        connection.local.address,
        connection.local.port,
        connection.remote.address,
        connection.remote.port,
        connection.state().kernel_name(),
        connection.role.name(),
    )
}

/// Returns the first connections in the order of a query.
pub(super) fn sorted(
    mut found: Vec<Found<'_>>,
    query: &Query,
    readings: Option<&ConnectionReadings>,
    now: Timestamp,
) -> Vec<ConnectionLine> {
    let age = |found: &Found<'_>| Reverse(Age::of(found.connection, now).lower_bound());
    let compare = |a: &Found<'_>, b: &Found<'_>| {
        let ordering = by_key(a, b, query.sort).then_with(|| age(a).cmp(&age(b)));
        let ordering = if query.reversed { ordering.reverse() } else { ordering };
        ordering.then_with(|| a.socket.cmp(&b.socket))
    };
    if found.len() > MAX_LINES {
        found.select_nth_unstable_by(MAX_LINES, compare);
        found.truncate(MAX_LINES);
    }
    found.sort_unstable_by(compare);
    found.into_iter().map(|found| line(found, readings, now)).collect()
}

/// Compares two connections by a sort key other than the age. The largest figure comes first, an unknown one last.
fn by_key(a: &Found<'_>, b: &Found<'_>, sort: Sort) -> Ordering {
    let process =
        |found: &Found<'_>| found.connection.owner.process.map(|process| (process.comm, process.pid));
    match sort {
        Sort::State => a.connection.state().cmp(&b.connection.state()),
        Sort::Process => process(a).cmp(&process(b)),
        Sort::Local => a.connection.local.cmp(&b.connection.local),
        Sort::Remote => a.connection.remote.cmp(&b.connection.remote),
        _ => b.figure.cmp(&a.figure),
    }
}

fn handshake_duration(connection: &Connection) -> Option<Nanos> {
    connection.handshake.and_then(|handshake| handshake.duration)
}

fn line(found: Found<'_>, readings: Option<&ConnectionReadings>, now: Timestamp) -> ConnectionLine {
    let Found { socket, connection, .. } = found;
    let age = Age::of(connection, now);
    ConnectionLine {
        socket,
        local: connection.local,
        remote: connection.remote,
        role: connection.role,
        process: connection.owner.process,
        owner_source: connection.owner.source.name(),
        netns: connection.netns,
        state: connection.state(),
        age: (age != Age::AtLeast(Nanos::ZERO)).then_some(age.lower_bound()),
        at_least: matches!(age, Age::AtLeast(_)),
        handshake: handshake_duration(connection),
        syn_retransmits: connection.handshake.and_then(|handshake| handshake.retransmits),
        spans: connection.history.spans(now).collect(),
        incomplete: connection.incomplete,
        reading: readings.and_then(|readings| readings.of(connection)),
    }
}
