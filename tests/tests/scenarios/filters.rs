//! Filters select rows without changing their content.

use std::{
    net::Shutdown,
    process::Command,
    time::{Duration, Instant},
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Mode, Namespace, Tracer,
    sockets::{self, Pair},
    wait,
};

use crate::support::{CLIENT_EDGES, edges_of};

/// Opens a connection and closes it from the client, then from the server.
fn open_and_close(namespace: &Namespace, on: &str) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, on);
    close(namespace, &client, server);
}

fn close(namespace: &Namespace, client: &Socket, server: Socket) {
    client.shutdown(Shutdown::Write).unwrap();
    namespace.run("server", || {
        sockets::wait_for_end(&server);
        drop(server);
    });
    sockets::wait_for_end(client);
}

/// Returns `(role, local port, remote port, reason)` of the rows after connections to ports 5000 and 6000,
/// and a refused connect to port 7.
fn rows_with(mode: Mode, options: &[&str], count: usize) -> Vec<(String, u16, u16, String)> {
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.ip_local_port_range", "40000 40999");
    let tracer = Tracer::json("connections", &namespace, mode, options);
    open_and_close(&namespace, "127.0.0.1:5000");
    open_and_close(&namespace, "[::1]:6000");
    namespace.run("visitor", || sockets::try_connect(sockets::address("127.0.0.1:7")).unwrap_err());
    let mut rows: Vec<_> = tracer
        .finish(count)
        .into_iter()
        .map(|row| {
            // The kernel chooses the clients' ports from 40000 to 40999.
            let [local, remote] = [row.ports().0, row.ports().1]
                .map(|port| port / 10_000 * 10_000 + if port < 10_000 { port } else { 0 });
            (row.role, local, remote, row.close_reason)
        })
        .collect();
    rows.sort();
    rows
}

const CLIENT_5000: (&str, u16, u16, &str) = ("client", 40_000, 5000, "closed");
const CLIENT_6000: (&str, u16, u16, &str) = ("client", 40_000, 6000, "closed");
const SERVER_5000: (&str, u16, u16, &str) = ("server", 5000, 40_000, "closed");
const SERVER_6000: (&str, u16, u16, &str) = ("server", 6000, 40_000, "closed");
const REFUSED: (&str, u16, u16, &str) = ("client", 40_000, 7, "refused");

#[rstest]
#[case::none(&[], &[REFUSED, CLIENT_5000, CLIENT_6000, SERVER_5000, SERVER_6000])]
#[case::local_port(&["--local-port", "5000"], &[SERVER_5000])]
#[case::local_ports(&["--local-port", "4999-5001,6000"], &[SERVER_5000, SERVER_6000])]
#[case::remote_port(&["--remote-port", "5000,7"], &[REFUSED, CLIENT_5000])]
#[case::local(&["--local", "::1"], &[CLIENT_6000, SERVER_6000])]
#[case::remote(&["--remote", "127.0.0.0/8"], &[REFUSED, CLIENT_5000, SERVER_5000])]
#[case::client(&["--role", "client"], &[REFUSED, CLIENT_5000, CLIENT_6000])]
#[case::server(&["--role", "server"], &[SERVER_5000, SERVER_6000])]
#[case::failed(&["--failed"], &[REFUSED])]
#[case::state(&["--state", "close_wait"], &[SERVER_5000, SERVER_6000])]
#[case::states(&["--state", "last_ack,time_wait"], &[CLIENT_5000, CLIENT_6000, SERVER_5000, SERVER_6000])]
#[case::kernel_state(&["--state", "FIN_WAIT2"], &[CLIENT_5000, CLIENT_6000])]
#[case::ipv4(&["-4"], &[REFUSED, CLIENT_5000, SERVER_5000])]
#[case::ipv6(&["-6"], &[CLIENT_6000, SERVER_6000])]
#[case::comm(&["--comm", "visitor"], &[REFUSED])]
#[case::comms(&["--comm", "visitor,client"], &[REFUSED, CLIENT_5000, CLIENT_6000])]
#[case::several(&["--role", "client", "-4", "--remote-port", "1-6000"], &[REFUSED, CLIENT_5000])]
fn filter_selects_connections(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[case] options: &[&str],
    #[case] expected: &[(&str, u16, u16, &str)],
) {
    let rows = rows_with(mode, options, expected.len());
    let mut expected: Vec<_> = expected
        .iter()
        .map(|&(role, local, remote, reason)| (role.to_owned(), local, remote, reason.to_owned()))
        .collect();
    expected.sort();
    assert_eq!(rows, expected);
}

/// A client's first transition has no local port yet; a filter by that port still selects it.
#[rstest]
fn local_port_filter_includes_the_first_transition(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.ip_local_port_range", "40000 40999");
    let tracer = Tracer::json("transitions", &namespace, mode, &["--local-port", "40000-40999"]);
    open_and_close(&namespace, "127.0.0.1:5000");
    let rows = tracer.finish_transitions(5);
    assert_eq!(edges_of(&rows, &rows[0].socket), CLIENT_EDGES);
    assert!(
        rows.iter().all(|row| row.local_port.is_some_and(|port| (40_000..41_000).contains(&port))),
        "{rows:#?}"
    );
}

#[rstest]
fn state_filter_selects_transitions(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("transitions", &namespace, mode, &["--state", "listen,last_ack"]);
    open_and_close(&namespace, "127.0.0.1:5000");
    let rows = tracer.finish_transitions(5);
    let mut edges: Vec<_> = rows.iter().map(|row| (row.from.as_str(), row.to.as_str())).collect();
    edges.sort_unstable();
    assert_eq!(
        edges,
        [
            ("close_wait", "last_ack"),
            ("closed", "listen"),
            ("last_ack", "closed"),
            ("listen", "closed"),
            ("listen", "syn_received"),
        ]
    );
}

#[rstest]
fn min_duration_filter_selects_long_connections(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--min-duration", "2s"]);
    let start = Instant::now();
    open_and_close(&namespace, "127.0.0.1:5000");
    assert!(start.elapsed() < Duration::from_secs(2), "the host is too slow for this test");
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:6000");
    wait::pause(Duration::from_secs(2));
    close(&namespace, &client, server);
    let (client, server) = tracer.finish_both();
    assert_eq!((client.remote_port, server.local_port), (Some(6000), Some(6000)));
    assert!(client.lifetime() >= Duration::from_secs(2));
}

/// Another process connects; the filter selects it by process id, and the row has its id and name.
#[rstest]
fn pid_filter_selects_connections_of_a_process(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    // The child connects after a line on stdin, when the tracer already filters by its process id.
    let mut child = namespace.child(
        Command::new("bash")
            .args(["-c", "read; exec 3<>/dev/tcp/127.0.0.1/5000"])
            .stdin(std::process::Stdio::piped()),
    );
    let id = child.id();
    let tracer = Tracer::json("connections", &namespace, mode, &["--pid", &id.to_string()]);
    open_and_close(&namespace, "127.0.0.1:6000");
    drop(child.stdin.take());
    let server = sockets::accept(&listener);
    assert!(child.wait().unwrap().success());
    sockets::wait_for_end(&server);
    drop(server);

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!((row.pid, row.process.as_deref()), (Some(id), Some("bash")));
    assert_eq!(
        (row.role.as_str(), row.remote_port, row.owner_source.as_str()),
        ("client", Some(5000), "connect")
    );
}
