//! What happens to a connection after its application has closed it, and closes that send no segment.

use std::{io::Write as _, net::Shutdown};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Mode, Namespace, Tracer,
    sockets::{self, Pair},
    wait,
};

use crate::support::{assert_close, assert_states};

/// Holds back the client's FIN, as half a round trip does.
const DROP_FIN: &str = "tcp dport 5000 tcp flags & fin == fin drop";
/// Holds back the server's bare acknowledgements, as a delayed ACK does.
const DROP_ACKS: &str = "tcp sport 5000 tcp flags & (syn | fin | rst | psh) == 0 drop";

/// `TCP_REPAIR`, `TCP_REPAIR_QUEUE` and `TCP_QUEUE_SEQ`, `include/uapi/linux/tcp.h`.
const REPAIR: i32 = 19;
const REPAIR_QUEUE: i32 = 20;
const QUEUE_SEQUENCE: i32 = 21;

#[rstest]
fn data_after_close_is_reported_at_the_end_that_closed(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    sockets::send(&server, b"read");
    sockets::receive(&client, 4);
    namespace.filter_input(DROP_FIN);
    namespace.run("client", || drop(client));
    sockets::send(&server, b"late");
    assert_eq!(sockets::wait_for_error(&server), libc::ECONNRESET);
    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established", "fin_wait_1"]);
    assert_close(&client, "unread_data", Some("local"), Some("ECONNRESET"));
    assert_eq!(client.bytes_received, Some(4));
    assert_close(&server, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
}

/// The application has shut down both directions and keeps its descriptor.
#[rstest]
fn data_after_shutdown_is_reported_at_the_end_that_shut_down(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    client.shutdown(Shutdown::Both).unwrap();
    sockets::wait_for_end(&server);
    sockets::send(&server, b"late");
    let (client, server) = tracer.finish_both();
    assert_states(&client, &["syn_sent", "established", "fin_wait_1", "fin_wait_2"]);
    assert_close(&client, "unread_data", Some("local"), Some("ECONNRESET"));
    assert_close(&server, "reset_by_peer", Some("remote"), Some("EPIPE"));
}

/// The client has received data since its `shutdown(SHUT_WR)`, and the peer resets.
#[rstest]
fn reset_after_data_of_a_half_close_is_the_peers(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    client.shutdown(Shutdown::Write).unwrap();
    sockets::wait_for_end(&server);
    sockets::send(&server, b"answer");
    sockets::receive(&client, 6);
    sockets::reset_on_close(&server);
    namespace.run("server", || drop(server));
    assert_eq!(sockets::wait_for_error(&client), libc::ECONNRESET);
    let (client, server) = tracer.finish_both();
    assert_close(&client, "reset_by_peer", Some("remote"), Some("ECONNRESET"));
    assert_close(&server, "aborted", Some("local"), None);
}

/// The kernel enters FIN_WAIT2, finds the data and resets at once. Nothing of the connection is left.
#[rstest]
fn data_with_the_ack_of_the_fin_leaves_no_fin_wait_2(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--role", "client"]);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:5000"));
    let connect = || {
        namespace.run("client", || {
            let client = sockets::tcp(sockets::local(&listener));
            client.set_reuse_address(true).unwrap();
            client.bind(&sockets::address("127.0.0.1:40005").into()).unwrap();
            client.connect(&sockets::local(&listener).into()).unwrap();
            client
        })
    };
    let client = connect();
    let server = sockets::accept(&listener);
    namespace.filter_input(DROP_ACKS);
    sockets::send(&client, b"request");
    namespace.run("client", || drop(client));
    sockets::wait_for_end(&server);
    sockets::send(&server, b"answer");
    tracer.wait_for_lines(1);
    drop(server);
    namespace.filter_input("");
    let again = connect();
    sockets::reset_on_close(&again);
    namespace.run("client", || drop(again));
    let [first, second] = &tracer.finish(2)[..] else { unreachable!() };
    assert_close(first, "unread_data", Some("local"), None);
    assert!(first.states.iter().all(|span| span.source == "observed"), "{first:#?}");
    assert!(!second.time_wait_reused, "{second:#?}");
}

#[rstest]
fn negative_linger2_leaves_no_fin_wait_2(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    sockets::set_tcp_option(&client, libc::TCP_LINGER2, -1);
    namespace.run("client", || drop(client));
    // The server's end learns of it by the reset that follows the ACK of the FIN.
    wait::until("the reset", || (&server).write(b"late").is_err().then_some(()));
    drop(server);
    let (client, server) = tracer.finish_both();
    assert_close(&client, "aborted", Some("local"), None);
    assert!(client.states.iter().all(|span| span.source == "observed"), "{client:#?}");
    assert_close(&server, "reset_by_peer", Some("remote"), Some("EPIPE"));
}

fn sequences(server: &Socket) -> [i32; 2] {
    sockets::set_tcp_option(server, REPAIR, 1);
    [1, 2].map(|queue| {
        sockets::set_tcp_option(server, REPAIR_QUEUE, queue);
        sockets::tcp_option(server, QUEUE_SEQUENCE)
    })
}

/// A checkpoint removes the server's socket, and a restore creates it again. No segment is sent.
#[rstest]
fn checkpoint_and_restore_are_neither_a_failure_nor_a_handshake(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("connections", &namespace, mode, &["--local-port", "5000"]);
    let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    drop(listener);
    let (local, remote) = (sockets::local(&server), sockets::local(&client));
    let sequences = sequences(&server);
    namespace.run("criu", || drop(server));
    tracer.wait_for_lines(1);
    let restored = namespace.run("criu", || {
        let restored = sockets::tcp(local);
        restored.set_reuse_address(true).unwrap();
        sockets::set_tcp_option(&restored, REPAIR, 1);
        restored.bind(&local.into()).unwrap();
        for (queue, sequence) in [1, 2].into_iter().zip(sequences) {
            sockets::set_tcp_option(&restored, REPAIR_QUEUE, queue);
            sockets::set_tcp_option(&restored, QUEUE_SEQUENCE, sequence);
        }
        restored.connect(&remote.into()).unwrap();
        sockets::set_tcp_option(&restored, REPAIR, 0);
        restored
    });
    sockets::send(&client, b"again");
    sockets::receive(&restored, 5);
    drop(client);
    sockets::wait_for_end(&restored);
    drop(restored);
    let [dumped, restored] = &tracer.finish(2)[..] else { unreachable!() };
    assert_close(dumped, "repaired", Some("local"), None);
    assert_eq!((dumped.role.as_str(), dumped.remote_port), ("server", Some(remote.port())));
    assert_close(restored, "closed", Some("remote"), None);
    assert_eq!((restored.role.as_str(), restored.handshake_us), ("unknown", None), "{restored:#?}");
}
