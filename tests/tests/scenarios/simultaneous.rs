//! Simultaneous open and close: segments that cross on the network.

use std::time::{Duration, Instant};

use rstest::rstest;
use tcptrace_tests::{
    Mode, Tracer, sockets,
    tun::{CLIENT, Direction, Relay, SERVER, Segment, SegmentKind, Verdict},
    wait,
};

use crate::support::{assert_close, assert_near, assert_states};

const TO_CLIENT: Direction = Direction::ToClient;
const TO_SERVER: Direction = Direction::ToServer;

/// Both sides connect to each other. Neither receives the peer's SYN before it has sent its own.
#[rstest]
fn simultaneous_open_is_reported_on_both_sides(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let answer_delay = Duration::from_millis(150);
    let relay = Relay::new(move |segment: &Segment| match segment.kind {
        SegmentKind::Syn => Verdict::Hold,
        SegmentKind::SynAck | SegmentKind::Ack => Verdict::Delay(answer_delay),
        _ => Verdict::Pass,
    });
    let addresses =
        [sockets::address(&format!("{CLIENT}:5001")), sockets::address(&format!("{SERVER}:5002"))];
    let sides = [(&relay.client, addresses[0], addresses[1]), (&relay.server, addresses[1], addresses[0])];
    let tracers = sides.map(|(namespace, ..)| Tracer::connections(namespace, mode));
    let connecting = sides.map(|(namespace, own, peer)| {
        namespace.run("both", || {
            let socket = sockets::tcp(own);
            socket.set_reuse_address(true).unwrap();
            socket.bind(&own.into()).unwrap();
            let start = Instant::now();
            sockets::begin_connecting(&socket, peer);
            (socket, start)
        })
    });
    for direction in [TO_CLIENT, TO_SERVER] {
        wait::until("the SYN", || relay.segment(direction, SegmentKind::Syn, 0));
    }
    relay.release();
    for (namespace, ..) in sides {
        wait::until("the connection", || (namespace.sockets_in(sockets::ESTABLISHED) == 1).then_some(()));
    }
    let [(first, first_start), (second, second_start)] = connecting;
    sockets::send(&first, b"x");
    sockets::receive(&second, 1);
    sockets::reset_on_close(&first);
    drop(first);
    assert_eq!(sockets::wait_for_error(&second), libc::ECONNRESET);

    let [clients, servers] = tracers.map(|tracer| <[_; 1]>::try_from(tracer.finish(1)).unwrap());
    for (row, start, direction) in
        [(&clients[0], first_start, TO_CLIENT), (&servers[0], second_start, TO_SERVER)]
    {
        assert_eq!(row.role, "simultaneous", "{row:#?}");
        assert_states(row, &["syn_sent", "syn_received", "established"]);
        assert_near(
            "syn_sent",
            row.time_in("syn_sent"),
            relay.passed(direction, SegmentKind::Syn, 0) - start,
        );
        // Since 6.12 the crossing SYN-ACK completes the handshake. Older kernels answer it, and the answer to
        // the side's own SYN-ACK completes the handshake.
        let [crossing, answered] = [SegmentKind::SynAck, SegmentKind::Ack].map(|kind| {
            relay.segment(direction, kind, 0).and_then(|segment| segment.passed).map(|at| at - start)
        });
        let crossing = crossing.unwrap_or_else(|| panic!("{:#?}", relay.segments()));
        let handshake = row.handshake();
        let end = answered.filter(|at| handshake > (crossing + *at) / 2).unwrap_or(crossing);
        assert_near("handshake", handshake, end);
        let halves = row.time_in("syn_sent") + row.time_in("syn_received");
        assert!(handshake.abs_diff(halves) <= Duration::from_micros(1), "{row:#?}");
        assert_eq!(
            (row.handshake_source.as_deref(), row.handshake_caveat.as_deref()),
            (Some("observed"), None)
        );
        assert_eq!(row.syn_retransmits, Some(0));
    }
    assert_eq!((clients[0].ports(), servers[0].ports()), ((5001, 5002), (5002, 5001)));
}

/// The FINs cross: neither side receives the peer's FIN before both have closed.
#[rstest]
fn simultaneous_close_is_reported_on_both_sides(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay =
        Relay::new(|segment| if segment.kind == SegmentKind::Fin { Verdict::Hold } else { Verdict::Pass });
    let (clients, servers) =
        (Tracer::connections(&relay.client, mode), Tracer::connections(&relay.server, mode));
    let to = sockets::address(&format!("{SERVER}:5000"));
    let listener = relay.server.run("server", || sockets::listen(&to.to_string()));
    let client = relay.client.run("client", || sockets::connect(to));
    let server = sockets::accept(&listener);
    drop(client);
    drop(server);
    for direction in [TO_CLIENT, TO_SERVER] {
        wait::until("the FIN", || relay.segment(direction, SegmentKind::Fin, 0));
    }
    relay.release();

    let [client] = &clients.finish(1)[..] else { unreachable!() };
    let [server] = &servers.finish(1)[..] else { unreachable!() };
    assert_states(client, &["syn_sent", "established", "fin_wait_1", "closing", "time_wait"]);
    assert_states(server, &["syn_received", "established", "fin_wait_1", "closing", "time_wait"]);
    assert_close(client, "closed", Some("both"), None);
    assert_close(server, "closed", Some("both"), None);
}
