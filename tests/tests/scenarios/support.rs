//! Shared traffic and assertions of the scenarios.

use std::{net::SocketAddr, ops::RangeBounds, os::unix::net::UnixDatagram, process::Command, time::Duration};

use socket2::Socket;
use tcptrace_tests::{
    Connection, Namespace, Transition,
    sockets::{self, Pair},
    speed, wait,
};

/// The states of a client that closes first.
pub(crate) const CLIENT_STATES: &[&str] =
    &["syn_sent", "established", "fin_wait_1", "fin_wait_2", "time_wait"];
/// The states of a server whose client closes first.
pub(crate) const SERVER_STATES: &[&str] = &["syn_received", "established", "close_wait", "last_ack"];

/// A web configuration with user `alice` and password `secret`, hashed by `htpasswd -nBC 4`.
pub(crate) const PASSWORD_CONFIG: &str =
    "basic_auth_users: {alice: $2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW}\n";

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

/// Returns the drops of the listener on a port: `d` of `skmem` in the output of `ss`.
pub(crate) fn drops_by_ss(namespace: &Namespace, port: u16) -> u32 {
    let filter = format!("sport = :{port}");
    let output = namespace.run("ss", || Command::new("ss").args(["-H", "-ltmn", &filter]).output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let drops = text.rsplit_once(",d").and_then(|(_, rest)| rest.split_once(')')).map(|(drops, _)| drops);
    drops.and_then(|drops| drops.parse().ok()).unwrap_or_else(|| panic!("no drops in {text}"))
}

/// Returns how many segments the namespace's full accept queues dropped.
pub(crate) fn overflows(namespace: &Namespace) -> u64 {
    namespace.counter("netstat", "TcpExt", "ListenOverflows")
}

/// Connects `count` clients to a listener whose accept queue stays full, and closes them after further drops.
pub(crate) fn overflow(namespace: &Namespace, to: SocketAddr, count: usize) {
    let before = overflows(namespace);
    namespace.run("client", || {
        let clients: Vec<_> = (0..count).map(|_| sockets::begin_connect(to)).collect();
        wait::until("the overflow", || (overflows(namespace) >= before + count as u64 - 2).then_some(()));
        drop(clients);
    });
    // No client sends another SYN.
    // SYN_SENT has the number 2.
    let pending = 1 << 2 | sockets::SYN_RECEIVED;
    wait::until("the end of the clients", || (namespace.sockets_in(pending) == 0).then_some(()));
}

/// Counts the sockets in a state with `ss`.
pub(crate) fn ss(namespace: &Namespace, state: &str) -> u32 {
    let output = namespace.run("ss", || Command::new("ss").args(["-tanH", "state", state]).output());
    let output = output.unwrap_or_else(|error| panic!("ss cannot start: {error}"));
    assert!(output.status.success());
    u32::try_from(String::from_utf8_lossy(&output.stdout).lines().count()).unwrap()
}

/// Receives the next notification to systemd; `None` after the socket's read timeout.
pub(crate) fn next_notification(systemd: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 1024];
    let count = systemd.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}
