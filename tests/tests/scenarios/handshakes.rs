//! Compares handshake times with those that a relay imposes and measures.
//!
//! The relay's write of a segment returns when the receiver's kernel has processed it. The time of the write
//! is therefore the time of reception, even on a busy host.

use std::time::{Duration, Instant};

use rstest::rstest;
use socket2::Socket;
use tcptrace_tests::{
    Connection, Mode, Tracer, sockets, speed,
    tun::{Direction, Relay, SERVER, Segment, SegmentKind, Verdict},
    wait,
};

use crate::support::{assert_close, assert_near, assert_states, assert_time};

const TO_CLIENT: Direction = Direction::ToClient;
const TO_SERVER: Direction = Direction::ToServer;

/// Returns whether this is the `index`th segment of its type in a direction.
fn matches(segment: &Segment, direction: Direction, kind: SegmentKind, index: usize) -> bool {
    (segment.direction, segment.kind, segment.index) == (direction, kind, index)
}

fn listen(relay: &Relay) -> Socket {
    relay.server.run("server", || sockets::listen(&format!("{SERVER}:5000")))
}

/// Connects. Returns the socket and the time before the connect.
fn connect(relay: &Relay) -> (Socket, Instant) {
    relay.client.run("client", || {
        let to = sockets::address(&format!("{SERVER}:5000"));
        let socket = sockets::tcp(to);
        let start = Instant::now();
        socket.connect(&to.into()).unwrap();
        (socket, start)
    })
}

/// Resets a connection, which closes both sockets at once.
fn reset(client: Socket, server: &Socket) {
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(server);
}

/// Traces one connection through the relay and returns the server's row.
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
    move |segment| {
        if matches(segment, TO_SERVER, SegmentKind::Ack, 0) { Verdict::Delay(delay) } else { Verdict::Pass }
    }
}

#[rstest]
fn server_handshake_matches_the_relay(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(5, 80, 223)] delay_ms: u64,
) {
    let delay = Duration::from_millis(delay_ms);
    let relay = Relay::new(delay_ack(delay));
    let row = server_row(&relay, mode, |_| {});
    let measured =
        relay.passed(TO_SERVER, SegmentKind::Ack, 0) - relay.passed(TO_SERVER, SegmentKind::Syn, 0);
    assert!(measured >= delay);
    assert_near("handshake", row.handshake(), measured);
    assert_near("syn_received", row.time_in("syn_received"), measured);
    assert_eq!(row.handshake_source.as_deref(), Some("measured"));
    assert_eq!((row.handshake_caveat.as_deref(), row.syn_retransmits), (None, Some(0)));
    assert_near("rtt", Duration::from_micros(row.handshake_rtt_us.unwrap().into()), measured);
    assert_states(&row, &["syn_received", "established"]);
}

/// The client answers a retransmitted SYN-ACK, half a round trip later. The time from the first SYN-ACK
/// includes the retransmission timeout, which no sample of the kernel includes.
#[rstest]
fn lost_syn_ack_adds_a_caveat(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let delay = Duration::from_millis(30);
    let relay = Relay::new(move |segment| match segment.kind {
        SegmentKind::SynAck if segment.index == 0 => Verdict::Drop,
        SegmentKind::Ack if segment.direction == TO_SERVER => Verdict::Delay(delay),
        _ => Verdict::Pass,
    });
    let row = server_row(&relay, mode, |_| {});
    let measured =
        relay.passed(TO_SERVER, SegmentKind::Ack, 0) - relay.passed(TO_SERVER, SegmentKind::Syn, 0);
    assert!(row.syn_retransmits.is_some_and(|count| count >= 1), "{row:#?}");
    assert_eq!(row.syn_lost, Some(true));
    if mode == Mode::Btf {
        assert_eq!(row.handshake_caveat.as_deref(), Some("syn_ack_retransmitted"));
        assert_eq!(row.handshake_source.as_deref(), Some("observed"));
        assert_near("handshake", row.handshake(), measured);
    } else {
        // Without the hook only the number of retransmits is known: one retransmit means one second, more are
        // ambiguous.
        assert_eq!(row.handshake_caveat.as_deref(), Some("retransmit_schedule"));
        match row.handshake_us {
            Some(_) => {
                assert_eq!(row.syn_retransmits, Some(1));
                // The model has the kernel's timeout of 1 s. On a busy host the timer fires later, never earlier.
                let most = measured + speed::tolerance(measured);
                assert_time("handshake", row.handshake(), Duration::from_secs(1) + delay..=most);
            }
            None => assert!(row.syn_retransmits > Some(1), "{row:#?}"),
        }
    }
}

/// A round trip above the retransmission timeout: each side retransmits, and the answer to its first segment arrives.
/// Nothing was lost, which only a lost answer could also explain.
#[rstest]
fn a_round_trip_above_the_timeout_is_not_called_a_loss(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let delay = Duration::from_millis(1_300);
    let relay = Relay::new(move |segment| match segment.kind {
        SegmentKind::SynAck => Verdict::Delay(delay),
        _ => Verdict::Pass,
    });
    let tracers = [&relay.server, &relay.client].map(|namespace| Tracer::connections(namespace, mode));
    let listener = listen(&relay);
    let (client, _) = connect(&relay);
    let server = sockets::accept(&listener);
    reset(client, &server);
    for tracer in tracers {
        let [row] = <[_; 1]>::try_from(tracer.finish(1)).unwrap();
        assert!(row.syn_retransmits >= Some(1), "{row:#?}");
        assert_eq!((row.syn_lost, row.handshake_rtt_us), (None, None), "{row:#?}");
    }
}

/// The server retransmits its SYN-ACK because the final ACK was lost. The client's next ACK still echoes the
/// timestamp of the first SYN-ACK.
#[rstest]
fn lost_final_ack_adds_a_caveat(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(|segment| {
        if matches(segment, TO_SERVER, SegmentKind::Ack, 0) { Verdict::Drop } else { Verdict::Pass }
    });
    let row = server_row(&relay, mode, |_| {});
    let measured =
        relay.passed(TO_SERVER, SegmentKind::Ack, 1) - relay.passed(TO_SERVER, SegmentKind::Syn, 0);
    assert_near("handshake", row.handshake(), measured);
    assert_time("handshake", row.handshake(), Duration::from_secs(1)..);
    // Only mode btf traces the retransmit, and with it the time of the first SYN-ACK.
    let source = if mode == Mode::Btf { "observed" } else { "measured" };
    assert_eq!(row.handshake_source.as_deref(), Some(source));
    assert_eq!(row.handshake_caveat.as_deref(), Some("syn_ack_retransmitted"));
    assert_eq!((row.handshake_rtt_us, row.syn_retransmits, row.syn_lost), (None, Some(1), None));
}

/// Checks the connect time including lost SYNs, and the network round trip alone.
#[rstest]
fn client_handshake_matches_the_relay(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values(0, 1, 2, 3)] lost: usize,
) {
    let delay = Duration::from_millis(60);
    let relay = Relay::new(move |segment| match segment.kind {
        SegmentKind::Syn if segment.index < lost => Verdict::Drop,
        SegmentKind::SynAck => Verdict::Delay(delay),
        _ => Verdict::Pass,
    });
    // The timeout doubles from the first retransmit on: 1, 2, 4 s.
    relay.client.sysctl_if_there("net.ipv4.tcp_syn_linear_timeouts", "0");
    let tracer = Tracer::connections(&relay.client, mode);
    let listener = listen(&relay);
    let (client, start) = connect(&relay);
    reset(client, &sockets::accept(&listener));
    let [row] = &tracer.finish(1)[..] else { unreachable!() };

    let answered = relay.passed(TO_CLIENT, SegmentKind::SynAck, 0);
    assert_near("handshake", row.handshake(), answered - start);
    let first = relay.segment(TO_SERVER, SegmentKind::Syn, 0).unwrap();
    assert_time("handshake", row.handshake(), answered - first.arrived..);
    assert_time("handshake", row.handshake(), Duration::from_secs((1 << lost) - 1) + delay..);
    assert_eq!(row.handshake_source.as_deref(), Some("observed"));
    assert_eq!(row.syn_retransmits, Some(u8::try_from(lost).unwrap()));
    assert_eq!(row.syn_lost, Some(lost > 0));
    assert_states(row, &["syn_sent", "established"]);
    // The relay receives a SYN slightly after it was sent; the busier the host, the later.
    let least = answered - relay.segment(TO_SERVER, SegmentKind::Syn, lost).unwrap().arrived;
    let most = if lost == 0 { answered - start } else { least + delay };
    let slack = speed::slack(Duration::from_millis(2));
    match row.handshake_rtt_us {
        Some(rtt_us) => {
            let rtt = Duration::from_micros(rtt_us.into());
            assert_time("rtt", rtt, least.saturating_sub(slack)..=most + slack);
        }
        // The kernel has no sample if it cannot determine which SYN was answered.
        None => assert_ne!(lost, 0, "{row:#?}"),
    }
}

/// The client is established; the server has received only its SYN.
#[rstest]
fn incomplete_handshake_has_no_server_row(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(|segment| match (segment.direction, segment.kind) {
        (Direction::ToServer, SegmentKind::Syn) | (Direction::ToClient, _) => Verdict::Pass,
        _ => Verdict::Drop,
    });
    let servers = Tracer::connections(&relay.server, mode);
    let clients = Tracer::connections(&relay.client, mode);
    let _listener = listen(&relay);
    let (client, _) = connect(&relay);
    wait::until("the server's second SYN-ACK", || relay.segment(TO_CLIENT, SegmentKind::SynAck, 1));
    sockets::reset_on_close(&client);
    drop(client);
    let [row] = &clients.finish(1)[..] else { unreachable!() };
    assert_close(row, "aborted", Some("local"), None);
    assert_time("established", row.time_in("established"), Duration::from_millis(900)..);
    assert_eq!(servers.interrupt().text(), "");
}

/// The timestamp of a SYN cookie carries options in its low bits, so it is coarse.
#[rstest]
fn syn_cookie_adds_a_caveat(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(delay_ack(Duration::from_millis(100)));
    relay.server.sysctl("net.ipv4.tcp_syncookies", "2");
    let row = server_row(&relay, mode, |_| {});
    let measured =
        relay.passed(TO_SERVER, SegmentKind::Ack, 0) - relay.passed(TO_SERVER, SegmentKind::Syn, 0);
    assert_eq!(row.handshake_caveat.as_deref(), Some("syn_cookie"), "{row:#?}");
    let slack = speed::slack(Duration::from_millis(3));
    assert_time(
        "handshake",
        row.handshake(),
        measured.saturating_sub(slack)..=measured + Duration::from_millis(64) + slack,
    );
}

#[rstest]
fn syn_cookie_without_timestamps_has_no_handshake_time(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(delay_ack(Duration::from_millis(100)));
    relay.server.sysctl("net.ipv4.tcp_syncookies", "2");
    relay.server.sysctl("net.ipv4.tcp_timestamps", "0");
    let row = server_row(&relay, mode, |_| {});
    assert_eq!((row.handshake_us, row.handshake_rtt_us), (None, None), "{row:#?}");
    assert_eq!((row.states[0].state.as_str(), row.states[0].duration_us), ("syn_received", None));
}

/// The kernel's sample lasts until the first data.
#[rstest]
fn deferred_accept_adds_a_caveat(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
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
    let measured =
        relay.passed(TO_SERVER, SegmentKind::Data, 0) - relay.passed(TO_SERVER, SegmentKind::Syn, 0);
    assert_near("handshake", row.handshake(), measured);
    assert_time("handshake", row.handshake(), silent..);
    assert_eq!(row.handshake_caveat.as_deref(), Some("first_data"));
}

/// With Fast Open the server's socket exists from the SYN on, and its `SYN_RECV` is observed.
#[rstest]
fn fast_open_server_stays_in_syn_received(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(delay_ack(Duration::from_millis(80)));
    // Enables client and server, without a cookie, on every listener.
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
    let acknowledged = wait::until("the final ACK", || relay.segment(TO_SERVER, SegmentKind::Ack, 0)?.passed);
    reset(client, &server);
    let [row] = &tracer.finish(1)[..] else { unreachable!() };
    let measured = acknowledged - relay.passed(TO_SERVER, SegmentKind::Syn, 0);
    assert_states(row, &["syn_received", "established"]);
    assert_near("syn_received", row.time_in("syn_received"), measured);
    assert_near("handshake", row.handshake(), measured);
    assert_eq!(row.handshake_caveat, None);
}

/// The accept queue is full when the final ACK arrives. The client is established and the server is not: it
/// retransmits its SYN-ACK until the application accepts.
#[rstest]
fn full_accept_queue_prolongs_the_handshake(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    /// The queue holds one more than the backlog.
    const BACKLOG: usize = 2;
    // Holds the ACK of the late client, whose SYN arrived while the queue had room, until the queue is full.
    let relay = Relay::new(|segment| {
        if matches(segment, TO_SERVER, SegmentKind::Ack, BACKLOG) { Verdict::Hold } else { Verdict::Pass }
    });
    let tracer = Tracer::connections(&relay.server, mode);
    let on = format!("{SERVER}:5000");
    let listener =
        relay.server.run("server", || sockets::listen_with(&on, i32::try_from(BACKLOG).unwrap(), |_| {}));
    let early: Vec<_> = (0..BACKLOG).map(|_| connect(&relay).0).collect();
    let (late, _) = connect(&relay);
    let last = connect(&relay).0;
    let established = |count| (relay.server.sockets_in(sockets::ESTABLISHED) == count).then_some(());
    wait::until("a full accept queue", || established(BACKLOG + 1));
    relay.release();
    // The ACK of the retransmitted SYN-ACK comes after one ACK for each connection; it finds the queue full.
    let connections = BACKLOG + 2;
    wait::until("the answer", || relay.segment(TO_SERVER, SegmentKind::Ack, connections)?.passed);
    assert_eq!(relay.server.sockets_in(sockets::ESTABLISHED), BACKLOG + 1);
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
    let answer = relay.passed(TO_SERVER, SegmentKind::Ack, connections + 1);
    let measured = answer - relay.passed(TO_SERVER, SegmentKind::Syn, BACKLOG);
    assert_time("relay", measured, Duration::from_secs(3)..);
    assert_eq!(row.syn_retransmits, Some(2), "{row:#?}");
    assert_eq!(row.handshake_caveat.as_deref(), Some("syn_ack_retransmitted"), "{row:#?}");
    assert_near("handshake", row.handshake(), measured);
    assert_eq!((row.handshake_rtt_us, row.accept_queue_limit), (None, Some(2)), "{row:#?}");
    let others = rows.iter().filter(|row| row.remote_port != Some(late_port));
    assert!(others.clone().all(|row| row.syn_retransmits == Some(0)), "{rows:#?}");
    assert_eq!(others.count(), BACKLOG + 1);
}
