//! Whose connection it is, when several processes have to do with it.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::Shutdown,
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Connection, Mode, Namespace, Process, Tracer,
    process::{Gate, stay},
    sockets, speed, wait,
};

use crate::support::assert_ending;

fn own() -> u32 {
    std::process::id()
}

/// A listener in the test program, and a client in a process of its own that does `work` once it is
/// connected.
fn with_client(namespace: &Namespace, work: impl FnOnce(Socket) + Send) -> (Socket, Socket, Process) {
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let client = Process::start(namespace, "a-client", || work(sockets::connect(to)));
    let server = namespace.run("server", || sockets::accept(&listener));
    (listener, server, client)
}

#[track_caller]
fn assert_owned(row: &Connection, pid: u32, name: &str, source: &str) {
    assert_eq!((row.pid, row.owner()), (Some(pid), (Some(name), source)), "{row:#?}");
}

/// A server that forks a worker for each connection, which reads; the parent's copy is closed last.
#[rstest]
fn the_worker_that_reads(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let (_listener, server, client) = with_client(&namespace, |client| {
        sockets::send(&client, b"hello");
        client.shutdown(Shutdown::Write).unwrap();
        sockets::wait_for_end(&client);
    });
    let worker = Process::start(&namespace, "a-worker", || sockets::receive(&server, 5));
    let worker_id = worker.id();
    worker.wait();
    namespace.run("parent", || drop(server));
    let client_id = client.id();
    client.wait();
    let (client, server) = tracer.finish_both();
    assert_owned(&client, client_id, "a-client", "connect");
    match mode {
        Mode::Btf => assert_owned(&server, worker_id, "a-worker", "reader"),
        // Without the hook the one that closes is the nearest that is known.
        Mode::Tracepoint => assert!(
            server.owner() == (Some("a-worker"), "reader") && server.pid == Some(worker_id)
                || server.owner() == (Some("parent"), "closer") && server.pid == Some(own()),
            "{server:#?}"
        ),
    }
}

/// The worker writes only, and its exit is what closes.
#[rstest]
fn the_worker_that_closes(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let (_listener, server, client) = with_client(&namespace, |client| sockets::wait_for_end(&client));
    let go = Gate::new();
    let worker = Process::start(&namespace, "a-worker", || {
        go.wait();
        sockets::send(&server, b"hello");
    });
    let worker_id = worker.id();
    drop(server);
    go.open();
    worker.wait();
    let client_id = client.id();
    client.wait();
    let (client, server) = tracer.finish_both();
    assert_owned(&client, client_id, "a-client", "connect");
    assert_owned(&server, worker_id, "a-worker", "closer");
}

/// The process that connects is the owner, whoever closes.
#[rstest]
fn another_process_closes_the_clients(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let client = namespace.run("maker", || sockets::tcp(to));
    let connector = Process::start(&namespace, "connector", || client.connect(&to.into()).unwrap());
    let connector_id = connector.id();
    let server = namespace.run("server", || sockets::accept(&listener));
    connector.wait();
    namespace.run("heir", || {
        sockets::send(&client, b"hello");
        drop(client);
    });
    namespace.run("server", || {
        sockets::wait_for_end(&server);
        drop(server);
    });
    let (client, server) = tracer.finish_both();
    assert_owned(&client, connector_id, "connector", "connect");
    assert_eq!(server.pid, Some(own()), "{server:#?}");
}

/// A process that listens on a port that it shares, answers each connection with its number, and
/// closes after its client.
fn one_of_several(namespace: &Namespace, name: &str, on: &str, ready: &Gate) -> Process {
    let process = Process::start(namespace, name, || {
        let listener = sockets::listen_with(on, 128, |socket| socket.set_reuse_port(true).unwrap());
        ready.open();
        loop {
            let Ok((server, _)) = listener.accept() else { continue };
            // Some are reset; the end is an end all the same.
            let _ = (&server).write(&std::process::id().to_ne_bytes());
            let _ = (&server).read_to_end(&mut Vec::new());
        }
    });
    ready.wait();
    process
}

/// Two processes share a port: which of them serves a connection is known when it reads or closes, and
/// never guessed.
#[rstest]
fn listeners_that_share_a_port(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(true, false)] before: bool,
) {
    const CONNECTIONS: usize = 40;
    let namespace = Namespace::alone();
    let ready = Gate::new();
    let on = "127.0.0.1:5000";
    // The second begins right after the program has, or both before it.
    let first = one_of_several(&namespace, "first", on, &ready);
    let early = before.then(|| one_of_several(&namespace, "second", on, &ready));
    let tracer = Tracer::connections(&namespace, mode);
    let second = early.unwrap_or_else(|| one_of_several(&namespace, "second", on, &ready));
    let mut served: BTreeMap<u16, u32> = BTreeMap::new();
    let mut reset = Vec::new();
    namespace.run("client", || {
        for index in 0..CONNECTIONS {
            let client = sockets::connect(sockets::address(on));
            let port = sockets::port(&client);
            if index % 2 == 0 {
                let mut id = [0; 4];
                (&client).read_exact(&mut id).unwrap();
                served.insert(port, u32::from_ne_bytes(id));
                client.shutdown(Shutdown::Write).unwrap();
                sockets::wait_for_end(&client);
            } else {
                reset.push(port);
                // A reset that comes before the server has its socket leaves none.
                wait::until("the server's", || {
                    (namespace.sockets_in(sockets::ESTABLISHED) >= 2).then_some(())
                });
                sockets::reset_on_close(&client);
            }
        }
    });
    let ids: std::collections::BTreeSet<u32> = served.values().copied().collect();
    assert!(ids.iter().all(|id| [first.id(), second.id()].contains(id)));
    let Some(ended) = tracer.many(mode, 2 * CONNECTIONS) else { return };
    let rows = ended.rows::<Connection>();
    if rows.iter().any(|row| row.incomplete) && ended.summary().missing() > 0 {
        return speed::not_possible("it skipped the program at the beginning of a connection");
    }
    assert_eq!(rows.len(), 2 * CONNECTIONS);
    for row in rows.iter().filter(|row| row.role == "client") {
        assert_owned(row, own(), "client", "connect");
    }
    let servers: Vec<_> = rows.iter().filter(|row| row.role == "server").collect();
    assert_eq!(servers.len(), CONNECTIONS);
    for row in servers {
        let port = row.remote_port.unwrap();
        match served.get(&port) {
            Some(&id) => assert_eq!((row.pid, row.owner_source.as_str()), (Some(id), "closer"), "{row:#?}"),
            None => {
                assert_eq!((reset.contains(&port), row.pid, row.owner()), (true, None, (None, "unknown")));
            }
        }
    }
}

#[rstest]
fn a_client_that_exits_at_once(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let (_listener, server, client) = with_client(&namespace, std::mem::forget);
    let id = client.id();
    client.wait();
    namespace.run("server", || {
        sockets::wait_for_end(&server);
        drop(server);
    });
    let (client, server) = tracer.finish_both();
    assert_owned(&client, id, "a-client", "connect");
    assert_ending(&client, "closed", Some("local"), None);
    assert_eq!((server.pid, server.process.as_deref()), (Some(own()), Some("server")), "{server:#?}");
}

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// The client's reset comes to a server that waits.
    ByClient,
    /// The same to a server that has got the client's FIN before.
    AfterFin,
    /// The server's reset comes to a client that waits.
    ByServer,
    /// The server leaves data unread, and the kernel sends a reset.
    Unread,
}

/// On loopback the kernel handles what one end sends while the sending process runs: that one never
/// becomes the owner of the other end.
#[rstest]
fn the_peer_never_owns_a_broken_end(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(Break::ByClient, Break::AfterFin, Break::ByServer, Break::Unread)] how: Break,
) {
    let namespace = Namespace::alone();
    let (listening, go) = (Gate::new(), Gate::new());
    let tracer = Tracer::connections(&namespace, mode);
    let listener = Process::start(&namespace, "a-server", || {
        let listener = sockets::listen("127.0.0.1:5000");
        listening.open();
        let server = sockets::accept(&listener);
        match how {
            Break::ByClient => {
                go.open();
                sockets::wait_for_error(&server);
            }
            Break::AfterFin => {
                sockets::send(&server, b"unread");
                go.open();
                stay();
            }
            Break::ByServer => {
                // A reset before `connect` has returned would fail that.
                go.wait();
                sockets::reset_on_close(&server);
            }
            Break::Unread => sockets::wait_for_data(&server),
        }
        drop(server);
        stay();
    });
    listening.wait();
    let client = Process::start(&namespace, "a-client", || {
        let client = sockets::connect(sockets::address("127.0.0.1:5000"));
        match how {
            Break::ByClient => {
                // A reset that comes before the server has its socket leaves none.
                go.wait();
                sockets::reset_on_close(&client);
            }
            Break::AfterFin => {
                client.shutdown(Shutdown::Write).unwrap();
                go.wait();
                // The server's data is left unread.
                sockets::wait_for_data(&client);
            }
            Break::ByServer => {
                go.open();
                sockets::wait_for_error(&client);
            }
            Break::Unread => {
                sockets::send(&client, b"unread");
                sockets::wait_for_error(&client);
            }
        }
    });
    let ids = (client.id(), listener.id());
    client.wait();
    let (client, server) = tracer.finish_both();
    assert_owned(&client, ids.0, "a-client", "connect");
    assert_eq!((server.pid, server.process.as_deref()), (Some(ids.1), Some("a-server")), "{server:#?}");
    match how {
        Break::ByClient | Break::AfterFin => assert_eq!(server.owner_source, "listener"),
        Break::ByServer | Break::Unread => assert_eq!(client.closed_by.as_deref(), Some("remote")),
    }
}
