//! Handshakes that begin or end with the application's first data: Fast Open and `TCP_DEFER_ACCEPT`.

use std::{io::Write as _, net::Shutdown, time::Duration};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{ChildProcess, Mode, Namespace, Tracer, process::sleep_until_killed, sockets, wait};

use crate::support::assert_time;

/// `TCP_FASTOPEN_CONNECT`, `include/uapi/linux/tcp.h`.
const FAST_OPEN_CONNECT: i32 = 30;

/// Fast Open without cookies, for clients and servers.
fn enable_fast_open(namespace: &Namespace) {
    namespace.sysctl("net.ipv4.tcp_fastopen", "1543");
}

fn listen_fast_open() -> Socket {
    sockets::listen_with("127.0.0.1:5000", 8, |socket| {
        sockets::set_tcp_option(socket, libc::TCP_FASTOPEN, 8);
    })
}

fn listen_deferred(seconds: i32) -> Socket {
    sockets::listen_with("127.0.0.1:5000", 8, |socket| {
        sockets::set_tcp_option(socket, libc::TCP_DEFER_ACCEPT, seconds);
    })
}

/// `connect()` sets SYN_SENT, and the SYN leaves at the first write.
#[rstest]
fn wait_before_the_first_write_is_no_handshake(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    enable_fast_open(&namespace);
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "client"]);
    let listener = namespace.run("server", listen_fast_open);
    let idle = Duration::from_millis(1200);
    namespace.run("client", || {
        let client = sockets::tcp(sockets::local(&listener));
        sockets::set_tcp_option(&client, FAST_OPEN_CONNECT, 1);
        client.connect(&sockets::local(&listener).into()).unwrap();
        wait::pause(idle);
        sockets::send(&client, b"first");
        sockets::receive(&sockets::accept(&listener), 5);
        sockets::reset_on_close(&client);
    });
    let [client] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!(client.handshake_caveat.as_deref(), Some("fast_open_deferred"), "{client:#?}");
    assert_eq!((client.handshake_source.as_deref(), client.syn_retransmits), (Some("measured"), Some(0)));
    assert_time("handshake", client.handshake(), ..idle);
    assert_time("syn_sent", client.time_in("syn_sent"), idle..);
}

#[test]
fn deferred_syn_has_no_unacknowledged_bytes() {
    let namespace = Namespace::new();
    enable_fast_open(&namespace);
    let _listener = namespace.run("server", listen_fast_open);
    let _inhabitant = namespace.inhabit();
    let netns = namespace.inode().to_string();
    let options =
        ["stuck", "--netns", &netns, "-o", "json", "--threshold", "syn_sent=1ms", "--duration", "1s"];
    let tracer = Tracer::start(options);
    let to = sockets::address("127.0.0.1:5000");
    let _client = namespace.run("client", || {
        let client = sockets::tcp(to);
        sockets::set_tcp_option(&client, FAST_OPEN_CONNECT, 1);
        client.connect(&to.into()).unwrap();
        client
    });
    let ended = tracer.wait_for_exit();
    let rows: Vec<serde_json::Value> = ended.rows();
    let row = rows.iter().find(|row| row["type"] == "stuck").unwrap_or_else(|| panic!("{}", ended.text()));
    assert_eq!((&row["state"], &row["unacked_bytes"]), (&"syn_sent".into(), &serde_json::Value::Null));
}

/// A client, such as a health check, that connects, stays silent and closes.
#[rstest]
fn handshake_that_the_fin_ends_is_marked(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(false, true)] is_known: bool,
) {
    let namespace = Namespace::new();
    let early = (!is_known).then(|| namespace.run("server", || listen_deferred(10)));
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let listener = early.unwrap_or_else(|| namespace.run("server", || listen_deferred(10)));
    let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    let silent = wait::pause(Duration::from_millis(300));
    drop(client);
    let server = sockets::accept(&listener);
    sockets::wait_for_end(&server);
    drop(server);
    let [server] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!(server.handshake_caveat.as_deref(), Some("first_data"), "{server:#?}");
    assert_eq!((server.handshake_rtt_us, server.syn_retransmits), (None, Some(0)), "{server:#?}");
    assert_time("handshake", server.handshake(), silent..);
}

/// At the end of the deferral the kernel sends the SYN-ACK again, and the client's answer completes the handshake.
#[rstest]
fn retransmission_at_the_end_of_a_deferral_lost_nothing(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let listener = namespace.run("server", || listen_deferred(1));
    let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    let server = sockets::accept(&listener);
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
    let [server] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!(server.handshake_caveat.as_deref(), Some("first_data"), "{server:#?}");
    // Mode tracepoint does not see the retransmission, and cannot tell it from a lost SYN-ACK.
    assert_eq!(server.syn_retransmits, (mode == Mode::Btf).then_some(0), "{server:#?}");
    assert_eq!(server.handshake_rtt_us, None);
}

/// The server shuts down while the client's last ACK is on its way. A softirq performs it later, in the client's context.
#[rstest]
fn pending_shutdown_makes_no_process_the_owner(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    enable_fast_open(&namespace);
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let listening = tcptrace_tests::process::Gate::new();
    let shut = tcptrace_tests::process::Gate::new();
    let child = ChildProcess::start(&namespace, "tfo-server", || {
        let listener = listen_fast_open();
        listening.open();
        let server = sockets::accept(&listener);
        sockets::receive(&server, 5);
        server.shutdown(Shutdown::Write).unwrap();
        shut.open();
        sleep_until_killed();
    });
    let id = child.id();
    listening.wait();
    // The SYN-ACK is on its way for a while.
    namespace.filter_input("tcp sport 5000 drop");
    let client = namespace.run("tfo-client", || {
        let to = sockets::address("127.0.0.1:5000");
        let client = sockets::tcp(to);
        sockets::set_tcp_option(&client, FAST_OPEN_CONNECT, 1);
        client.set_nonblocking(true).unwrap();
        client.connect(&to.into()).unwrap();
        // The data leaves with the SYN, and the call does not wait for the answer.
        let _ = (&client).write(b"hello");
        client.set_nonblocking(false).unwrap();
        client
    });
    shut.wait();
    namespace.filter_input("");
    sockets::wait_for_end(&client);
    namespace.run("tfo-client", || drop(client));
    let [server] = &tracer.finish(1)[..] else { unreachable!() };
    assert_eq!((server.pid, server.process.as_deref()), (Some(id), Some("tfo-server")), "{server:#?}");
}
