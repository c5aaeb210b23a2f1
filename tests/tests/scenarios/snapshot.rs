//! Connections opened before or during the start of tracing.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    ChildProcess, Connection, Mode, Namespace, Tracer,
    process::{Gate, sleep_until_killed},
    sockets, speed, wait,
};

use crate::support::{assert_close, assert_states};

/// Asserts that fields that depend on the unseen open are empty.
#[track_caller]
fn assert_incomplete(row: &Connection) {
    assert!(row.incomplete && !row.gap, "{row:#?}");
    assert_eq!((row.opened.as_deref(), row.duration_us, row.role.as_str()), (None, None, "unknown"));
    assert_eq!((row.handshake_us, row.handshake_source.as_deref(), row.syn_retransmits), (None, None, None));
    assert_eq!((row.states[0].state.as_str(), row.states[0].duration_us), ("established", None), "{row:#?}");
    assert!(row.closed.is_some(), "{row:#?}");
}

/// Groups the rows into clients and servers, keyed by the client's port, which is unique.
fn by_client_port(
    rows: Vec<Connection>,
    server: u16,
) -> (BTreeMap<u16, Connection>, BTreeMap<u16, Connection>) {
    let (mut clients, mut servers) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        let (local, remote) = row.ports();
        let previous = if local == server {
            servers.insert(remote, row)
        } else {
            assert_eq!(remote, server, "{row:#?}");
            clients.insert(local, row)
        };
        assert_eq!(previous, None, "a second row for one socket");
    }
    (clients, servers)
}

#[rstest]
fn connections_from_before_the_start_are_incomplete(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(true, false)] snapshot: bool,
) {
    let count = speed::count(1000, 200);
    let namespace = Namespace::alone();
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:0", 1024, |_| {}));
    let to = sockets::local(&listener);
    let close = Gate::new();
    let server = ChildProcess::start(&namespace, "holder-s", || {
        let open: Vec<Socket> = (0..count).map(|_| sockets::accept(&listener)).collect();
        open.iter().for_each(sockets::wait_for_end);
        drop(open);
    });
    let client = ChildProcess::start(&namespace, "holder-c", || {
        let open: Vec<Socket> = (0..count).map(|_| sockets::connect(to)).collect();
        close.wait();
        drop(open);
    });
    wait::until("all connections", || {
        (namespace.sockets_in(sockets::ESTABLISHED) == 2 * count).then_some(())
    });
    let ids = (client.id(), server.id());
    let options: &[&str] = if snapshot { &[] } else { &["--no-snapshot"] };
    let tracer = Tracer::json("connections", &namespace, mode, options);
    close.open();
    client.wait();
    server.wait();
    let Some(ended) = tracer.finish_many(mode, 2 * count) else { return };
    let (clients, servers) = by_client_port(ended.rows(), to.port());
    assert_eq!((clients.len(), servers.len()), (count, count));
    assert!(clients.keys().eq(servers.keys()));
    for row in clients.values() {
        assert_incomplete(row);
        // If the server closes first, the client's timewait socket is in TIME_WAIT instead of FIN_WAIT2.
        let states = row.state_names();
        assert_eq!(states[..3], ["established", "fin_wait_1", "fin_wait_2"], "{row:#?}");
        assert!(states.len() == 3 || states[3..] == ["time_wait"], "{row:#?}");
        assert_close(row, "closed", Some("local"), None);
        let source = if snapshot { "scan" } else { "closer" };
        assert_eq!((row.pid, row.owner()), (Some(ids.0), (Some("holder-c"), source)), "{row:#?}");
    }
    for row in servers.values() {
        assert_incomplete(row);
        assert_states(row, &["established", "close_wait", "last_ack"]);
        assert_close(row, "closed", Some("remote"), None);
        let source = if snapshot { "scan" } else { "closer" };
        assert_eq!((row.pid, row.owner()), (Some(ids.1), (Some("holder-s"), source)), "{row:#?}");
    }
}

/// Connections of the churn that are open at the same time.
const AT_A_TIME: usize = 8;

/// Opens and closes connections, a few of them open at the same time, until `stop` is set. Appends the
/// clients' ports in the order of their close.
fn churn(namespace: &Namespace, listener: &Socket, stop: &AtomicBool, closed: &Mutex<Vec<u16>>) {
    const MOST: u16 = 20_000;
    namespace.run("churn", || {
        let port = sockets::port(listener);
        let mut open = VecDeque::new();
        let close = |(client, server): (Socket, Socket)| {
            let port = sockets::port(&client);
            drop(client);
            sockets::wait_for_end(&server);
            drop(server);
            closed.lock().unwrap().push(port);
        };
        for index in 0..MOST {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if index > 1_000 {
                // The start takes long on a busy machine: the pause makes the ports last, and the events fit
                // into the buffer.
                wait::pause(Duration::from_millis(3));
            }
            // Every client has its own port, so that each row identifies a connection.
            let client = sockets::tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
            client.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10_000 + index).into()).unwrap();
            client.connect(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).into()).unwrap();
            open.push_back((client, sockets::accept(listener)));
            if open.len() > AT_A_TIME {
                close(open.pop_front().unwrap());
            }
        }
        open.into_iter().for_each(close);
    });
}

/// Of the connections that are opened and closed during the start, those that close after some moment have
/// two rows, and those before have none.
#[rstest]
fn connections_opened_during_the_start_are_reported_once(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let _inhabitant = namespace.inhabit();
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:9999"));
    let stop = AtomicBool::new(false);
    let closed = Mutex::new(Vec::new());
    let count = || closed.lock().unwrap().len();
    let (tracer, before, after) = thread::scope(|scope| {
        scope.spawn(|| churn(&namespace, &listener, &stop, &closed));
        wait::until("the first connections", || (count() > 20).then_some(()));
        let before = count();
        let tracer = Tracer::connections(&namespace, mode);
        let after = count();
        wait::until("some more", || (count() > after + 40).then_some(()));
        stop.store(true, Ordering::Relaxed);
        (tracer, before, after)
    });
    let closed = closed.into_inner().unwrap();
    // Waits until every connection is closed.
    let settled = sockets::TIME_WAIT | sockets::FIN_WAIT_2 | sockets::LISTEN;
    wait::until("the last close", || (namespace.sockets_in(!settled) == 0).then_some(()));
    let Some(ended) = tracer.finish_many(mode, 2 * (closed.len() - after)) else { return };
    let summary = ended.summary();
    assert_eq!(summary.lost, 0, "{summary:?}");
    let (clients, servers) = by_client_port(ended.rows(), 9999);
    let skipped = usize::try_from(summary.skipped.unwrap_or(0)).unwrap();
    for rows in [&clients, &servers] {
        let (seen, unseen): (Vec<usize>, Vec<usize>) =
            (0..closed.len()).partition(|&index| rows.contains_key(&closed[index]));
        // A busy kernel may finish connections in another order than they were closed in, but only those
        // closed at the same moment. A skipped run can also hide a close.
        let begins_with = |first: usize| {
            seen.iter().filter(|&&index| index < first).count() <= AT_A_TIME
                && unseen.iter().filter(|&&index| index >= first).count() <= skipped
        };
        assert!(
            (before..=after).any(begins_with),
            "{before} to {after} of {}, {skipped} skipped; the first seen is {:?}, the last unseen {:?}",
            closed.len(),
            seen.first(),
            unseen.last()
        );
        assert_eq!(rows.len(), seen.len());
        for row in rows.values() {
            assert!(!row.gap && row.closed.is_some(), "{row:#?}");
            assert_eq!(row.incomplete, row.opened.is_none(), "{row:#?}");
        }
        // After the first complete row all later rows are complete, except those of skipped runs.
        let complete: Vec<bool> = seen.iter().map(|&index| !rows[&closed[index]].incomplete).collect();
        let later = complete.iter().skip_while(|&&complete| !complete);
        assert!(later.clone().any(|&complete| complete), "{complete:?}");
        assert!(later.filter(|&&complete| !complete).count() <= skipped, "{complete:?}");
    }
}

/// A connection that no process accepts or reads from belongs to the listening process, even if it has
/// listened since before the start.
#[rstest]
fn listener_from_before_the_start_owns_new_connections(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(true, false)] snapshot: bool,
) {
    let namespace = Namespace::alone();
    let listener = namespace.run("maker", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    // Only the child process holds the listener after `drop`.
    let server = ChildProcess::start(&namespace, "old-listener", sleep_until_killed);
    drop(listener);
    let options: &[&str] = if snapshot { &[] } else { &["--no-snapshot"] };
    let tracer = Tracer::json("connections", &namespace, mode, options);
    namespace.run("client", || {
        let client = sockets::connect(to);
        sockets::reset_on_close(&client);
    });
    let (client, row) = tracer.finish_both();
    assert_eq!((client.pid, client.owner()), (Some(std::process::id()), (Some("client"), "connect")));
    if snapshot {
        assert_eq!((row.pid, row.owner()), (Some(server.id()), (Some("old-listener"), "listener")));
    } else {
        assert_eq!((row.pid, row.owner()), (None, (None, "unknown")));
    }
}
