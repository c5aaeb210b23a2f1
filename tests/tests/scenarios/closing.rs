//! Every way in which an established connection closes.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rstest::rstest;
use socket2::{SockRef, TcpKeepalive};
use tcptrace_tests::{
    Connection, Mode, Namespace, Tracer,
    sockets::{self, Pair},
    wait,
};

use crate::support::{SERVER_STATES, assert_close, assert_owner, assert_states, assert_time};

const DROP_TO_SERVER: &str = "tcp dport 5000 drop";
/// Keeps a Fast Open connection in SYN_RECV.
const DROP_ACKS_TO_SERVER: &str = "tcp dport 5000 tcp flags & (syn | fin | rst | psh) == 0 drop";

/// Traces a client whose peer stops answering until it closes. Returns its row and the elapsed time.
fn with_vanished_server(
    mode: Mode,
    prepare: impl FnOnce(&Namespace),
    act: impl FnOnce(&Namespace, socket2::Socket) -> Option<socket2::Socket> + Send,
) -> (Connection, Duration) {
    let namespace = Namespace::new();
    prepare(&namespace);
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "client"]);
    let start = Instant::now();
    let Pair { client, server: _server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    namespace.filter_input(DROP_TO_SERVER);
    let _open = act(&namespace, client);
    tracer.wait_for_lines(1);
    let wall = start.elapsed();
    let [row] = <[_; 1]>::try_from(tracer.finish(1)).unwrap();
    assert_owner(&row, "client", &["connect"]);
    (row, wall)
}

#[rstest]
fn unacknowledged_fin_is_reported_as_peer_vanished(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (row, wall) = with_vanished_server(
        mode,
        |namespace| namespace.sysctl("net.ipv4.tcp_orphan_retries", "1"),
        |namespace, client| {
            namespace.run("client", || drop(client));
            None
        },
    );
    assert_states(&row, &["syn_sent", "established", "fin_wait_1"]);
    assert_close(&row, "peer_vanished", Some("local"), Some("ETIMEDOUT"));
    assert_time("fin_wait_1", row.time_in("fin_wait_1"), Duration::from_millis(200)..=wall);
    assert!(row.retransmits.is_some_and(|count| count >= 1), "{row:#?}");
}

#[rstest]
fn missing_last_ack_is_reported_as_peer_vanished(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_orphan_retries", "1");
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "server"]);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    namespace.run("client", || drop(client));
    namespace.run("worker", || {
        sockets::wait_for_end(&server);
        namespace.filter_input("tcp sport 5000 drop");
        drop(server);
    });
    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, SERVER_STATES);
    assert_close(row, "peer_vanished", Some("local"), Some("ETIMEDOUT"));
    assert_owner(row, "worker", &["accept", "reader", "closer"]);
    assert_time("last_ack", row.time_in("last_ack"), Duration::from_millis(200)..);
}

#[rstest]
fn unanswered_keepalive_is_reported_as_keepalive_timeout(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let second = Duration::from_secs(1);
    let (row, wall) = with_vanished_server(
        mode,
        |_| {},
        |_, client| {
            let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2);
            SockRef::from(&client).set_tcp_keepalive(&keepalive).unwrap();
            Some(client)
        },
    );
    assert_states(&row, &["syn_sent", "established"]);
    assert_close(&row, "keepalive_timeout", Some("local"), Some("ETIMEDOUT"));
    assert_time("established", row.time_in("established"), Duration::from_millis(2500)..=wall);
}

#[rstest]
fn expired_tcp_user_timeout_is_reported_as_user_timeout(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (row, wall) = with_vanished_server(
        mode,
        |_| {},
        |_, client| {
            SockRef::from(&client).set_tcp_user_timeout(Some(Duration::from_millis(700))).unwrap();
            sockets::send(&client, b"request");
            Some(client)
        },
    );
    assert_states(&row, &["syn_sent", "established"]);
    assert_close(&row, "user_timeout", Some("local"), Some("ETIMEDOUT"));
    assert_time("established", row.time_in("established"), Duration::from_millis(600)..=wall);
}

#[rstest]
fn exhausted_retransmits_are_reported_as_retransmission_timeout(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
) {
    let (row, wall) = with_vanished_server(
        mode,
        |namespace| namespace.sysctl("net.ipv4.tcp_retries2", "3"),
        |_, client| {
            sockets::send(&client, b"request");
            Some(client)
        },
    );
    assert_states(&row, &["syn_sent", "established"]);
    assert_close(&row, "retransmission_timeout", Some("local"), Some("ETIMEDOUT"));
    assert!(row.retransmits.is_some_and(|count| count >= 3), "{row:#?}");
    assert_time("established", row.time_in("established"), Duration::from_secs(1)..=wall);
}

#[rstest]
fn write_after_peer_close_is_reported_as_reset_by_peer(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "client"]);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    namespace.run("server", || drop(server));
    sockets::wait_for_end(&client);
    sockets::send(&client, b"too late");

    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    assert_states(row, &["syn_sent", "established", "close_wait"]);
    assert_close(row, "reset_by_peer", Some("remote"), Some("EPIPE"));
}

#[rstest]
fn socket_killed_by_ss_is_reported_as_killed(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client: _client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    namespace.command("ss", &["-t", "-K", "dport", "=", ":5000"]);
    assert_eq!(sockets::wait_for_error(&server), libc::ECONNRESET);

    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established"]);
    assert_close(&client, "killed", Some("local"), Some("ECONNABORTED"));
    // The owner is the client, not `ss`.
    assert_owner(&client, "client", &["connect"]);
    assert_close(&server, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
}

#[rstest]
fn socket_of_killed_process_is_reported_as_closed(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let mut child = namespace.child(
        Command::new("bash").args(["-c", "exec 3<>/dev/tcp/127.0.0.1/5000; read"]).stdin(Stdio::piped()),
    );
    let server = sockets::accept(&listener);
    child.kill().unwrap();
    child.wait().unwrap();
    sockets::wait_for_end(&server);
    namespace.run("server", || drop(server));

    let (client, server) = tracer.finish_both();
    assert_eq!((client.process.as_deref(), client.pid), (Some("bash"), Some(child.id())));
    assert_eq!(client.state_names()[..3], ["syn_sent", "established", "fin_wait_1"]);
    assert_close(&client, "closed", Some("local"), None);
    assert_states(&server, SERVER_STATES);
    assert_close(&server, "closed", Some("remote"), None);
}

#[rstest]
fn closing_listener_aborts_unaccepted_connection(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
    wait::until("both sockets", || (namespace.sockets_in(sockets::ESTABLISHED) == 2).then_some(()));
    let queued = wait::pause(Duration::from_millis(40));
    namespace.run("server", || drop(listener));
    assert_eq!(sockets::wait_for_error(&client), libc::ECONNRESET);

    let (client, server) = tracer.finish_both();
    assert_states(&server, &["syn_received", "established"]);
    assert_close(&server, "aborted", Some("local"), None);
    assert_time("established", server.time_in("established"), queued..);
    assert_owner(&server, "server", &["listener", "closer"]);
    assert_close(&client, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
}

/// The end of a Fast Open connection whose handshake is not complete.
#[derive(Clone, Copy, Debug)]
enum EarlyEnd {
    CloseUnread,
    CloseLingering,
    Disconnect,
    CloseListener,
}

/// The application accepts a Fast Open connection, and may close it, before the final ACK arrives.
#[rstest]
#[case(EarlyEnd::CloseUnread, "unread_data")]
#[case(EarlyEnd::CloseLingering, "aborted")]
#[case(EarlyEnd::Disconnect, "disconnected")]
#[case(EarlyEnd::CloseListener, "aborted")]
fn fast_open_connection_may_end_in_syn_received(
    #[case] end: EarlyEnd,
    #[case] reason: &str,
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
) {
    let namespace = Namespace::new();
    // Enables client and server, without a cookie, on every listener.
    namespace.sysctl("net.ipv4.tcp_fastopen", "0x607");
    namespace.filter_input(DROP_ACKS_TO_SERVER);
    let tracer = Tracer::connections(&namespace, mode);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let to = sockets::address("127.0.0.1:5000");
    let client = namespace.run("client", || {
        let socket = sockets::tcp(to);
        assert_eq!(socket.send_to_with_flags(b"early", &to.into(), libc::MSG_FASTOPEN).unwrap(), 5);
        socket
    });
    namespace.run("server", || match end {
        EarlyEnd::CloseUnread => drop(sockets::accept(&listener)),
        EarlyEnd::CloseLingering => sockets::reset_on_close(&sockets::accept(&listener)),
        EarlyEnd::Disconnect => sockets::disconnect(&sockets::accept(&listener)),
        EarlyEnd::CloseListener => drop(listener),
    });
    assert_eq!(sockets::wait_for_error(&client), libc::ECONNRESET);
    let (client, server) = tracer.finish_both();
    assert_close(&client, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_states(&server, &["syn_received"]);
    assert_close(&server, reason, Some("local"), None);
}
