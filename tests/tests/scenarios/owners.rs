//! Owners of connections that several processes use.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::Shutdown,
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    ChildProcess, Connection, Mode, Namespace, Tracer,
    process::{Gate, sleep_until_killed},
    sockets, speed, wait,
};

use crate::support::assert_close;

fn own_pid() -> u32 {
    std::process::id()
}

/// Creates a listener in the test program, and a client in a child process that runs `work` after connecting.
fn with_client(namespace: &Namespace, work: impl FnOnce(Socket) + Send) -> (Socket, Socket, ChildProcess) {
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let client = ChildProcess::start(namespace, "a-client", || work(sockets::connect(to)));
    let server = namespace.run("server", || sockets::accept(&listener));
    (listener, server, client)
}

#[track_caller]
fn assert_owned(row: &Connection, pid: u32, name: &str, source: &str) {
    assert_eq!((row.pid, row.owner()), (Some(pid), (Some(name), source)), "{row:#?}");
}

/// A server forks a worker for each connection. The worker reads; the parent closes its copy last.
#[rstest]
fn worker_that_reads_owns_the_connection(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let (_listener, server, client) = with_client(&namespace, |client| {
        sockets::send(&client, b"hello");
        client.shutdown(Shutdown::Write).unwrap();
        sockets::wait_for_end(&client);
    });
    let worker = ChildProcess::start(&namespace, "a-worker", || sockets::receive(&server, 5));
    let worker_id = worker.id();
    worker.wait();
    namespace.run("parent", || drop(server));
    let client_id = client.id();
    client.wait();
    let (client, server) = tracer.finish_both();
    assert_owned(&client, client_id, "a-client", "connect");
    match mode {
        Mode::Btf => assert_owned(&server, worker_id, "a-worker", "reader"),
        // Without the hook the closing process may be the best known owner.
        Mode::Tracepoint => assert!(
            server.owner() == (Some("a-worker"), "reader") && server.pid == Some(worker_id)
                || server.owner() == (Some("parent"), "closer") && server.pid == Some(own_pid()),
            "{server:#?}"
        ),
    }
}

/// The worker only writes, and its exit closes the socket.
#[rstest]
fn worker_that_closes_owns_the_connection(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let (_listener, server, client) = with_client(&namespace, |client| sockets::wait_for_end(&client));
    let go = Gate::new();
    let worker = ChildProcess::start(&namespace, "a-worker", || {
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

/// The connecting process is the owner, even if another process closes the socket.
#[rstest]
fn connecting_process_owns_the_client_socket(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let client = namespace.run("maker", || sockets::tcp(to));
    let connector = ChildProcess::start(&namespace, "connector", || client.connect(&to.into()).unwrap());
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
    assert_eq!(server.pid, Some(own_pid()), "{server:#?}");
}

/// Starts a process that listens on a shared port, sends its process id on each connection, and closes after
/// its client.
fn shared_port_server(namespace: &Namespace, name: &str, on: &str, ready: &Gate) -> ChildProcess {
    let process = ChildProcess::start(namespace, name, || {
        let listener = sockets::listen_with(on, 128, |socket| socket.set_reuse_port(true).unwrap());
        ready.open();
        loop {
            let Ok((server, _)) = listener.accept() else { continue };
            // Errors of reset connections are ignored.
            let _ = (&server).write(&std::process::id().to_ne_bytes());
            let _ = (&server).read_to_end(&mut Vec::new());
        }
    });
    ready.wait();
    process
}

/// Two processes share a port. The program learns which one serves a connection when it reads or closes, and
/// reports no owner before that.
#[rstest]
fn owner_on_a_shared_port_is_known_only_after_read_or_close(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(true, false)] before: bool,
) {
    const CONNECTIONS: usize = 40;
    let namespace = Namespace::alone();
    let ready = Gate::new();
    let on = "127.0.0.1:5000";
    // The second process starts after the tracer, or both start before it.
    let first = shared_port_server(&namespace, "first", on, &ready);
    let early = before.then(|| shared_port_server(&namespace, "second", on, &ready));
    let tracer = Tracer::connections(&namespace, mode);
    let second = early.unwrap_or_else(|| shared_port_server(&namespace, "second", on, &ready));
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
                // A reset before the server's socket exists would leave no server row.
                wait::until("the server's socket", || {
                    (namespace.sockets_in(sockets::ESTABLISHED) >= 2).then_some(())
                });
                sockets::reset_on_close(&client);
            }
        }
    });
    let ids: std::collections::BTreeSet<u32> = served.values().copied().collect();
    assert!(ids.iter().all(|id| [first.id(), second.id()].contains(id)));
    let Some(ended) = tracer.finish_many(mode, 2 * CONNECTIONS) else { return };
    let rows = ended.rows::<Connection>();
    if rows.iter().any(|row| row.incomplete) && ended.summary().missing() > 0 {
        return speed::not_possible("it skipped a run of the BPF program at the open of a connection");
    }
    assert_eq!(rows.len(), 2 * CONNECTIONS);
    for row in rows.iter().filter(|row| row.role == "client") {
        assert_owned(row, own_pid(), "client", "connect");
    }
    let servers: Vec<_> = rows.iter().filter(|row| row.role == "server").collect();
    assert_eq!(servers.len(), CONNECTIONS);
    for row in servers {
        let port = row.remote_port.unwrap();
        match served.get(&port) {
            Some(&id) => {
                assert_eq!(row.pid, Some(id), "{row:#?}");
                assert!(["closer", "accept"].contains(&row.owner_source.as_str()), "{row:#?}");
            }
            // The hook of `accept()` also knows who accepted a connection that nobody used.
            None if row.owner_source == "accept" => {
                assert!(reset.contains(&port));
                assert!(row.pid.is_some_and(|id| [first.id(), second.id()].contains(&id)), "{row:#?}");
            }
            None => {
                assert_eq!((reset.contains(&port), row.pid, row.owner()), (true, None, (None, "unknown")));
            }
        }
    }
}

#[rstest]
fn exited_client_owns_its_connection(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
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
    assert_close(&client, "closed", Some("local"), None);
    assert_eq!((server.pid, server.caller()), (Some(own_pid()), Some("server")), "{server:#?}");
}

/// How a connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResetCause {
    /// The client resets while the server waits.
    ByClient,
    /// The client resets after its FIN.
    AfterFin,
    /// The server resets while the client waits.
    ByServer,
    /// The server closes with unread data, and the kernel sends a reset.
    Unread,
}

/// On loopback the kernel processes received segments in the context of the sending process. The sender never
/// becomes the owner of the receiving socket.
#[rstest]
fn peer_never_owns_the_other_socket(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(ResetCause::ByClient, ResetCause::AfterFin, ResetCause::ByServer, ResetCause::Unread)]
    how: ResetCause,
) {
    let namespace = Namespace::alone();
    let (listening, go) = (Gate::new(), Gate::new());
    let tracer = Tracer::connections(&namespace, mode);
    let listener = ChildProcess::start(&namespace, "a-server", || {
        let listener = sockets::listen("127.0.0.1:5000");
        listening.open();
        let server = sockets::accept(&listener);
        match how {
            ResetCause::ByClient => {
                go.open();
                sockets::wait_for_error(&server);
            }
            ResetCause::AfterFin => {
                sockets::send(&server, b"unread");
                go.open();
                sleep_until_killed();
            }
            ResetCause::ByServer => {
                go.wait();
                sockets::reset_on_close(&server);
            }
            ResetCause::Unread => sockets::wait_for_data(&server),
        }
        drop(server);
        sleep_until_killed();
    });
    listening.wait();
    let client = ChildProcess::start(&namespace, "a-client", || {
        let client = sockets::connect(sockets::address("127.0.0.1:5000"));
        match how {
            ResetCause::ByClient => {
                // A reset before the server's socket exists would leave no server row.
                go.wait();
                sockets::reset_on_close(&client);
            }
            ResetCause::AfterFin => {
                client.shutdown(Shutdown::Write).unwrap();
                go.wait();
                // The server's data stays unread.
                sockets::wait_for_data(&client);
            }
            ResetCause::ByServer => {
                go.open();
                sockets::wait_for_error(&client);
            }
            ResetCause::Unread => {
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
        ResetCause::ByClient | ResetCause::AfterFin => {
            assert!(["listener", "accept"].contains(&server.owner_source.as_str()), "{server:#?}");
        }
        ResetCause::ByServer | ResetCause::Unread => assert_eq!(client.closed_by.as_deref(), Some("remote")),
    }
}
