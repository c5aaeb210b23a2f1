//! The story of one handshake in words.

use tcptrace_bpf::report::SlowHandshakeRow;
use tracer_core::{
    analysis::{GroupKey, HandshakeAttempt, HandshakeOutcome},
    event::ClockOffset,
    lifecycle::{CloseReason, DurationSource, HandshakeCaveat},
};

use crate::openings::{MS, SECOND, client, end, failed, lossy, served};

fn story(opening: &HandshakeAttempt) -> String {
    let row = SlowHandshakeRow::new(&GroupKey::All, opening, ClockOffset { to_utc_ns: 0 });
    serde_json::to_value(&row).unwrap()["story"].as_str().unwrap().to_owned()
}

fn to() -> tracer_core::event::Endpoint {
    end("192.0.2.7", 80)
}

#[test]
fn the_network_and_the_waits() {
    assert_eq!(story(&client(to(), 223 * MS)), "223 ms, all network");
    assert_eq!(
        story(&lossy(to(), 20 * MS, 2, 3 * SECOND)),
        "3.02 s = 2 SYNs lost (1 s + 2 s) + 20 ms network"
    );
    // Linux 6.5 and newer sends the first SYNs again a second apart.
    assert_eq!(
        story(&lossy(to(), 20 * MS, 2, 2 * SECOND)),
        "2.02 s = 2 SYNs lost (1 s + 1 s) + 20 ms network"
    );
    assert_eq!(story(&lossy(to(), MS, 1, SECOND)), "1 s = 1 SYN lost (1 s) + 1 ms network");
    assert_eq!(story(&lossy(to(), MS, 6, 7 * SECOND)), "7 s = 6 SYNs lost (7 s) + 1 ms network");
    let no_sample = HandshakeAttempt { rtt_ns: None, ..lossy(to(), 20 * MS, 2, 3 * SECOND) };
    assert_eq!(story(&no_sample), "3.02 s = 2 SYNs lost (1 s + 2 s) + 20 ms network");
    let busy = HandshakeAttempt { rtt_ns: Some(2 * MS), ..client(to(), 12 * MS) };
    assert_eq!(story(&busy), "12 ms = 2 ms network + 10 ms in this host");
}

#[test]
fn what_is_not_known_is_not_told() {
    let no_sample = HandshakeAttempt { rtt_ns: None, retransmits: None, ..client(to(), 300 * MS) };
    assert_eq!(story(&no_sample), "300 ms");
    // No schedule of the kernel has two resends within 1.2 s.
    let own_timer = HandshakeAttempt { rtt_ns: None, retransmits: Some(2), ..client(to(), 1_200 * MS) };
    assert_eq!(story(&own_timer), "1.2 s, 2 SYNs lost (waits unknown)");
    let in_vain = HandshakeAttempt { retransmits: Some(1), ..client(to(), 1_200 * MS) };
    assert_eq!(story(&in_vain), "1.2 s = 1 SYN resent in vain + 1.2 s network");
    let unknown = HandshakeAttempt { duration_ns: None, rtt_ns: None, ..served(80, to(), MS) };
    assert_eq!(story(&unknown), "unknown: the kernel has no sample");
}

#[test]
fn caveats_are_told() {
    let server = |ms: u64| HandshakeAttempt { rtt_ns: None, ..served(80, to(), ms * MS) };
    let cookie = HandshakeAttempt { caveat: Some(HandshakeCaveat::SynCookie), ..served(80, to(), 242 * MS) };
    assert_eq!(story(&cookie), "242 ms, all network, up to 64 ms too long (SYN cookie)");
    let data = HandshakeAttempt { caveat: Some(HandshakeCaveat::FirstData), ..server(300) };
    assert_eq!(story(&data), "300 ms until the client's first data, which it may have waited for");
    let resent = HandshakeAttempt {
        retransmits: Some(1),
        caveat: Some(HandshakeCaveat::SynAckRetransmitted),
        source: DurationSource::Observed,
        ..server(1_036)
    };
    assert_eq!(story(&resent), "1.04 s = 1 SYN-ACK lost (1 s) + 36 ms until the answer");
    let modelled = HandshakeAttempt {
        retransmits: Some(1),
        caveat: Some(HandshakeCaveat::RetransmitSchedule),
        source: DurationSource::Modelled,
        rtt_ns: Some(30 * MS),
        ..server(1_030)
    };
    assert_eq!(story(&modelled), "about 1.03 s = 1 SYN-ACK lost (1 s) + 30 ms network");
    let two = HandshakeAttempt { duration_ns: None, retransmits: Some(2), rtt_ns: None, ..modelled };
    assert_eq!(story(&two), "unknown: 2 SYN-ACKs sent again, which of them was answered is not known");
}

#[test]
fn failures() {
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
    let unseen = HandshakeAttempt { duration_ns: None, ..failed(to(), CloseReason::Unknown, 0) };
    assert_eq!(story(&unseen), "failed, for an unknown reason");
    let abandoned = HandshakeAttempt {
        outcome: HandshakeOutcome::Abandoned,
        retransmits: Some(2),
        ..served(80, to(), 3 * SECOND)
    };
    assert_eq!(story(&abandoned), "abandoned by the client: 3 SYN-ACKs, no final ACK in more than 3 s");
}
