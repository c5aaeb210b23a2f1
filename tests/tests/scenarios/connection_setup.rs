//! Every way in which a connect or an accept succeeds or fails.

use std::{
    net::{Shutdown, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Connection, Mode, Namespace, Tracer,
    sockets::{self, Pair},
    tracer::arguments,
    wait,
};

use crate::support::{assert_close, assert_owner, assert_states, assert_time, edges_of};

const PAUSE: Duration = Duration::from_millis(40);

/// Limits a connect to two SYNs, one second apart; it fails two seconds after the second.
fn retry_once(namespace: &Namespace) {
    namespace.sysctl("net.ipv4.tcp_syn_retries", "1");
    // Before 6.5 all timeouts double, and the sysctl does not exist.
    namespace.sysctl_if_there("net.ipv4.tcp_syn_linear_timeouts", "0");
}

fn failed_connect(namespace: &Namespace) -> Option<i32> {
    let to = sockets::address("127.0.0.1:5000");
    namespace.run("client", || sockets::try_connect(to).unwrap_err()).raw_os_error()
}

/// Closes a connection with FINs: the first socket closes first.
fn close(first: &Socket, second: Socket) {
    first.shutdown(Shutdown::Write).unwrap();
    sockets::wait_for_end(&second);
    drop(second);
    sockets::wait_for_end(first);
}

#[rstest]
fn unanswered_syn_is_reported_as_timed_out(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    retry_once(&namespace);
    namespace.filter_input("tcp dport 5000 drop");
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    assert_eq!(failed_connect(&namespace), Some(libc::ETIMEDOUT));
    let wall = start.elapsed();

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, &["syn_sent"]);
    assert_close(row, "timed_out", Some("local"), Some("ETIMEDOUT"));
    assert_owner(row, "client", &["connect"]);
    assert_eq!((row.syn_retransmits, row.handshake_us, row.remote_port), (Some(1), None, Some(5000)));
    assert_time("syn_sent", row.time_in("syn_sent"), Duration::from_millis(2900)..=wall);
}

#[rstest]
fn icmp_prohibited_is_reported_as_unreachable(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    retry_once(&namespace);
    namespace.filter_input("tcp dport 5000 reject with icmp type admin-prohibited");
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    assert_eq!(failed_connect(&namespace), Some(libc::EHOSTUNREACH));
    let wall = start.elapsed();

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, &["syn_sent"]);
    assert_close(row, "unreachable", Some("remote"), Some("EHOSTUNREACH"));
    assert_time("syn_sent", row.time_in("syn_sent"), ..=wall);
}

#[rstest]
fn exhausted_ports_are_reported_as_no_local_port(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.ip_local_port_range", "40000 40000");
    let Pair { client, server: _server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    assert_eq!(sockets::port(&client), 40_000);
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "client"]);
    assert_eq!(failed_connect(&namespace), Some(libc::EADDRNOTAVAIL));

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, &["syn_sent"]);
    assert_close(row, "no_local_port", Some("local"), None);
    assert_eq!((row.local_port, row.remote_port), (None, Some(5000)));
    assert_owner(row, "client", &["connect"]);
}

#[rstest]
fn closed_connecting_socket_is_reported_as_cancelled(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    namespace.filter_input("tcp dport 5000 drop");
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    let socket = namespace.run("client", || sockets::begin_connect(sockets::address("127.0.0.1:5000")));
    let waited = wait::pause(PAUSE);
    namespace.run("closer", || drop(socket));
    let wall = start.elapsed();

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, &["syn_sent"]);
    assert_close(row, "cancelled", Some("local"), None);
    assert_owner(row, "client", &["connect"]);
    assert!(row.local_port.is_some(), "{row:#?}");
    assert_time("syn_sent", row.time_in("syn_sent"), waited..=wall);
}

/// A socket that connects to itself: its SYN crosses with itself.
#[rstest]
fn self_connect_is_reported_as_simultaneous(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    namespace.run("itself", || {
        let own = sockets::address("127.0.0.1:5000");
        let socket = sockets::tcp(own);
        socket.bind(&own.into()).unwrap();
        socket.connect(&own.into()).unwrap();
        sockets::send(&socket, b"echo");
        sockets::receive(&socket, 4);
        drop(socket);
    });

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!(row.role, "simultaneous");
    assert_states(row, &["syn_sent", "syn_received", "established", "fin_wait_1", "closing", "time_wait"]);
    assert_close(row, "closed", Some("both"), None);
    assert_eq!(row.ports(), (5000, 5000));
    assert_owner(row, "itself", &["connect"]);
}

/// RFC 9293 has a transition from LISTEN to `SYN_SENT`; Linux rejects it.
#[rstest]
fn connect_on_a_listener_changes_no_state(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::transitions(&namespace, mode);
    namespace.run("server", || {
        let listener = sockets::listen("127.0.0.1:5000");
        let error = listener.connect(&sockets::address("127.0.0.1:6000").into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISCONN));
    });
    let rows = tracer.finish_transitions(2);
    assert_eq!(edges_of(&rows, &rows[0].socket), [("closed", "listen"), ("listen", "closed")]);
}

/// One descriptor, two connections: the second starts without the first one's port.
#[rstest]
fn reconnected_socket_is_reported_as_two_connections(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let (connections, transitions) = (
        Tracer::json("connections", &namespace, mode, &["--role", "client"]),
        Tracer::json("transitions", &namespace, mode, &["--role", "client"]),
    );
    let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    let first_port = sockets::port(&client);
    namespace.run("client", || sockets::disconnect(&client));
    assert_eq!(sockets::wait_for_error(&server), libc::ECONNRESET);
    // The kernel may choose another port than the first one's, which is free again.
    namespace.run("client", || client.connect(&sockets::address("127.0.0.1:5000").into()).unwrap());
    let second_port = sockets::port(&client);
    close(&client, sockets::accept(&listener));

    let rows = connections.finish(2);
    assert_states(&rows[0], &["syn_sent", "established"]);
    assert_close(&rows[0], "disconnected", Some("local"), None);
    assert_eq!(rows[0].ports(), (first_port, 5000));
    assert_states(&rows[1], &["syn_sent", "established", "fin_wait_1", "fin_wait_2", "time_wait"]);
    assert_eq!(rows[1].ports(), (second_port, 5000));
    let rows = transitions.finish_transitions(8);
    let opens: Vec<_> = rows.iter().filter(|row| row.to == "syn_sent").collect();
    assert_eq!(opens.iter().map(|row| row.local_port).collect::<Vec<_>>(), [None, None], "{rows:#?}");
    assert_eq!(opens[0].socket, opens[1].socket);
}

/// The rows report the length of the accept queue of a listener that never accepts.
#[rstest]
fn accept_queue_length_is_reported(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:5000", 2, |_| {}));
    let to = sockets::local(&listener);
    // The server may process a client's last ACK after the client continues: each client waits until the
    // previous connection is in the queue.
    let clients: Vec<_> = (1..=3)
        .map(|count| {
            let client = namespace.run("client", || sockets::connect(to));
            wait::until("both sockets", || {
                (namespace.sockets_in(sockets::ESTABLISHED) == 2 * count).then_some(())
            });
            client
        })
        .collect();
    // The queue is full: the server drops the fourth SYN.
    let fourth = namespace.run("client", || sockets::begin_connect(sockets::address("127.0.0.1:5000")));
    for socket in clients {
        sockets::reset_on_close(&socket);
        drop(socket);
    }
    let mut rows = tracer.finish(3);
    rows.sort_by_key(|row| row.accept_queue);
    for (length, row) in (0..).zip(&rows) {
        assert_eq!((row.accept_queue, row.accept_queue_limit), (Some(length), Some(2)), "{rows:#?}");
        assert_close(row, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
        assert_owner(row, "server", &["listener"]);
    }
    drop(fourth);
}

/// Reuses a 4-tuple while the first connection is in `TIME_WAIT`.
#[rstest]
fn reused_timewait_ports_are_reported_as_two_connections(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_tw_reuse", "1");
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let connect = || {
        let from = sockets::address("127.0.0.1:40000");
        let socket = sockets::tcp(from);
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&sockets::local(&listener).into()).map(|()| socket)
    };
    let visit = |client: Socket| namespace.run("server", || close(&client, sockets::accept(&listener)));
    visit(namespace.run("client", connect).unwrap());
    // The kernel allows reuse of the 4-tuple after a second.
    visit(wait::until("the reuse of the ports", || namespace.run("client", connect).ok()));

    // Earlier attempts failed without a port; the scenario ignores them.
    tracer.wait_for_lines(4);
    namespace.settle();
    let rows: Vec<Connection> = tracer.interrupt().rows();
    let rows: Vec<_> = rows.iter().filter(|row| row.close_reason == "closed").collect();
    let clients: Vec<_> = rows.iter().filter(|row| row.role == "client").collect();
    assert_eq!((rows.len(), clients.len()), (4, 2));
    for row in clients {
        assert_eq!(row.ports(), (40_000, 5000));
        assert_states(row, &["syn_sent", "established", "fin_wait_1", "fin_wait_2", "time_wait"]);
    }
}

/// The same link-local address may exist on each interface, so the rows name the interface.
#[rstest]
fn link_local_addresses_have_their_interface(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    namespace.ip("link set lo up");
    namespace.ip("address add fe80::7/64 dev lo nodad");
    // The kernel adds the route later (`addrconf_dad_work`). Datagram sockets connect without a packet.
    let to: SocketAddr = "[fe80::7%1]:9".parse().unwrap();
    let probe = || UdpSocket::bind("[::]:0").and_then(|socket| socket.connect(to)).ok();
    wait::until("the route to the address", || namespace.run("probe", probe));
    let _inhabitant = namespace.inhabit();
    // The index of `lo` in each namespace.
    let existing = sockets::pair(&namespace, "[fe80::7%1]:0");
    let tracer = Tracer::connections(&namespace, mode);
    let text = Tracer::start(arguments("transitions", "table", &namespace, mode));
    let new = sockets::pair(&namespace, "[fe80::7%1]:0");
    let global = sockets::pair(&namespace, "[::1]:0");
    for pair in [existing, new, global] {
        sockets::reset_on_close(&pair.client);
        drop(pair.client);
        sockets::wait_for_error(&pair.server);
    }
    tracer.wait_for_lines(6);
    let rows: Vec<Connection> = tracer.interrupt().rows();
    for row in &rows {
        let zone = (row.local_address == "fe80::7").then_some(1);
        assert_eq!(row.interface, zone, "{row:#?}");
    }
    assert_eq!(rows.iter().filter(|row| row.interface == Some(1)).count(), 4, "{rows:#?}");
    let text = text.interrupt();
    assert!(text.text().contains("[fe80::7%1]:"), "{}", text.text());
    assert!(text.text().contains("[::1]:"), "{}", text.text());
}
