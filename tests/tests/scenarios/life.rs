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
use tcptrace_tests::{
    Mode, Namespace, Tracer,
    rows::Connection,
    sockets::{self, Pair},
    speed, wait,
};

use crate::support::{
    CLIENT_LIFE, SERVER_LIFE, assert_ending, assert_ends, assert_owner, assert_states, assert_time, edges_of,
    ends,
};

const MOMENT: Duration = Duration::from_millis(40);
/// How the owner of an accepted connection may be known when its process has read or closed it.
const ACCEPTED: &[&str] = &["accept", "reader", "closer"];

/// A client sends 5 bytes, gets 3 and closes first; the server waits a moment before it does.
fn normal_life(mode: Mode, on: &str, via: Option<&str>) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    let Pair { client, server, listener: _listener } = sockets::pair_between(&namespace, &namespace, on, via);
    let (client_end, server_end) = ends(&client, &server);
    namespace.run("worker", || {
        sockets::send(&client, b"hello");
        sockets::receive(&server, 5);
        sockets::send(&server, b"yes");
        sockets::receive(&client, 3);
    });
    let open = wait::pause(MOMENT);
    namespace.run("client", || client.shutdown(Shutdown::Write).unwrap());
    let leaking = namespace.run("worker", || {
        sockets::wait_for_end(&server);
        let leaking = wait::pause(MOMENT);
        drop(server);
        leaking
    });
    namespace.run("client", || {
        sockets::wait_for_end(&client);
        drop(client);
    });
    let wall = start.elapsed();

    let (client, server) = tracer.finish_both();
    assert_states(&client, CLIENT_LIFE);
    assert_states(&server, SERVER_LIFE);
    assert_ending(&client, "closed", Some("local"), None);
    assert_ending(&server, "closed", Some("remote"), None);
    assert_ends(&client, client_end, server_end);
    assert_ends(&server, server_end, client_end);
    assert_owner(&client, "client", &["connect"]);
    assert_owner(&server, "worker", ACCEPTED);
    for row in [&client, &server] {
        assert_eq!(row.netns, Some(namespace.inode()));
        assert_eq!(row.uid, Some(0));
        assert_eq!(row.retransmits, Some(0));
        assert_eq!(row.syn_retransmits, Some(0));
        assert_time("life", row.lifetime(), open + leaking..=wall);
        assert_time("established", row.time_in("established"), open..=wall);
        assert!(row.mss.is_some_and(|mss| mss > 500), "{row:#?}");
        assert!(row.srtt_us.is_some() && row.min_rtt_us.is_some(), "{row:#?}");
    }
    assert_eq!((client.bytes_sent, client.bytes_received), (Some(5), Some(3)));
    assert_eq!((server.bytes_sent, server.bytes_received), (Some(3), Some(5)));
    assert_eq!((server.accept_queue, server.accept_queue_limit), (Some(0), Some(128)));
    assert_time("fin_wait", client.time_in_fin_wait(), leaking..=wall);
    assert_time("close_wait", server.time_in("close_wait"), leaking..=wall);
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
fn normal_life_ipv4(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    normal_life(mode, "127.0.0.1:0", None);
}

#[rstest]
fn normal_life_ipv6(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    normal_life(mode, "[::1]:0", None);
}

/// A client of IPv4 on a listener of IPv6 is IPv4 at both ends.
#[rstest]
fn normal_life_v4_mapped(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    normal_life(mode, "[::]:0", Some("127.0.0.1"));
}

#[rstest]
fn the_server_closes_first(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    namespace.run("worker", || server.shutdown(Shutdown::Write).unwrap());
    let leaking = namespace.run("client", || {
        sockets::wait_for_end(&client);
        let leaking = wait::pause(MOMENT);
        drop(client);
        leaking
    });
    sockets::wait_for_end(&server);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established", "close_wait", "last_ack"]);
    assert_states(&server, &["syn_received", "established", "fin_wait_1", "fin_wait_2", "time_wait"]);
    assert_ending(&client, "closed", Some("remote"), None);
    assert_ending(&server, "closed", Some("local"), None);
    assert_owner(&client, "client", &["connect"]);
    assert_owner(&server, "worker", ACCEPTED);
    assert_time("close_wait", client.time_in("close_wait"), leaking..);
    assert_time("fin_wait", server.time_in_fin_wait(), leaking..);
}

/// Once a closed socket's FIN is acknowledged the kernel keeps only a mini-socket of it, which has no
/// transitions: the application is done, and `FIN_WAIT2` goes on for a minute at most.
#[rstest]
fn the_client_is_gone_before_the_server_closes(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let start = Instant::now();
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    namespace.run("client", || drop(client));
    let leaking = namespace.run("worker", || {
        sockets::wait_for_end(&server);
        wait::until("the mini-socket", || (namespace.sockets_in(sockets::FIN_WAIT_2) == 1).then_some(()));
        let leaking = wait::pause(MOMENT);
        drop(server);
        leaking
    });
    let wall = start.elapsed();

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established", "fin_wait_1", "fin_wait_2"]);
    assert_states(&server, SERVER_LIFE);
    assert_ending(&client, "closed", Some("local"), None);
    assert_ending(&server, "closed", Some("remote"), None);
    assert_time("life", client.lifetime(), ..=wall);
    assert_eq!(client.states[3].source, "modelled");
    assert_time("fin_wait_2", client.time_in("fin_wait_2"), Duration::from_secs(60)..Duration::from_secs(61));
    assert_time("close_wait", server.time_in("close_wait"), leaking..);
}

#[rstest]
fn a_half_close_is_held_open(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    namespace.run("client", || client.shutdown(Shutdown::Write).unwrap());
    namespace.run("worker", || sockets::wait_for_end(&server));
    let half = wait::pause(MOMENT);
    // Data still flows the other way.
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
    assert_states(&client, CLIENT_LIFE);
    assert_states(&server, SERVER_LIFE);
    assert_ending(&client, "closed", Some("local"), None);
    assert_ending(&server, "closed", Some("remote"), None);
    assert_time("fin_wait", client.time_in_fin_wait(), half..);
    assert_time("close_wait", server.time_in("close_wait"), half..);
    assert_eq!((client.bytes_received, server.bytes_sent), (Some(4), Some(4)));
}

#[rstest]
fn nobody_listens(
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
    assert_ending(row, "refused", Some("remote"), Some("ECONNREFUSED"));
    assert_eq!((row.role.as_str(), row.remote_port, row.handshake_us), ("client", Some(9), None));
    assert!(row.local_port.is_some_and(|port| port != 0), "{row:#?}");
    assert_owner(row, "client", &["connect"]);
    assert_eq!(row.syn_retransmits, Some(0));
}

#[rstest]
fn a_reset_is_seen_from_both_ends(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    let open = wait::pause(MOMENT);
    sockets::reset_on_close(&client);
    namespace.run("client", || drop(client));
    assert_eq!(namespace.run("server", || sockets::wait_for_error(&server)), libc::ECONNRESET);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established"]);
    assert_states(&server, &["syn_received", "established"]);
    assert_ending(&client, "aborted", Some("local"), None);
    assert_ending(&server, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_time("established", client.time_in("established"), open..);
    assert_owner(&server, "server", &["listener", "accept", "reader"]);
}

#[rstest]
fn data_is_left_unread(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    sockets::send(&client, b"unread");
    // Waiting looks at the data, which counts as reading.
    namespace.run("worker", || {
        sockets::wait_for_data(&server);
        drop(server);
    });
    assert_eq!(namespace.run("client", || sockets::wait_for_error(&client)), libc::ECONNRESET);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established"]);
    assert_states(&server, &["syn_received", "established"]);
    assert_ending(&client, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_ending(&server, "unread_data", Some("local"), None);
    assert_owner(&server, "worker", ACCEPTED);
    assert_eq!(server.bytes_received, Some(6));
}

/// Hundreds of connections that are all open at once are all told apart.
#[rstest]
fn several_hundred_at_once(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    const CLIENTS: usize = 4;
    let connections = speed::count(300, 52);
    // Programs of other tests that run at the same moment would make the kernel skip this one's.
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

    // All but FIN_WAIT2 (5) without an application, TIME_WAIT (6), CLOSE (7) and LISTEN (10).
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 5 | 1 << 6 | 1 << 7 | 1 << 10)) == 0).then_some(())
    });
    let ended = tracer.interrupt();
    let skipped = ended.summary().skipped;
    let rows: Vec<Connection> = ended.rows();
    // What the kernel skipped may be missing, and is marked where something else of the connection was seen.
    let (whole, marked): (Vec<_>, Vec<_>) = rows.iter().partition(|row| !row.gap && !row.incomplete);
    if skipped.is_none() && whole.len() < 2 * connections {
        speed::not_possible("it does not count the runs of a program that it skipped, and some are missing");
        return;
    }
    let skipped = usize::try_from(skipped.unwrap_or(0)).unwrap();
    assert!(
        (2 * connections - skipped.min(2 * connections)..=2 * connections).contains(&whole.len()),
        "{} whole, {} marked, {skipped} skipped",
        whole.len(),
        marked.len()
    );
    let (clients, servers): (Vec<_>, Vec<_>) = whole.into_iter().partition(|row| row.role == "client");
    for ports in [
        clients.iter().map(|row| row.local_port).collect::<Vec<_>>(),
        servers.iter().map(|row| row.remote_port).collect(),
    ] {
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len(), "a connection came twice");
    }
    for row in clients {
        assert_states(row, CLIENT_LIFE);
        assert_eq!((row.remote_port, row.process.as_deref()), (Some(to.port()), Some("client")));
    }
    for row in servers {
        assert_states(row, SERVER_LIFE);
        assert_eq!((row.local_port, row.process.as_deref()), (Some(to.port()), Some("server")));
    }
}

/// Every transition of one connection and its listener, with the state's time and the process.
#[rstest]
fn transitions_of_one_connection(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::transitions(&namespace, mode);
    let start = Instant::now();
    let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:0");
    let (client_end, server_end) = ends(&client, &server);
    let open = wait::pause(MOMENT);
    namespace.run("client", || client.shutdown(Shutdown::Write).unwrap());
    let leaking = namespace.run("worker", || {
        sockets::wait_for_end(&server);
        let leaking = wait::pause(MOMENT);
        drop(server);
        leaking
    });
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
    assert_eq!((listener.comm.as_deref(), listener.pid), (Some("server"), Some(std::process::id())));
    assert_eq!((listener.local_port, listener.remote_port), (Some(server_end.port()), None));
    assert_eq!(listener.duration_us, None);

    let client = first("closed", "syn_sent");
    assert_eq!(
        edges_of(&rows, &client.socket),
        [
            ("closed", "syn_sent"),
            ("syn_sent", "established"),
            ("established", "fin_wait_1"),
            ("fin_wait_1", "fin_wait_2"),
            ("fin_wait_2", "closed"),
        ]
    );
    assert_eq!((client.local_port, client.remote_port), (None, Some(server_end.port())));
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
            (row.local_port, row.remote_port, row.comm.as_deref()),
            (Some(client_end.port()), Some(server_end.port()), Some("client"))
        );
    }
    for row in rows.iter().filter(|row| row.socket == server && row.from != "listen") {
        assert_eq!((row.local_port, row.remote_port), (Some(server_end.port()), Some(client_end.port())));
    }
    assert_eq!(first("close_wait", "last_ack").comm.as_deref(), Some("worker"));

    let time = |from: &str, to: &str| Duration::from_secs_f64(first(from, to).duration_us.unwrap() / 1e6);
    assert_time("established", time("established", "fin_wait_1"), open..=wall);
    let fin_wait = time("fin_wait_1", "fin_wait_2") + time("fin_wait_2", "closed");
    assert_time("fin_wait", fin_wait, leaking..=wall);
    assert_time("close_wait", time("close_wait", "last_ack"), leaking..=wall);
}
