//! Handshake durations and their sources.

use tracer_core::{
    event::{
        AcceptQueue, Event, Micros, Nanos, SocketFlags, SocketId, SynAckRetransmit, TcpInfo,
        TcpState::{CloseWait, Closed, Established, LastAck, SynReceived, SynSent},
    },
    lifecycle::{
        DurationSource::{Measured, Modelled, Observed},
        HandshakeCaveat,
    },
};
use tracer_core_testing::script::{CLIENT, NETNS, SECOND, SERVER, ScriptedSocket, error, process, time};

use crate::observed::{ClosedRecord, run};

fn info(srtt: Option<u32>, retransmits: u32) -> TcpInfo {
    TcpInfo { srtt: srtt.map(Micros), retransmits, ..TcpInfo::default() }
}

/// Closes a child created at 0, established at 9 with these statistics, and reset after a second.
fn accepted(info: Option<TcpInfo>) -> ClosedRecord {
    let socket = ScriptedSocket::server(1)
        .step(0, SynReceived)
        .with(|it| {
            it.accept_queue = Some(AcceptQueue { length: 3, limit: 128 });
        })
        .step(9, Established)
        .with(|it| it.info = info)
        .step(SECOND, Closed)
        .flags(error(104));
    run(&socket.events()).only_closed().clone()
}

#[test]
fn a_server_handshake_is_the_kernels_sample() {
    let closed = accepted(Some(info(Some(223_557), 0)));
    assert_eq!(closed.handshake_parts(), (Some(223_557), Measured, None, Some(0), Some(223_557)));
    assert_eq!(closed.states[0], (SynReceived, Some(223_557), Measured));
    assert_eq!((closed.opened_us(), closed.duration_us()), (Some(9 - 223_557), Some(SECOND + 223_557 - 9)));
    assert_eq!(closed.connection.accept_queue, Some(AcceptQueue { length: 3, limit: 128 }));
}

#[test]
fn with_tcp_timestamps_the_sample_covers_the_retransmission() {
    let closed = accepted(Some(info(Some(1_007_000), 1)));
    let caveat = Some(HandshakeCaveat::SynAckRetransmitted);
    assert_eq!(closed.handshake_parts(), (Some(1_007_000), Measured, caveat, Some(1), None));
    assert_eq!(closed.states[0], (SynReceived, Some(1_007_000), Measured));
}

/// One CPU processes the ACK before another CPU counts the retransmission. The kernel then takes a sample as if there
/// had been a single SYN-ACK.
#[test]
fn an_ack_before_the_retransmission_is_counted_gives_no_round_trip_time() {
    let socket = ScriptedSocket::server(1)
        .step(SECOND + 30, SynReceived)
        .step(SECOND + 50, Established)
        .with(|it| it.info = Some(info(Some(1_000_047), 0)))
        .step(2 * SECOND, Closed)
        .flags(error(104));
    let retransmit = Event::SynAckRetransmit(SynAckRetransmit {
        time: time(SECOND),
        listener: SocketId(9),
        local: SERVER,
        remote: CLIENT,
        netns: Some(NETNS),
        attempts: 1,
        first_sent: Some(time(0)),
        accept_queue: None,
        acked: false,
        sequences: None,
    });
    let closed = run(&[vec![retransmit], socket.events()].concat()).only_closed().clone();
    let caveat = Some(HandshakeCaveat::SynAckRetransmitted);
    assert_eq!(closed.handshake_parts(), (Some(SECOND + 50), Observed, caveat, Some(1), None));
}

/// The client gave up and retried from the same port: the retransmission belongs to the dead request.
#[test]
fn a_retry_from_the_same_port_does_not_complete_the_abandoned_handshake() {
    let socket = ScriptedSocket::server(1)
        .step(3 * SECOND, SynReceived)
        .step(3 * SECOND + 20, Established)
        .with(|it| it.info = Some(info(Some(17), 0)))
        .step(4 * SECOND, Closed)
        .flags(error(104));
    let retransmit = Event::SynAckRetransmit(SynAckRetransmit {
        time: time(SECOND),
        listener: SocketId(9),
        local: SERVER,
        remote: CLIENT,
        netns: Some(NETNS),
        attempts: 1,
        first_sent: Some(time(0)),
        accept_queue: None,
        acked: false,
        sequences: None,
    });
    let record = run(&[vec![retransmit], socket.events()].concat());
    assert_eq!(record.only_closed().handshake_parts(), (Some(17), Measured, None, Some(0), Some(17)));
    assert_eq!(record.abandoned, 1);
}

#[test]
fn without_tcp_timestamps_one_retransmission_gives_a_modelled_duration() {
    let caveat = Some(HandshakeCaveat::RetransmitSchedule);
    let one = accepted(Some(info(None, 1)));
    assert_eq!(one.handshake_parts(), (Some(SECOND), Modelled, caveat, Some(1), None));
    assert_eq!(one.states[0], (SynReceived, Some(SECOND), Modelled));
    // The count includes answers to retransmitted SYNs, so it does not determine the duration.
    for count in 2..=5_u8 {
        let closed = accepted(Some(info(None, u32::from(count))));
        assert_eq!(closed.handshake_parts(), (None, Modelled, caveat, Some(count), None));
        assert_eq!((closed.states[0].0, closed.states[0].1), (SynReceived, None));
    }
}

#[test]
fn syn_cookies_have_a_caveat_or_no_duration() {
    let closed = accepted(Some(info(Some(242_000), 0)));
    let (duration, source, caveat, retransmits, _) = closed.handshake_parts();
    assert_eq!((duration, source, retransmits), (Some(242_000), Measured, Some(0)));
    assert_eq!(caveat, Some(HandshakeCaveat::SynCookie));

    let closed = accepted(Some(info(None, 0)));
    assert_eq!(closed.handshake().duration, None);
    // Unknown, not the microseconds that the child spends in SYN_RECV.
    assert_eq!((closed.states[0].0, closed.states[0].1), (SynReceived, None));
    assert_eq!(closed.opened_us(), Some(0));
}

/// The sample ends with the client's first data. It is a duration, but no network round trip.
#[test]
fn a_final_ack_with_data_gives_no_round_trip_time() {
    let with_data = TcpInfo { data_segments_received: 1, ..info(Some(300_123), 0) };
    let closed = accepted(Some(with_data));
    let caveat = Some(HandshakeCaveat::FirstData);
    assert_eq!(closed.handshake_parts(), (Some(300_123), Measured, caveat, Some(0), None));
}

fn retransmit(at: u64, attempts: u8, acked: bool) -> Event {
    Event::SynAckRetransmit(SynAckRetransmit {
        time: time(at),
        listener: SocketId(9),
        local: SERVER,
        remote: CLIENT,
        netns: Some(NETNS),
        attempts,
        first_sent: Some(time(0)),
        accept_queue: None,
        acked,
        sequences: None,
    })
}

/// A handshake after these retransmissions of the SYN-ACK. It lasts from 0 to `us`.
fn after_retransmits(us: u64, listener: Option<bool>, resent: &[Event], count: u32) -> ClosedRecord {
    let listener = listener.map(|defers| {
        ScriptedSocket::listener(9, 0, Some(process(2, "server")))
            .with(|it| it.defer_accept = defers)
            .events()
    });
    let socket = ScriptedSocket::server(1)
        .step(us - 20, SynReceived)
        .step(us, Established)
        .with(|it| it.info = Some(info(Some(30), count)))
        .step(us + SECOND, Closed)
        .flags(error(104));
    let events = [listener.unwrap_or_default(), resent.to_vec(), socket.events()].concat();
    run(&events).only_closed().clone()
}

/// The kernel sends the SYN-ACK again at the end of the deferral although the client's ACK has come.
#[test]
fn a_retransmission_after_the_clients_ack_lost_nothing() {
    let caveat = Some(HandshakeCaveat::FirstData);
    let end = SECOND + 30;
    let closed = after_retransmits(end, None, &[retransmit(SECOND, 1, true)], 1);
    assert_eq!(closed.handshake_parts(), (Some(end), Observed, caveat, Some(0), None));
    let resent = [retransmit(SECOND, 1, false), retransmit(3 * SECOND, 2, true)];
    let closed = after_retransmits(3 * SECOND + 30, None, &resent, 2);
    assert_eq!(closed.handshake().retransmits, Some(1), "the first SYN-ACK or its ACK was lost");
}

/// Without the hook that shows retransmissions.
#[test]
fn a_retransmission_of_a_deferring_listener_may_have_lost_nothing() {
    let caveat = Some(HandshakeCaveat::FirstData);
    let closed = after_retransmits(SECOND + 30, Some(true), &[], 1);
    assert_eq!(closed.handshake_parts(), (None, Modelled, caveat, None, None));
    let closed = after_retransmits(SECOND + 30, Some(false), &[], 1);
    assert_eq!(closed.handshake().retransmits, Some(1));
}

#[test]
fn a_deferring_listener_makes_a_handshake_uncertain() {
    let closed = after_retransmits(90, Some(true), &[], 0);
    let caveat = Some(HandshakeCaveat::FirstData);
    assert_eq!(closed.handshake_parts(), (Some(30), Measured, caveat, Some(0), None));
}

/// The segment that completed the handshake carried the FIN if no segment arrived in between.
#[test]
fn a_handshake_that_the_fin_completed_has_a_caveat() {
    let parts = |segments| {
        let socket = ScriptedSocket::accepted(1)
            .with(|it| it.info.iter_mut().for_each(|info| info.segments_received = 2))
            .step(11, CloseWait)
            .with(|it| it.unaccepted_segments = segments)
            .step(40, LastAck)
            .step(50, Closed);
        run(&socket.events()).only_closed().handshake_parts()
    };
    let caveat = Some(HandshakeCaveat::FirstData);
    assert_eq!(parts(Some(2)), (Some(523), Measured, caveat, Some(0), None));
    for segments in [Some(3), None] {
        assert_eq!(parts(segments), (Some(523), Measured, None, Some(0), Some(523)));
    }
}

/// `connect()` returned without a SYN, and the first write sent it a second later.
#[test]
fn a_deferred_syn_makes_the_sample_the_duration() {
    let connect = |retransmits| {
        let socket = ScriptedSocket::client(1)
            .step(0, SynSent)
            .by(process(1, "app"))
            .step(SECOND + 300, Established)
            .with(|it| {
                it.info = Some(info(Some(290), retransmits));
                it.flags = Some(SocketFlags { fast_open_deferred: true, ..SocketFlags::default() });
            })
            .step(2 * SECOND, Closed)
            .flags(error(104));
        run(&socket.events()).only_closed().handshake_parts()
    };
    let caveat = Some(HandshakeCaveat::FastOpenDeferred);
    assert_eq!(connect(0), (Some(290), Measured, caveat, Some(0), Some(290)));
    assert_eq!(connect(1), (None, Measured, caveat, Some(1), None));
}

#[test]
fn a_server_handshake_without_statistics_is_unknown() {
    let closed = accepted(None);
    let handshake = closed.handshake();
    assert_eq!((handshake.duration, handshake.rtt, handshake.retransmits), (None, None, None));
    assert_eq!(closed.states[0].1, None);
}

#[test]
fn a_client_handshake_includes_retransmitted_syns() {
    let socket = ScriptedSocket::client(1)
        .step(0, SynSent)
        .by(process(1, "app"))
        .step(3_000_250, Established)
        .info(info(Some(1000), 2))
        .step(4_000_000, Closed)
        .flags(error(104));
    let observed = run(&socket.events());
    let closed = observed.only_closed();
    let handshake = closed.handshake();
    assert_eq!((handshake.duration, handshake.source), (Some(Nanos(3_000_250_000)), Observed));
    assert_eq!((handshake.caveat, handshake.retransmits), (None, Some(2)));
    assert_eq!(closed.states[0], (SynSent, Some(3_000_250), Observed));
}

#[test]
fn the_retransmission_count_saturates() {
    let closed = accepted(Some(info(Some(5), 300)));
    assert_eq!(closed.handshake().retransmits, Some(u8::MAX));
}
