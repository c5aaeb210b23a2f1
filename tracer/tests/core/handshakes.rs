//! How long the opening took, and how that is known.

use tcptrace_bpf::{
    event::{AcceptQueue, Event, SocketId, SynAckRetransmit, TcpInfo},
    lifecycle::{
        DurationSource::{Measured, Modelled, Observed},
        HandshakeCaveat,
        TcpState::{Closed, Established, SynReceived, SynSent},
    },
};

use crate::{
    observed::{Ended, run},
    script::{CLIENT, Life, NETNS, SECOND, SERVER, error, process, time},
};

fn info(srtt_us: Option<u32>, retransmits: u32) -> TcpInfo {
    TcpInfo { srtt_us, retransmits, ..TcpInfo::default() }
}

/// A child that lives for a second: made at 0, established at 9 with these figures.
fn accepted(info: Option<TcpInfo>) -> Ended {
    let life = Life::server(1)
        .step(0, SynReceived)
        .with(|it| {
            it.accept_queue = Some(AcceptQueue { length: 3, limit: 128 });
        })
        .step(9, Established)
        .with(|it| it.info = info)
        .step(SECOND, Closed)
        .flags(error(104));
    run(&life.events()).only().clone()
}

#[test]
fn the_kernel_s_sample() {
    let ended = accepted(Some(info(Some(223_557), 0)));
    assert_eq!(ended.handshake_parts(), (Some(223_557), Measured, None, Some(0), Some(223_557)));
    assert_eq!(ended.states[0], (SynReceived, Some(223_557), Measured));
    assert_eq!((ended.opened_us(), ended.duration_us()), (Some(9 - 223_557), Some(SECOND + 223_557 - 9)));
    assert_eq!(ended.connection.accept_queue, Some(AcceptQueue { length: 3, limit: 128 }));
}

#[test]
fn a_resent_syn_ack_with_timestamps() {
    let ended = accepted(Some(info(Some(1_007_000), 1)));
    let caveat = Some(HandshakeCaveat::SynAckRetransmitted);
    assert_eq!(ended.handshake_parts(), (Some(1_007_000), Measured, caveat, Some(1), None));
    assert_eq!(ended.states[0], (SynReceived, Some(1_007_000), Measured));
}

/// On another processor than the one that resends, the ACK is taken before the resend is counted: the kernel believes
/// that its sample is of a single SYN-ACK.
#[test]
fn an_ack_that_overtakes_the_count_of_the_resend() {
    let life = Life::server(1)
        .step(SECOND + 30, SynReceived)
        .step(SECOND + 50, Established)
        .with(|it| it.info = Some(info(Some(1_000_047), 0)))
        .step(2 * SECOND, Closed)
        .flags(error(104));
    let resend = Event::SynAckRetransmit(SynAckRetransmit {
        time: time(SECOND),
        listener: SocketId(9),
        local: SERVER,
        remote: CLIENT,
        netns: Some(NETNS),
        attempts: 1,
        first_sent: Some(time(0)),
        accept_queue: None,
        acked: false,
    });
    let ended = run(&[vec![resend], life.events()].concat()).only().clone();
    let caveat = Some(HandshakeCaveat::SynAckRetransmitted);
    assert_eq!(ended.handshake_parts(), (Some(SECOND + 50), Observed, caveat, Some(1), None));
}

#[test]
fn resent_syn_acks_without_timestamps() {
    let caveat = Some(HandshakeCaveat::RetransmitSchedule);
    let one = accepted(Some(info(None, 1)));
    assert_eq!(one.handshake_parts(), (Some(SECOND), Modelled, caveat, Some(1), None));
    assert_eq!(one.states[0], (SynReceived, Some(SECOND), Modelled));
    // A SYN that came again is answered again: the count is no measure of time.
    for count in 2..=5_u8 {
        let ended = accepted(Some(info(None, u32::from(count))));
        assert_eq!(ended.handshake_parts(), (None, Modelled, caveat, Some(count), None));
        assert_eq!((ended.states[0].0, ended.states[0].1), (SynReceived, None));
    }
}

#[test]
fn cookies() {
    let ended = accepted(Some(info(Some(242_000), 0)));
    let (duration, source, caveat, resent, _) = ended.handshake_parts();
    assert_eq!((duration, source, resent), (Some(242_000), Measured, Some(0)));
    assert_eq!(caveat, Some(HandshakeCaveat::SynCookie));

    let ended = accepted(Some(info(None, 0)));
    assert_eq!(ended.handshake().duration_ns, None);
    // Unknown, never the microseconds of the child.
    assert_eq!((ended.states[0].0, ended.states[0].1), (SynReceived, None));
    assert_eq!(ended.opened_us(), Some(0));
}

/// The sample ends with the client's first data: it is a duration, but no round trip of the network.
#[test]
fn a_final_ack_with_data() {
    let with_data = TcpInfo { data_segments_received: 1, ..info(Some(300_123), 0) };
    let ended = accepted(Some(with_data));
    let caveat = Some(HandshakeCaveat::FirstData);
    assert_eq!(ended.handshake_parts(), (Some(300_123), Measured, caveat, Some(0), None));
}

#[test]
fn no_figures() {
    let ended = accepted(None);
    let handshake = ended.handshake();
    assert_eq!((handshake.duration_ns, handshake.rtt_us, handshake.retransmits), (None, None, None));
    assert_eq!(ended.states[0].1, None);
}

#[test]
fn a_client_waits_for_its_lost_syns() {
    let life = Life::client(1)
        .step(0, SynSent)
        .by(process(1, "app"))
        .step(3_000_250, Established)
        .info(info(Some(1000), 2))
        .step(4_000_000, Closed)
        .flags(error(104));
    let observed = run(&life.events());
    let ended = observed.only();
    let handshake = ended.handshake();
    assert_eq!((handshake.duration_ns, handshake.source), (Some(3_000_250_000), Observed));
    assert_eq!((handshake.caveat, handshake.retransmits), (None, Some(2)));
    assert_eq!(ended.states[0], (SynSent, Some(3_000_250), Observed));
}

#[test]
fn more_resends_than_a_byte_holds() {
    let ended = accepted(Some(info(Some(5), 300)));
    assert_eq!(ended.handshake().retransmits, Some(u8::MAX));
}
