//! Shared traffic and assertions of the scenarios.

use std::{net::SocketAddr, ops::RangeBounds, time::Duration};

use socket2::Socket;
use tcptrace_tests::{
    Connection, Namespace, Transition,
    sockets::{self, Pair},
    speed,
};

/// The states of a client that closes first.
pub(crate) const CLIENT_STATES: &[&str] =
    &["syn_sent", "established", "fin_wait_1", "fin_wait_2", "time_wait"];
/// The states of a server whose client closes first.
pub(crate) const SERVER_STATES: &[&str] = &["syn_received", "established", "close_wait", "last_ack"];

/// The transitions of a client that closes first.
pub(crate) const CLIENT_EDGES: &[(&str, &str)] = &[
    ("closed", "syn_sent"),
    ("syn_sent", "established"),
    ("established", "fin_wait_1"),
    ("fin_wait_1", "fin_wait_2"),
    ("fin_wait_2", "closed"),
];

/// Opens a connection and resets it from the client: two connection rows.
pub(crate) fn open_and_reset(namespace: &Namespace) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, "127.0.0.1:0");
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
}

/// Asserts the states in order.
#[track_caller]
pub(crate) fn assert_states(row: &Connection, states: &[&str]) {
    assert_eq!(row.state_names(), states, "{row:#?}");
}

/// Asserts the close reason, which side closed, and the error.
#[track_caller]
pub(crate) fn assert_close(row: &Connection, reason: &str, by: Option<&str>, error: Option<&str>) {
    assert_eq!(row.close_cause(), (reason, by, error), "{row:#?}");
}

/// Asserts that the owner is the thread with the given name in this process.
#[track_caller]
pub(crate) fn assert_owner(row: &Connection, name: &str, sources: &[&str]) {
    // `sockets::pair` accepts on a thread of its own.
    let name = if row.owner_source == "accept" { "server" } else { name };
    assert_eq!((row.caller(), row.pid), (Some(name), Some(std::process::id())), "{row:#?}");
    assert!(sources.contains(&row.owner_source.as_str()), "{row:#?}");
}

/// Asserts that a time is within a range.
#[track_caller]
pub(crate) fn assert_time(what: &str, time: Duration, range: impl RangeBounds<Duration> + std::fmt::Debug) {
    assert!(range.contains(&time), "{what}: {time:?} is not in {range:?}");
}

/// Asserts the local and the remote address.
#[track_caller]
pub(crate) fn assert_addresses(row: &Connection, local: SocketAddr, remote: SocketAddr) {
    let reported =
        (row.local_address.as_str(), row.local_port, row.remote_address.as_deref(), row.remote_port);
    let (local_ip, remote_ip) =
        (local.ip().to_canonical().to_string(), remote.ip().to_canonical().to_string());
    assert_eq!(
        reported,
        (local_ip.as_str(), Some(local.port()), Some(remote_ip.as_str()), Some(remote.port()))
    );
    let family = if local.ip().to_canonical().is_ipv4() { "ipv4" } else { "ipv6" };
    assert_eq!(row.network_type, family);
}

/// Returns the local addresses of two sockets.
pub(crate) fn addresses(first: &Socket, second: &Socket) -> (SocketAddr, SocketAddr) {
    (sockets::local(first), sockets::local(second))
}

/// Returns the old and new states of one socket's transitions, in order.
pub(crate) fn edges_of<'a>(rows: &'a [Transition], socket: &str) -> Vec<(&'a str, &'a str)> {
    rows.iter().filter(|row| row.socket == socket).map(Transition::edge).collect()
}

/// Asserts that a reported duration is within [`speed::tolerance`] of the measured one.
#[track_caller]
pub(crate) fn assert_near(what: &str, reported: Duration, measured: Duration) {
    let tolerance = speed::tolerance(measured);
    assert!(reported.abs_diff(measured) <= tolerance, "{what}: {reported:?} reported, {measured:?} measured");
}

/// Returns whether this kernel is of the given version or a later one.
pub(crate) fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let names = rustix::system::uname();
    let release = names.release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(its_major)), Some(Ok(its_minor))) => (its_major, its_minor) >= (major, minor),
        _ => panic!("no version in {release}"),
    }
}
