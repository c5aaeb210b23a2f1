//! Assertions that scenarios share.

use std::{net::SocketAddr, ops::RangeBounds, time::Duration};

use socket2::Socket;
use tcptrace_tests::{Connection, Transition, sockets, speed};

/// The states of a client that closes first.
pub(crate) const CLIENT_LIFE: &[&str] = &["syn_sent", "established", "fin_wait_1", "fin_wait_2", "time_wait"];
/// The states of a server whose client closes first.
pub(crate) const SERVER_LIFE: &[&str] = &["syn_received", "established", "close_wait", "last_ack"];

/// Asserts the states in order.
#[track_caller]
pub(crate) fn assert_states(row: &Connection, states: &[&str]) {
    assert_eq!(row.state_names(), states, "{row:#?}");
}

/// Asserts the reason, the side and the error of the end.
#[track_caller]
pub(crate) fn assert_ending(row: &Connection, reason: &str, by: Option<&str>, error: Option<&str>) {
    assert_eq!(row.close_cause(), (reason, by, error), "{row:#?}");
}

/// Asserts that the owner is the thread of this name in this process.
#[track_caller]
pub(crate) fn assert_owner(row: &Connection, name: &str, sources: &[&str]) {
    assert_eq!((row.process.as_deref(), row.pid), (Some(name), Some(std::process::id())), "{row:#?}");
    assert!(sources.contains(&row.owner_source.as_str()), "{row:#?}");
}

/// Asserts a time.
#[track_caller]
pub(crate) fn assert_time(what: &str, time: Duration, range: impl RangeBounds<Duration> + std::fmt::Debug) {
    assert!(range.contains(&time), "{what}: {time:?} is not in {range:?}");
}

/// Asserts both ends, which are sockets that are still open or addresses noted before.
#[track_caller]
pub(crate) fn assert_ends(row: &Connection, local: SocketAddr, remote: SocketAddr) {
    let shown = (row.local_address.as_str(), row.local_port, row.remote_address.as_deref(), row.remote_port);
    let (local_ip, remote_ip) =
        (local.ip().to_canonical().to_string(), remote.ip().to_canonical().to_string());
    assert_eq!(shown, (local_ip.as_str(), Some(local.port()), Some(remote_ip.as_str()), Some(remote.port())));
    let family = if local.ip().to_canonical().is_ipv4() { "ipv4" } else { "ipv6" };
    assert_eq!(row.network_type, family);
}

/// Both addresses of a connection, seen from the first socket.
pub(crate) fn ends(of: &Socket, to: &Socket) -> (SocketAddr, SocketAddr) {
    (sockets::local(of), sockets::local(to))
}

/// The edges of one socket's transitions, in order.
pub(crate) fn edges_of<'a>(rows: &'a [Transition], socket: &str) -> Vec<(&'a str, &'a str)> {
    rows.iter().filter(|row| row.socket == socket).map(Transition::edge).collect()
}

/// Asserts that a shown duration is within [`speed::tolerance`] of the one measured.
#[track_caller]
pub(crate) fn assert_near(what: &str, shown: Duration, measured: Duration) {
    let tolerance = speed::tolerance(measured);
    assert!(shown.abs_diff(measured) <= tolerance, "{what}: {shown:?} shown, {measured:?} measured");
}
