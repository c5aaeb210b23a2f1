//! Connections that were there before tracing began, or that were opened while it began.

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
    Connection, Mode, Namespace, Process, Tracer,
    process::{Gate, stay},
    sockets, speed, wait,
};

use crate::support::{assert_ending, assert_states};

/// Asserts what holds for everything whose beginning was not seen: nothing is invented.
#[track_caller]
fn assert_incomplete(row: &Connection) {
    assert!(row.incomplete && !row.gap, "{row:#?}");
    assert_eq!((row.opened.as_deref(), row.duration_us, row.role.as_str()), (None, None, "unknown"));
    assert_eq!((row.handshake_us, row.handshake_source.as_deref(), row.syn_retransmits), (None, None, None));
    assert_eq!((row.states[0].state.as_str(), row.states[0].duration_us), ("established", None), "{row:#?}");
    assert!(row.closed.is_some(), "{row:#?}");
}

/// The rows by the port that only one connection has: the client's.
fn by_client_port(
    rows: Vec<Connection>,
    server: u16,
) -> (BTreeMap<u16, Connection>, BTreeMap<u16, Connection>) {
    let (mut clients, mut servers) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        let (local, remote) = row.ports();
        let twice = if local == server {
            servers.insert(remote, row)
        } else {
            assert_eq!(remote, server, "{row:#?}");
            clients.insert(local, row)
        };
        assert_eq!(twice, None, "a second line for one end");
    }
    (clients, servers)
}

#[rstest]
fn a_thousand_connections_end_after_the_start(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(true, false)] snapshot: bool,
) {
    let count = speed::count(1000, 200);
    let namespace = Namespace::alone();
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:0", 1024, |_| {}));
    let to = sockets::local(&listener);
    let end = Gate::new();
    let server = Process::start(&namespace, "holder-s", || {
        let open: Vec<Socket> = (0..count).map(|_| sockets::accept(&listener)).collect();
        open.iter().for_each(sockets::wait_for_end);
        drop(open);
    });
    let client = Process::start(&namespace, "holder-c", || {
        let open: Vec<Socket> = (0..count).map(|_| sockets::connect(to)).collect();
        end.wait();
        drop(open);
    });
    wait::until("all connections", || {
        (namespace.sockets_in(sockets::ESTABLISHED) == 2 * count).then_some(())
    });
    let ids = (client.id(), server.id());
    let options: &[&str] = if snapshot { &[] } else { &["--no-snapshot"] };
    let tracer = Tracer::json("connections", &namespace, mode, options);
    end.open();
    client.wait();
    server.wait();
    let Some(ended) = tracer.many(mode, 2 * count) else { return };
    let (clients, servers) = by_client_port(ended.rows(), to.port());
    assert_eq!((clients.len(), servers.len()), (count, count));
    assert!(clients.keys().eq(servers.keys()));
    for row in clients.values() {
        assert_incomplete(row);
        // A server may be quicker than the client's kernel, which then keeps the other mini-socket.
        let states = row.state_names();
        assert_eq!(states[..3], ["established", "fin_wait_1", "fin_wait_2"], "{row:#?}");
        assert!(states.len() == 3 || states[3..] == ["time_wait"], "{row:#?}");
        assert_ending(row, "closed", Some("local"), None);
        let source = if snapshot { "scan" } else { "closer" };
        assert_eq!((row.pid, row.owner()), (Some(ids.0), (Some("holder-c"), source)), "{row:#?}");
    }
    for row in servers.values() {
        assert_incomplete(row);
        assert_states(row, &["established", "close_wait", "last_ack"]);
        assert_ending(row, "closed", Some("remote"), None);
        let source = if snapshot { "scan" } else { "closer" };
        assert_eq!((row.pid, row.owner()), (Some(ids.1), (Some("holder-s"), source)), "{row:#?}");
    }
}

/// How many connections of the churn are open at a time.
const AT_A_TIME: usize = 8;

/// Opens and closes connections, a few of them open at a time, until told to stop; gives the client's
/// ports in the order of the closing.
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
                // A start on a busy machine takes long: the ports must last, and the buffer must hold what happens.
                wait::pause(Duration::from_millis(3));
            }
            // Every client has another port, so that each line is somebody's.
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

/// Of the connections that are opened and closed while the program starts, those that end after a
/// certain moment have their two lines, and those before have none.
#[rstest]
fn what_opens_during_the_start_is_told_once(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
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
    // Every socket has ended by now: TIME_WAIT (6), LISTEN (10).
    wait::until("the last", || (namespace.sockets_in(!(1 << 6 | 1 << 5 | 1 << 10)) == 0).then_some(()));
    let Some(ended) = tracer.many(mode, 2 * (closed.len() - after)) else { return };
    let summary = ended.summary();
    assert_eq!(summary.lost, 0, "{summary:?}");
    let (clients, servers) = by_client_port(ended.rows(), 9999);
    let skipped = usize::try_from(summary.skipped.unwrap_or(0)).unwrap();
    for rows in [&clients, &servers] {
        let (seen, unseen): (Vec<usize>, Vec<usize>) =
            (0..closed.len()).partition(|&index| rows.contains_key(&closed[index]));
        // A busy kernel ends connections in another order than they were closed in, but only those of a moment. And the
        // end of one can be what it skipped.
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
        // Once a beginning was seen, all later ones were, but for those that the kernel skipped.
        let complete: Vec<bool> = seen.iter().map(|&index| !rows[&closed[index]].incomplete).collect();
        let later = complete.iter().skip_while(|&&complete| !complete);
        assert!(later.clone().any(|&complete| complete), "{complete:?}");
        assert!(later.filter(|&&complete| !complete).count() <= skipped, "{complete:?}");
    }
}

/// A connection that nobody reads from or accepts belongs to the process that listens, also when it has
/// listened since before the start.
#[rstest]
fn a_listener_from_before_owns_what_arrives(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(true, false)] snapshot: bool,
) {
    let namespace = Namespace::alone();
    let listener = namespace.run("maker", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    // Only this one holds it.
    let server = Process::start(&namespace, "old-listener", stay);
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
