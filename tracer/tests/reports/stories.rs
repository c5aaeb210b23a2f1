//! Descriptions of single handshakes.

use tcptrace_bpf::report::story;
use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{Endpoint, HandshakeSegment, Nanos},
    lifecycle::{CloseReason, DurationSource, HandshakeCaveat, ObservedDrops, SegmentDrops},
};

use crate::attempts::{MS, SECOND, client, dropped, end, failed, lossy, served};

fn to() -> Endpoint {
    end("192.0.2.7", 80)
}

#[test]
fn network_time_and_waits_are_separated() {
    assert_eq!(story(&client(to(), 223 * MS)), "223 ms, all network");
    assert_eq!(
        story(&lossy(to(), 20 * MS, 2, 3 * SECOND)),
        "3.02 s = 2 SYNs lost (1 s + 2 s) + 20 ms network"
    );
    // Linux 6.5 and newer retransmits the first SYNs one second apart.
    assert_eq!(
        story(&lossy(to(), 20 * MS, 2, 2 * SECOND)),
        "2.02 s = 2 SYNs lost (1 s + 1 s) + 20 ms network"
    );
    assert_eq!(story(&lossy(to(), MS, 1, SECOND)), "1 s = 1 SYN lost (1 s) + 1 ms network");
    assert_eq!(story(&lossy(to(), MS, 6, 7 * SECOND)), "7 s = 6 SYNs lost (7 s) + 1 ms network");
    let no_sample = HandshakeAttempt { rtt: None, ..lossy(to(), 20 * MS, 2, 3 * SECOND) };
    assert_eq!(story(&no_sample), "3.02 s = 2 SYNs lost (1 s + 2 s) + 20 ms network");
    let busy = HandshakeAttempt { rtt: Some(Nanos(2 * MS)), ..client(to(), 12 * MS) };
    assert_eq!(story(&busy), "12 ms = 2 ms network + 10 ms on this host");
}

#[test]
fn unknown_parts_are_omitted() {
    let no_sample = HandshakeAttempt { rtt: None, retransmits: None, lost: None, ..client(to(), 300 * MS) };
    assert_eq!(story(&no_sample), "300 ms");
    // No schedule of the kernel has two retransmissions within 1.2 s.
    let own_timer =
        HandshakeAttempt { rtt: None, retransmits: Some(2), lost: Some(true), ..client(to(), 1_200 * MS) };
    assert_eq!(story(&own_timer), "1.2 s, 2 SYNs lost (waits unknown)");
    let answered =
        HandshakeAttempt { rtt: None, retransmits: Some(1), lost: None, ..client(to(), 1_200 * MS) };
    assert_eq!(story(&answered), "1.2 s, 1 SYN resent, although the first one arrived");
    let unknown = HandshakeAttempt { duration: None, rtt: None, ..served(80, to(), MS) };
    assert_eq!(story(&unknown), "unknown: the kernel has no sample");
}

#[test]
fn caveats_are_reported() {
    let server = |ms: u64| HandshakeAttempt { rtt: None, ..served(80, to(), ms * MS) };
    let cookie = HandshakeAttempt { caveat: Some(HandshakeCaveat::SynCookie), ..served(80, to(), 242 * MS) };
    assert_eq!(story(&cookie), "242 ms, all network, up to 64 ms too long (SYN cookie)");
    let data = HandshakeAttempt { caveat: Some(HandshakeCaveat::FirstData), ..server(300) };
    assert_eq!(story(&data), "300 ms until the client's first data, which it may have waited for");
    let dropped_ack = HandshakeAttempt { drops: dropped(HandshakeSegment::Ack, 4), ..data };
    assert_eq!(
        story(&dropped_ack),
        "300 ms until the client's first data, because the final ACK was dropped; dropped here: 4 ACKs, netfilter_drop in \
         nft_do_chain"
    );
    let resent = HandshakeAttempt {
        retransmits: Some(1),
        lost: Some(true),
        caveat: Some(HandshakeCaveat::SynAckRetransmitted),
        source: DurationSource::Observed,
        ..server(1_036)
    };
    assert_eq!(story(&resent), "1.04 s = 1 SYN-ACK lost (1 s) + 36 ms until the answer");
    let modelled = HandshakeAttempt {
        retransmits: Some(1),
        lost: Some(true),
        caveat: Some(HandshakeCaveat::RetransmitSchedule),
        source: DurationSource::Modelled,
        rtt: Some(Nanos(30 * MS)),
        ..server(1_030)
    };
    assert_eq!(story(&modelled), "about 1.03 s = 1 SYN-ACK lost (1 s) + 30 ms network");
    let two = HandshakeAttempt { duration: None, retransmits: Some(2), rtt: None, ..modelled };
    assert_eq!(story(&two), "unknown: 2 SYN-ACKs retransmitted, unclear which one was answered");
}

#[test]
fn failures_have_their_reason() {
    assert_eq!(story(&failed(to(), CloseReason::Refused, 40 * MS)), "refused after 40 ms");
    let timed_out =
        HandshakeAttempt { retransmits: Some(2), ..failed(to(), CloseReason::TimedOut, 7 * SECOND) };
    assert_eq!(story(&timed_out), "timed out after 3 SYNs: no answer in 7 s");
    let given_up =
        HandshakeAttempt { retransmits: Some(1), ..failed(to(), CloseReason::Cancelled, 2 * SECOND) };
    assert_eq!(story(&given_up), "given up by the application after 2 SYNs: no answer in 2 s");
    let unreachable =
        HandshakeAttempt { error: Some(113), ..failed(to(), CloseReason::Unreachable, 3_100 * MS) };
    assert_eq!(story(&unreachable), "unreachable (EHOSTUNREACH) after 3.1 s");
    assert_eq!(story(&failed(to(), CloseReason::NoLocalPort, MS)), "no local port was free");
    let unseen = HandshakeAttempt { duration: None, ..failed(to(), CloseReason::Unknown, 0) };
    assert_eq!(story(&unseen), "failed, for an unknown reason");
    let abandoned = HandshakeAttempt {
        outcome: HandshakeOutcome::Abandoned,
        retransmits: Some(2),
        ..served(80, to(), 3 * SECOND)
    };
    assert_eq!(story(&abandoned), "abandoned by the client: 3 SYN-ACKs, no final ACK in more than 3 s");
}

#[test]
fn a_story_ends_with_where_segments_were_lost() {
    let timed_out =
        HandshakeAttempt { retransmits: Some(1), ..failed(to(), CloseReason::TimedOut, 3 * SECOND) };
    let with = |drops| story(&HandshakeAttempt { drops, ..timed_out });
    let bare = "timed out after 2 SYNs: no answer in 3 s";
    assert_eq!(
        with(dropped(HandshakeSegment::Syn, 2)),
        format!("{bare}; dropped here: 2 SYNs, netfilter_drop in nft_do_chain")
    );
    assert_eq!(with(dropped(HandshakeSegment::Syn, 0)), format!("{bare}; it left this host, not answered"));
    let without_queues = SegmentDrops::observed(ObservedDrops::ExceptFullQueues);
    assert_eq!(with(without_queues), format!("{bare}; no drop seen on this host"));
    assert_eq!(with(SegmentDrops::NONE), bare);
    // A completed handshake, with and without a loss.
    let lossy =
        HandshakeAttempt { drops: dropped(HandshakeSegment::SynAck, 1), ..lossy(to(), 20 * MS, 1, SECOND) };
    assert_eq!(
        story(&lossy),
        "1.02 s = 1 SYN lost (1 s) + 20 ms network; dropped here: 1 SYN-ACK, netfilter_drop in nft_do_chain"
    );
    let fine = HandshakeAttempt { drops: dropped(HandshakeSegment::Syn, 0), ..client(to(), 20 * MS) };
    assert_eq!(story(&fine), "20 ms, all network");
    let refused = HandshakeAttempt { unserved: true, duration: None, ..served(80, to(), 0) };
    let refused = HandshakeAttempt { outcome: HandshakeOutcome::Failed(CloseReason::Refused), ..refused };
    assert_eq!(story(&refused), "refused: nobody listens");
}

#[test]
fn a_story_names_the_backend_last() {
    let backend = Some(Endpoint { address: "10.1.2.3".parse().unwrap(), port: 8443 });
    let slow = HandshakeAttempt { backend, ..lossy(to(), 20 * MS, 1, SECOND) };
    assert_eq!(story(&slow), "1.02 s = 1 SYN lost (1 s) + 20 ms network; backend 10.1.2.3:8443");
}
