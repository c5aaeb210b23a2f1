//! Connections that are opened, used and closed.

use std::{
    collections::BTreeSet,
    net::Shutdown,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Mode, Namespace, Tracer,
    rows::Connection,
    sockets::{self, Pair},
    speed, wait,
};

use crate::support::{
    CLIENT_EDGES, CLIENT_STATES, SERVER_STATES, addresses, assert_addresses, assert_close, assert_owner,
    assert_states, assert_time, edges_of,
};

const PAUSE: Duration = Duration::from_millis(40);
/// Possible owner sources of an accepted connection whose process read from it or closed it.
const ACCEPTED: &[&str] = &["accept", "reader", "closer"];

/// Waits for the peer's FIN, pauses and closes the socket on a thread with the given name. Returns the length of the
/// pause, the minimum time in CLOSE_WAIT.
fn close_after_pause(namespace: &Namespace, thread: &str, socket: Socket) -> Duration {
    namespace.run(thread, || {
        sockets::wait_for_end(&socket);
        let close_wait = wait::pause(PAUSE);
        drop(socket);
        close_wait
    })
}

/// The client sends 5 bytes, receives 3 and closes first. The server closes after a pause.
fn assert_full_lifecycle(mode: Mode, on: &str, via: Option<&str>) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    let Pair { client, server, listener: _listener } = sockets::pair_between(&namespace, &namespace, on, via);
    let (client_address, server_address) = addresses(&client, &server);
    namespace.run("worker", || {
        sockets::send(&client, b"hello");
        sockets::receive(&server, 5);
        sockets::send(&server, b"yes");
        sockets::receive(&client, 3);
    });
    let open = wait::pause(PAUSE);
    namespace.run("client", || client.shutdown(Shutdown::Write).unwrap());
    let close_wait = close_after_pause(&namespace, "worker", server);
    namespace.run("client", || {
        sockets::wait_for_end(&client);
        drop(client);
    });
    let wall = start.elapsed();

    let (client, server) = tracer.finish_both();
    assert_states(&client, CLIENT_STATES);
    assert_states(&server, SERVER_STATES);
    assert_close(&client, "closed", Some("local"), None);
    assert_close(&server, "closed", Some("remote"), None);
    assert_addresses(&client, client_address, server_address);
    assert_addresses(&server, server_address, client_address);
    assert_owner(&client, "client", &["connect"]);
    assert_owner(&server, "worker", ACCEPTED);
    for row in [&client, &server] {
        assert_eq!(row.netns, Some(namespace.inode()));
        assert_eq!(row.uid, Some(0));
        assert_eq!(row.retransmits, Some(0));
        assert_eq!(row.syn_retransmits, Some(0));
        assert_time("lifetime", row.lifetime(), open + close_wait..=wall);
        assert_time("established", row.time_in("established"), open..=wall);
        assert!(row.mss.is_some_and(|mss| mss > 500), "{row:#?}");
        assert!(row.srtt_us.is_some() && row.min_rtt_us.is_some(), "{row:#?}");
    }
    assert_eq!((client.bytes_sent, client.bytes_received), (Some(5), Some(3)));
    assert_eq!((server.bytes_sent, server.bytes_received), (Some(3), Some(5)));
    assert_eq!((server.accept_queue, server.accept_queue_limit), (Some(0), Some(128)));
    assert_time("fin_wait", client.time_in_fin_wait(), close_wait..=wall);
    assert_time("close_wait", server.time_in("close_wait"), close_wait..=wall);
    assert_eq!(client.time_in("time_wait"), Duration::from_secs(60));
    assert_eq!(client.states[4].source, "modelled");
    assert!(client.states[..4].iter().all(|span| span.source == "observed"), "{client:#?}");
    assert_eq!(client.handshake(), client.time_in("syn_sent"));
    assert_eq!(client.handshake_source.as_deref(), Some("observed"));
    assert_eq!(server.handshake(), server.time_in("syn_received"));
    assert_eq!(server.handshake_source.as_deref(), Some("measured"));
    assert_time("handshake", client.handshake(), Duration::ZERO..=wall);
    assert_time("handshake", server.handshake(), Duration::ZERO..=wall);
}

#[rstest]
fn ipv4_connection_is_reported_in_full(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    assert_full_lifecycle(mode, "127.0.0.1:0", None);
}

#[rstest]
fn ipv6_connection_is_reported_in_full(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    assert_full_lifecycle(mode, "[::1]:0", None);
}

/// An IPv4 client of an IPv6 listener is reported as IPv4 on both sides.
#[rstest]
fn ipv4_mapped_connection_is_reported_as_ipv4(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    assert_full_lifecycle(mode, "[::]:0", Some("127.0.0.1"));
}

#[rstest]
fn server_close_is_attributed_to_the_server(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    namespace.run("worker", || server.shutdown(Shutdown::Write).unwrap());
    let close_wait = close_after_pause(&namespace, "client", client);
    sockets::wait_for_end(&server);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established", "close_wait", "last_ack"]);
    assert_states(&server, &["syn_received", "established", "fin_wait_1", "fin_wait_2", "time_wait"]);
    assert_close(&client, "closed", Some("remote"), None);
    assert_close(&server, "closed", Some("local"), None);
    assert_owner(&client, "client", &["connect"]);
    assert_owner(&server, "worker", ACCEPTED);
    assert_time("close_wait", client.time_in("close_wait"), close_wait..);
    assert_time("fin_wait", server.time_in_fin_wait(), close_wait..);
}

/// After the FIN of a closed socket is acknowledged, the kernel keeps only a timewait socket without
/// transitions. FIN_WAIT2 then lasts for at most a minute.
#[rstest]
fn closed_client_has_modelled_fin_wait_2(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    namespace.run("client", || drop(client));
    let close_wait = namespace.run("worker", || {
        sockets::wait_for_end(&server);
        wait::until("the timewait socket", || (namespace.sockets_in(sockets::FIN_WAIT_2) == 1).then_some(()));
        let close_wait = wait::pause(PAUSE);
        drop(server);
        close_wait
    });
    let wall = start.elapsed();

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established", "fin_wait_1", "fin_wait_2"]);
    assert_states(&server, SERVER_STATES);
    assert_close(&client, "closed", Some("local"), None);
    assert_close(&server, "closed", Some("remote"), None);
    assert_time("lifetime", client.lifetime(), ..=wall);
    assert_eq!(client.states[3].source, "modelled");
    assert_time("fin_wait_2", client.time_in("fin_wait_2"), Duration::from_secs(60)..Duration::from_secs(61));
    assert_time("close_wait", server.time_in("close_wait"), close_wait..);
}

#[rstest]
fn half_close_is_reported_on_both_sides(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    namespace.run("client", || client.shutdown(Shutdown::Write).unwrap());
    namespace.run("worker", || sockets::wait_for_end(&server));
    let half = wait::pause(PAUSE);
    // The server can still send data.
    namespace.run("worker", || {
        sockets::send(&server, b"late");
        sockets::receive(&client, 4);
        drop(server);
    });
    namespace.run("client", || {
        sockets::wait_for_end(&client);
        drop(client);
    });

    let (client, server) = tracer.finish_both();
    assert_states(&client, CLIENT_STATES);
    assert_states(&server, SERVER_STATES);
    assert_close(&client, "closed", Some("local"), None);
    assert_close(&server, "closed", Some("remote"), None);
    assert_time("fin_wait", client.time_in_fin_wait(), half..);
    assert_time("close_wait", server.time_in("close_wait"), half..);
    assert_eq!((client.bytes_received, server.bytes_sent), (Some(4), Some(4)));
}

#[rstest]
fn connect_without_listener_is_reported_as_refused(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values("127.0.0.1", "[::1]")] host: &str,
) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let to = sockets::address(&format!("{host}:9"));
    let error = namespace.run("client", || sockets::try_connect(to).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, &["syn_sent"]);
    assert_close(row, "refused", Some("remote"), Some("ECONNREFUSED"));
    assert_eq!((row.role.as_str(), row.remote_port, row.handshake_us), ("client", Some(9), None));
    assert!(row.local_port.is_some_and(|port| port != 0), "{row:#?}");
    assert_owner(row, "client", &["connect"]);
    assert_eq!(row.syn_retransmits, Some(0));
}

#[rstest]
fn client_reset_is_reported_as_reset_by_peer(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    let open = wait::pause(PAUSE);
    sockets::reset_on_close(&client);
    namespace.run("client", || drop(client));
    assert_eq!(namespace.run("server", || sockets::wait_for_error(&server)), libc::ECONNRESET);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established"]);
    assert_states(&server, &["syn_received", "established"]);
    assert_close(&client, "aborted", Some("local"), None);
    assert_close(&server, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_time("established", client.time_in("established"), open..);
    assert_owner(&server, "server", &["listener", "accept", "reader"]);
}

#[rstest]
fn close_with_unread_data_is_reported_as_unread_data(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    sockets::send(&client, b"unread");
    // `wait_for_data` peeks, which counts as a read.
    namespace.run("worker", || {
        sockets::wait_for_data(&server);
        drop(server);
    });
    assert_eq!(namespace.run("client", || sockets::wait_for_error(&client)), libc::ECONNRESET);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established"]);
    assert_states(&server, &["syn_received", "established"]);
    assert_close(&client, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_close(&server, "unread_data", Some("local"), None);
    assert_owner(&server, "worker", ACCEPTED);
    assert_eq!(server.bytes_received, Some(6));
}

/// Hundreds of connections that are open at the same time are reported one by one.
#[rstest]
fn concurrent_connections_are_reported_separately(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    const CLIENTS: usize = 4;
    let connections = speed::count(300, 52);
    // BPF programs of parallel tests would make the kernel skip runs of this one.
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:0", 512, |_| {}));
    let to = sockets::local(&listener);
    let all_open = Barrier::new(CLIENTS + 1);
    let open = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                namespace.run("client", || {
                    let sockets: Vec<_> = (0..connections / CLIENTS).map(|_| sockets::connect(to)).collect();
                    open.fetch_add(sockets.len(), Ordering::Relaxed);
                    all_open.wait();
                    for socket in sockets {
                        socket.shutdown(Shutdown::Write).unwrap();
                        sockets::wait_for_end(&socket);
                    }
                });
            });
        }
        namespace.run("server", || {
            let sockets: Vec<_> = (0..connections).map(|_| sockets::accept(&listener)).collect();
            all_open.wait();
            for socket in sockets {
                sockets::wait_for_end(&socket);
            }
        });
    });
    assert_eq!(open.into_inner(), connections);

    let settled = sockets::FIN_WAIT_2 | sockets::TIME_WAIT | sockets::CLOSED | sockets::LISTEN;
    wait::until("the last acknowledgements", || (namespace.sockets_in(!settled) == 0).then_some(()));
    let ended = tracer.interrupt();
    let skipped = ended.summary().skipped;
    let rows: Vec<Connection> = ended.rows();
    // Skipped transitions may be missing; a connection with other transitions is marked as incomplete or gap.
    let (complete, marked): (Vec<_>, Vec<_>) = rows.iter().partition(|row| !row.gap && !row.incomplete);
    if skipped.is_none() && complete.len() < 2 * connections {
        speed::not_possible("it does not count skipped runs, and rows are missing");
        return;
    }
    let skipped = usize::try_from(skipped.unwrap_or(0)).unwrap();
    assert!(
        (2 * connections - skipped.min(2 * connections)..=2 * connections).contains(&complete.len()),
        "{} complete, {} marked, {skipped} skipped",
        complete.len(),
        marked.len()
    );
    let (clients, servers): (Vec<_>, Vec<_>) = complete.into_iter().partition(|row| row.role == "client");
    for ports in [
        clients.iter().map(|row| row.local_port).collect::<Vec<_>>(),
        servers.iter().map(|row| row.remote_port).collect(),
    ] {
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len(), "a connection was reported twice");
    }
    for row in clients {
        assert_states(row, CLIENT_STATES);
        assert_eq!((row.remote_port, row.caller()), (Some(to.port()), Some("client")));
    }
    for row in servers {
        assert_states(row, SERVER_STATES);
        assert_eq!((row.local_port, row.caller()), (Some(to.port()), Some("server")));
    }
}

/// Checks every transition of one connection and its listener, with the time in the state and the process.
#[rstest]
fn every_transition_of_a_connection_is_reported(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::transitions(&namespace, mode);
    let start = Instant::now();
    let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:0");
    let (client_address, server_address) = addresses(&client, &server);
    let open = wait::pause(PAUSE);
    namespace.run("client", || client.shutdown(Shutdown::Write).unwrap());
    let close_wait = close_after_pause(&namespace, "worker", server);
    sockets::wait_for_end(&client);
    namespace.run("server", || drop(listener));
    let wall = start.elapsed();

    let rows = tracer.finish_transitions(12);
    assert!(rows.iter().all(|row| row.r#type == "transition" && row.netns == Some(namespace.inode())));
    assert!(rows.windows(2).all(|pair| pair[0].time <= pair[1].time), "{rows:#?}");
    assert!(rows.iter().all(|row| row.network_type == "ipv4" && row.local_address == "127.0.0.1"));

    let first = |from: &str, to: &str| rows.iter().find(|row| row.edge() == (from, to)).unwrap();
    let listener = first("closed", "listen");
    assert_eq!(edges_of(&rows, &listener.socket), [("closed", "listen"), ("listen", "closed")]);
    assert_eq!((listener.caller(), listener.pid), (Some("server"), Some(std::process::id())));
    assert_eq!((listener.local_port, listener.remote_port), (Some(server_address.port()), None));
    assert_eq!(listener.duration_us, None);

    let client = first("closed", "syn_sent");
    assert_eq!(edges_of(&rows, &client.socket), CLIENT_EDGES);
    assert_eq!((client.local_port, client.remote_port), (None, Some(server_address.port())));
    assert_eq!(client.duration_us, None);
    let server = first("listen", "syn_received");
    assert_eq!(
        edges_of(&rows, &server.socket),
        [
            ("listen", "syn_received"),
            ("syn_received", "established"),
            ("established", "close_wait"),
            ("close_wait", "last_ack"),
            ("last_ack", "closed"),
        ]
    );
    let (client, server) = (client.socket.clone(), server.socket.clone());
    for row in rows.iter().filter(|row| row.socket == client && row.from != "closed") {
        assert_eq!(
            (row.local_port, row.remote_port, row.caller()),
            (Some(client_address.port()), Some(server_address.port()), Some("client"))
        );
    }
    for row in rows.iter().filter(|row| row.socket == server && row.from != "listen") {
        assert_eq!(
            (row.local_port, row.remote_port),
            (Some(server_address.port()), Some(client_address.port()))
        );
    }
    assert_eq!(first("close_wait", "last_ack").caller(), Some("worker"));

    let time = |from: &str, to: &str| Duration::from_secs_f64(first(from, to).duration_us.unwrap() / 1e6);
    assert_time("established", time("established", "fin_wait_1"), open..=wall);
    let fin_wait = time("fin_wait_1", "fin_wait_2") + time("fin_wait_2", "closed");
    assert_time("fin_wait", fin_wait, close_wait..=wall);
    assert_time("close_wait", time("close_wait", "last_ack"), close_wait..=wall);
}
