//! Owners that depend on the listener, and the names of threads.

use rstest::rstest;
use tcptrace_tests::{Connection, Mode, Namespace, Tracer, process, sockets, wait};

use crate::support::{assert_owner, kernel_is_at_least};

/// The client resets before the server reads or closes, so only the listener tells the owner.
fn reset_by_client(namespace: &Namespace, listener: &socket2::Socket, to: std::net::SocketAddr) {
    let client = namespace.run("client", || sockets::connect(to));
    let server = sockets::accept(listener);
    sockets::reset_on_close(&client);
    namespace.run("client", || drop(client));
    wait::until("the reset", || server.take_error().unwrap());
}

fn only_server(tracer: Tracer) -> Connection {
    let [row] = <[_; 1]>::try_from(tracer.finish(1)).unwrap();
    row
}

#[rstest]
fn listener_without_bind_owns_its_connections(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let listener = namespace.run("server", || {
        let listener = sockets::tcp(sockets::address("127.0.0.1:0"));
        listener.listen(8).unwrap();
        listener
    });
    let to = sockets::address(&format!("127.0.0.1:{}", sockets::port(&listener)));
    reset_by_client(&namespace, &listener, to);
    assert_owner(&only_server(tracer), "server", &["listener"]);
}

/// TPROXY gives the connection to another listener than the one on its local port. Up to 6.14 the accepted socket first has
/// its listener's endpoint, which tells the owner.
#[rstest]
fn listener_on_the_port_of_a_redirected_connection_does_not_own_it(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
) {
    let namespace = Namespace::new();
    let rule = "add table ip scenario; add chain ip scenario prerouting { type filter hook prerouting priority -150; }; \
                add rule ip scenario prerouting tcp dport 5000 tproxy to :15006 accept";
    namespace.command("nft", &[rule]);
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let _bystander = namespace.run("bystander", || sockets::listen("127.0.0.1:5000"));
    let proxy = namespace.run("proxy", || {
        sockets::listen_with("127.0.0.1:15006", 8, |socket| socket.set_ip_transparent_v4(true).unwrap())
    });
    reset_by_client(&namespace, &proxy, sockets::address("127.0.0.1:5000"));
    let row = only_server(tracer);
    let owner = if kernel_is_at_least(6, 15) { (None, "unknown") } else { (Some("proxy"), "listener") };
    assert_eq!((row.local_port, row.owner()), (Some(5000), owner), "{row:#?}");
    assert_eq!(row.pid.is_some(), owner.0.is_some());
}

#[rstest]
fn threads_have_their_process_and_their_own_name(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let leader = process::own_name();
    let by_process = Tracer::json("connections", &namespace, mode, &["--comm", &leader]);
    let by_thread = Tracer::json("connections", &namespace, mode, &["--comm", "okhttp-worker"]);
    let listener = namespace.run("http-worker", || sockets::listen("127.0.0.1:0"));
    reset_by_client(&namespace, &listener, sockets::local(&listener));
    let client = namespace.run("okhttp-worker", || sockets::connect(sockets::local(&listener)));
    sockets::reset_on_close(&client);
    drop(client);
    let [row] = &by_thread.finish(1)[..] else { unreachable!() };
    let names = |row: &Connection| (row.process.clone(), row.thread.clone());
    assert_eq!(names(row), (Some(leader.clone()), Some("okhttp-worker".to_owned())));
    let rows = by_process.finish(4);
    assert!(rows.iter().all(|row| row.process.as_deref() == Some(&leader)), "{rows:#?}");
    assert!(rows.iter().all(|row| row.pid == Some(std::process::id())), "{rows:#?}");
}

/// The main thread has no name beside its process's.
#[rstest]
fn main_thread_is_no_thread_of_its_own(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "client"]);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let child = tcptrace_tests::ChildProcess::start(&namespace, "a-client", || {
        let client = sockets::connect(to);
        sockets::reset_on_close(&client);
        drop(client);
        process::sleep_until_killed();
    });
    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!((row.process.as_deref(), row.thread.as_deref()), (Some("a-client"), None), "{row:#?}");
    drop(child);
}
