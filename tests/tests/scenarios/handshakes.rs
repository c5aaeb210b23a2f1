//! Handshake times, against a relay that makes them and measures them itself.
//!
//! The relay's write of a segment returns when the receiver's kernel has processed it, so the time of the
//! write is the time of the reception, however busy the host.

use std::time::{Duration, Instant};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Connection, Mode, Tracer, sockets, speed,
    tun::{Direction, Kind, Relay, SERVER, Segment, Verdict},
    wait,
};

use crate::support::{assert_ending, assert_near, assert_states, assert_time};

const TO_CLIENT: Direction = Direction::ToClient;
const TO_SERVER: Direction = Direction::ToServer;

/// Whether it is the `index`th segment of its kind.
fn is(segment: &Segment, direction: Direction, kind: Kind, index: usize) -> bool {
    (segment.direction, segment.kind, segment.index) == (direction, kind, index)
}

fn listen(relay: &Relay) -> Socket {
    relay.server.run("server", || sockets::listen(&format!("{SERVER}:5000")))
}

/// Connects; gives the socket and the moment before.
fn connect(relay: &Relay) -> (Socket, Instant) {
    relay.client.run("client", || {
        let to = sockets::address(&format!("{SERVER}:5000"));
        let socket = sockets::tcp(to);
        let start = Instant::now();
        socket.connect(&to.into()).unwrap();
        (socket, start)
    })
}

/// Resets a connection so that both ends are done at once.
fn reset(client: Socket, server: &Socket) {
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(server);
}

/// The server's row of a connection whose segments follow this rule.
fn server_row(relay: &Relay, mode: Mode, prepare: impl FnOnce(&Socket)) -> Connection {
    let tracer = Tracer::connections(&relay.server, mode);
    let listener = listen(relay);
    prepare(&listener);
    let (client, _) = connect(relay);
    let server = sockets::accept(&listener);
    reset(client, &server);
    let [row] = <[_; 1]>::try_from(tracer.finish(1)).unwrap();
    assert_eq!((row.role.as_str(), row.local_port), ("server", Some(5000)));
    row
}

fn delay_ack(delay: Duration) -> impl Fn(&Segment) -> Verdict + Send + 'static {
    move |segment| if is(segment, TO_SERVER, Kind::Ack, 0) { Verdict::Delay(delay) } else { Verdict::Pass }
}

#[rstest]
fn a_servers_handshake_is_the_true_one(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(5, 80, 223)] delay_ms: u64,
) {
    let delay = Duration::from_millis(delay_ms);
    let relay = Relay::new(delay_ack(delay));
    let row = server_row(&relay, mode, |_| {});
    let measured = relay.passed(TO_SERVER, Kind::Ack, 0) - relay.passed(TO_SERVER, Kind::Syn, 0);
    assert!(measured >= delay);
    assert_near("handshake", row.handshake(), measured);
    assert_near("syn_received", row.time_in("syn_received"), measured);
    assert_eq!(row.handshake_source.as_deref(), Some("measured"));
    assert_eq!((row.handshake_caveat.as_deref(), row.syn_retransmits), (None, Some(0)));
    assert_near("rtt", Duration::from_micros(row.handshake_rtt_us.unwrap().into()), measured);
    assert_states(&row, &["syn_received", "established"]);
}

/// The client answers a resent SYN-ACK, half a round trip after it: the time from the first one is longer
/// by the wait for the resending, which no sample of the kernel holds.
#[rstest]
fn a_lost_syn_ack_is_told(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let delay = Duration::from_millis(30);
    let relay = Relay::new(move |segment| match segment.kind {
        Kind::SynAck if segment.index == 0 => Verdict::Drop,
        Kind::Ack if segment.direction == TO_SERVER => Verdict::Delay(delay),
        _ => Verdict::Pass,
    });
    let row = server_row(&relay, mode, |_| {});
    let measured = relay.passed(TO_SERVER, Kind::Ack, 0) - relay.passed(TO_SERVER, Kind::Syn, 0);
    assert!(row.syn_retransmits.is_some_and(|count| count >= 1), "{row:#?}");
    if mode == Mode::Btf {
        assert_eq!(row.handshake_caveat.as_deref(), Some("syn_ack_retransmitted"));
        assert_eq!(row.handshake_source.as_deref(), Some("observed"));
        assert_near("handshake", row.handshake(), measured);
    } else {
        // Without the hook the count of resends is all there is: a second's wait before the only one,
        // or nothing sure.
        assert_eq!(row.handshake_caveat.as_deref(), Some("retransmit_schedule"));
        match row.handshake_us {
            Some(_) => {
                assert_eq!(row.syn_retransmits, Some(1));
                assert_near("handshake", row.handshake(), measured);
            }
            None => assert!(row.syn_retransmits > Some(1), "{row:#?}"),
        }
    }
}

/// The server resends its SYN-ACK because the final ACK was lost; the client's next answer still carries
/// the time of the first.
#[rstest]
fn a_lost_final_ack_is_told(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(
        |segment| {
            if is(segment, TO_SERVER, Kind::Ack, 0) { Verdict::Drop } else { Verdict::Pass }
        },
    );
    let row = server_row(&relay, mode, |_| {});
    let measured = relay.passed(TO_SERVER, Kind::Ack, 1) - relay.passed(TO_SERVER, Kind::Syn, 0);
    assert_near("handshake", row.handshake(), measured);
    assert_time("handshake", row.handshake(), Duration::from_secs(1)..);
    // Only mode btf sees the resend itself, and with it when the first was sent.
    let source = if mode == Mode::Btf { "observed" } else { "measured" };
    assert_eq!(row.handshake_source.as_deref(), Some(source));
    assert_eq!(row.handshake_caveat.as_deref(), Some("syn_ack_retransmitted"));
    assert_eq!((row.handshake_rtt_us, row.syn_retransmits), (None, Some(1)));
}

/// The connect time with lost SYNs, which the application waited for, and the network's part alone.
#[rstest]
fn a_clients_handshake_is_the_true_one(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(0, 1, 2, 3)] lost: usize,
) {
    let delay = Duration::from_millis(60);
    let relay = Relay::new(move |segment| match segment.kind {
        Kind::Syn if segment.index < lost => Verdict::Drop,
        Kind::SynAck => Verdict::Delay(delay),
        _ => Verdict::Pass,
    });
    // The wait doubles from the first resend on: 1, 2, 4 s.
    relay.client.sysctl_if_there("net.ipv4.tcp_syn_linear_timeouts", "0");
    let tracer = Tracer::connections(&relay.client, mode);
    let listener = listen(&relay);
    let (client, start) = connect(&relay);
    reset(client, &sockets::accept(&listener));
    let [row] = &tracer.finish(1)[..] else { unreachable!() };

    let answered = relay.passed(TO_CLIENT, Kind::SynAck, 0);
    assert_near("handshake", row.handshake(), answered - start);
    let first = relay.segment(TO_SERVER, Kind::Syn, 0).unwrap();
    assert_time("handshake", row.handshake(), answered - first.arrived..);
    assert_time("handshake", row.handshake(), Duration::from_secs((1 << lost) - 1) + delay..);
    assert_eq!(row.handshake_source.as_deref(), Some("observed"));
    assert_eq!(row.syn_retransmits, Some(u8::try_from(lost).unwrap()));
    assert_states(row, &["syn_sent", "established"]);
    // The relay gets a SYN a little after it was sent: later, the busier the host is.
    let least = answered - relay.segment(TO_SERVER, Kind::Syn, lost).unwrap().arrived;
    let most = if lost == 0 { answered - start } else { least + delay };
    let slack = speed::slack(Duration::from_millis(2));
    match row.handshake_rtt_us {
        Some(shown) => {
            let shown = Duration::from_micros(shown.into());
            assert_time("rtt", shown, least.saturating_sub(slack)..=most + slack);
        }
        // The kernel has no sample when it cannot tell which SYN was answered.
        None => assert_ne!(lost, 0, "{row:#?}"),
    }
}

/// The client believes in a connection of which the server has heard one SYN.
#[rstest]
fn a_handshake_that_never_completes_has_no_server(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(|segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, Kind::Syn) | (Direction::ToClient, _) => Verdict::Pass,
        _ => Verdict::Drop,
    });
    let servers = Tracer::connections(&relay.server, mode);
    let clients = Tracer::connections(&relay.client, mode);
    let _listener = listen(&relay);
    let (client, _) = connect(&relay);
    wait::until("the server's second SYN-ACK", || relay.segment(TO_CLIENT, Kind::SynAck, 1));
    sockets::reset_on_close(&client);
    drop(client);
    let [row] = &clients.finish(1)[..] else { unreachable!() };
    assert_ending(row, "aborted", Some("local"), None);
    assert_time("established", row.time_in("established"), Duration::from_millis(900)..);
    assert_eq!(servers.interrupt().text(), "");
}

/// A cookie's time has a coarse grain and carries options in its low bits.
#[rstest]
fn a_syn_cookie_is_told(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(delay_ack(Duration::from_millis(100)));
    relay.server.sysctl("net.ipv4.tcp_syncookies", "2");
    let row = server_row(&relay, mode, |_| {});
    let measured = relay.passed(TO_SERVER, Kind::Ack, 0) - relay.passed(TO_SERVER, Kind::Syn, 0);
    assert_eq!(row.handshake_caveat.as_deref(), Some("syn_cookie"), "{row:#?}");
    let slack = speed::slack(Duration::from_millis(3));
    assert_time(
        "handshake",
        row.handshake(),
        measured.saturating_sub(slack)..=measured + Duration::from_millis(64) + slack,
    );
}

#[rstest]
fn a_syn_cookie_without_timestamps_leaves_it_unknown(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(delay_ack(Duration::from_millis(100)));
    relay.server.sysctl("net.ipv4.tcp_syncookies", "2");
    relay.server.sysctl("net.ipv4.tcp_timestamps", "0");
    let row = server_row(&relay, mode, |_| {});
    assert_eq!((row.handshake_us, row.handshake_rtt_us), (None, None), "{row:#?}");
    assert_eq!((row.states[0].state.as_str(), row.states[0].duration_us), ("syn_received", None));
}

/// The kernel's sample goes on until the first data.
#[rstest]
fn deferred_accept_is_told(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(|_| Verdict::Pass);
    let tracer = Tracer::connections(&relay.server, mode);
    let listener = listen(&relay);
    sockets::set_tcp_option(&listener, libc::TCP_DEFER_ACCEPT, 5);
    let (client, _) = connect(&relay);
    let silent = wait::pause(Duration::from_millis(60));
    sockets::send(&client, b"hello");
    let server = sockets::accept(&listener);
    sockets::receive(&server, 5);
    reset(client, &server);
    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    let measured = relay.passed(TO_SERVER, Kind::Data, 0) - relay.passed(TO_SERVER, Kind::Syn, 0);
    assert_near("handshake", row.handshake(), measured);
    assert_time("handshake", row.handshake(), silent..);
    assert_eq!(row.handshake_caveat.as_deref(), Some("first_data"));
}

/// With Fast Open the server's socket is there from the SYN on: its `SYN_RECV` is a real one.
#[rstest]
fn fast_open_waits_in_syn_received(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(delay_ack(Duration::from_millis(80)));
    // Client and server, without a cookie, on every listener.
    relay.client.sysctl("net.ipv4.tcp_fastopen", "0x607");
    relay.server.sysctl("net.ipv4.tcp_fastopen", "0x607");
    let tracer = Tracer::connections(&relay.server, mode);
    let listener = listen(&relay);
    let to = sockets::address(&format!("{SERVER}:5000"));
    let client = relay.client.run("client", || {
        let socket = sockets::tcp(to);
        assert_eq!(socket.send_to_with_flags(b"early", &to.into(), libc::MSG_FASTOPEN).unwrap(), 5);
        socket
    });
    let server = sockets::accept(&listener);
    sockets::receive(&server, 5);
    let acknowledged = wait::until("the final ACK", || relay.segment(TO_SERVER, Kind::Ack, 0)?.passed);
    reset(client, &server);
    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    let measured = acknowledged - relay.passed(TO_SERVER, Kind::Syn, 0);
    assert_states(row, &["syn_received", "established"]);
    assert_near("syn_received", row.time_in("syn_received"), measured);
    assert_near("handshake", row.handshake(), measured);
    assert_eq!(row.handshake_caveat, None);
}

/// The accept queue is full when the final ACK comes: the client is connected, the server is not, and sends its
/// SYN-ACK again until the application has made room.
#[rstest]
fn a_full_accept_queue_prolongs_the_handshake(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    /// With this backlog the queue takes one more.
    const BACKLOG: usize = 2;
    // The last to be sent a SYN-ACK while there is room is not the last to acknowledge it.
    let relay =
        Relay::new(
            |segment| {
                if is(segment, TO_SERVER, Kind::Ack, BACKLOG) { Verdict::Hold } else { Verdict::Pass }
            },
        );
    let tracer = Tracer::connections(&relay.server, mode);
    let on = format!("{SERVER}:5000");
    let listener =
        relay.server.run("server", || sockets::listen_with(&on, i32::try_from(BACKLOG).unwrap(), |_| {}));
    let early: Vec<_> = (0..BACKLOG).map(|_| connect(&relay).0).collect();
    let (late, _) = connect(&relay);
    let last = connect(&relay).0;
    let established = |count| (relay.server.sockets_in(1 << 1) == count).then_some(());
    wait::until("a full accept queue", || established(BACKLOG + 1));
    relay.release();
    // One more than the connections: the SYN-ACK that was sent again, and its answer, which finds no place.
    let connections = BACKLOG + 2;
    wait::until("the answer", || relay.segment(TO_SERVER, Kind::Ack, connections)?.passed);
    assert_eq!(relay.server.sockets_in(1 << 1), BACKLOG + 1);
    let mut accepted = vec![relay.server.run("server", || sockets::accept(&listener))];
    wait::until("the late connection", || established(BACKLOG + 2));
    accepted.extend((1..connections).map(|_| relay.server.run("server", || sockets::accept(&listener))));
    let late_port = sockets::port(&late);
    for client in early.into_iter().chain([late, last]) {
        sockets::reset_on_close(&client);
    }
    for server in &accepted {
        assert_eq!(sockets::wait_for_error(server), libc::ECONNRESET);
    }

    let rows = tracer.finish(connections);
    let row = rows.iter().find(|row| row.remote_port == Some(late_port)).unwrap();
    let answer = relay.passed(TO_SERVER, Kind::Ack, connections + 1);
    let measured = answer - relay.passed(TO_SERVER, Kind::Syn, BACKLOG);
    assert_time("relay", measured, Duration::from_secs(3)..);
    assert_eq!(row.syn_retransmits, Some(2), "{row:#?}");
    assert_eq!(row.handshake_caveat.as_deref(), Some("syn_ack_retransmitted"), "{row:#?}");
    assert_near("handshake", row.handshake(), measured);
    assert_eq!((row.handshake_rtt_us, row.accept_queue_limit), (None, Some(2)), "{row:#?}");
    let others = rows.iter().filter(|row| row.remote_port != Some(late_port));
    assert!(others.clone().all(|row| row.syn_retransmits == Some(0)), "{rows:#?}");
    assert_eq!(others.count(), BACKLOG + 1);
}
