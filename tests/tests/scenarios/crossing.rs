//! Segments that cross: what both sides do at once.

use std::time::{Duration, Instant};

use rstest::rstest;
use tcptrace_tests::{
    Mode, Tracer, sockets,
    tun::{CLIENT, Direction, Kind, Relay, SERVER, Segment, Verdict},
    wait,
};

use crate::support::{assert_ending, assert_near, assert_states};

const TO_CLIENT: Direction = Direction::ToClient;
const TO_SERVER: Direction = Direction::ToServer;

/// Both connect to each other, and neither gets the other's SYN before it has sent its own.
#[rstest]
fn both_connect_at_once(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let answer_delay = Duration::from_millis(150);
    let relay = Relay::new(move |segment: &Segment| match segment.kind {
        Kind::Syn => Verdict::Hold,
        Kind::SynAck | Kind::Ack => Verdict::Delay(answer_delay),
        _ => Verdict::Pass,
    });
    let ends = [sockets::address(&format!("{CLIENT}:5001")), sockets::address(&format!("{SERVER}:5002"))];
    let sides = [(&relay.client, ends[0], ends[1]), (&relay.server, ends[1], ends[0])];
    let tracers = sides.map(|(namespace, ..)| Tracer::connections(namespace, mode));
    let begun = sides.map(|(namespace, own, peer)| {
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
        wait::until("the SYN", || relay.segment(direction, Kind::Syn, 0));
    }
    relay.release();
    for (namespace, ..) in sides {
        wait::until("the connection", || (namespace.sockets_in(1 << 1) == 1).then_some(()));
    }
    let [(first, first_start), (second, second_start)] = begun;
    sockets::send(&first, b"x");
    sockets::receive(&second, 1);
    sockets::reset_on_close(&first);
    drop(first);
    assert_eq!(sockets::wait_for_error(&second), libc::ECONNRESET);

    let [clients, servers] = tracers.map(|tracer| <[_; 1]>::try_from(tracer.finish(1)).unwrap());
    for (row, start, to_it) in [(&clients[0], first_start, TO_CLIENT), (&servers[0], second_start, TO_SERVER)]
    {
        assert_eq!(row.role, "simultaneous", "{row:#?}");
        assert_states(row, &["syn_sent", "syn_received", "established"]);
        assert_near("syn_sent", row.time_in("syn_sent"), relay.passed(to_it, Kind::Syn, 0) - start);
        // From 6.12 on the crossing SYN-ACK is taken; before, it is answered, and the answer to one's own counts.
        let [taken, answered] = [Kind::SynAck, Kind::Ack].map(|kind| {
            relay.segment(to_it, kind, 0).and_then(|segment| segment.passed).map(|at| at - start)
        });
        let taken = taken.unwrap_or_else(|| panic!("{:#?}", relay.segments()));
        let handshake = row.handshake();
        let end = answered.filter(|at| handshake > (taken + *at) / 2).unwrap_or(taken);
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

/// The FINs cross: neither side gets the other's before both have closed.
#[rstest]
fn both_close_at_once(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let relay = Relay::new(|segment| if segment.kind == Kind::Fin { Verdict::Hold } else { Verdict::Pass });
    let (clients, servers) =
        (Tracer::connections(&relay.client, mode), Tracer::connections(&relay.server, mode));
    let to = sockets::address(&format!("{SERVER}:5000"));
    let listener = relay.server.run("server", || sockets::listen(&to.to_string()));
    let client = relay.client.run("client", || sockets::connect(to));
    let server = sockets::accept(&listener);
    drop(client);
    drop(server);
    for direction in [TO_CLIENT, TO_SERVER] {
        wait::until("the FIN", || relay.segment(direction, Kind::Fin, 0));
    }
    relay.release();

    let [client] = &clients.finish(1)[..] else { unreachable!() };
    let [server] = &servers.finish(1)[..] else { unreachable!() };
    assert_states(client, &["syn_sent", "established", "fin_wait_1", "closing", "time_wait"]);
    assert_states(server, &["syn_received", "established", "fin_wait_1", "closing", "time_wait"]);
    assert_ending(client, "closed", Some("both"), None);
    assert_ending(server, "closed", Some("both"), None);
}
