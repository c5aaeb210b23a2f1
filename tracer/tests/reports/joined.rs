//! Joined handshakes as text.

use tcptrace_bpf::report::{JoinHosts, JoinTable, TableStyle, TimeStyle, joined_story};
use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeEnd, HandshakeJoin, HandshakeOutcome, JoinSide},
    event::{ClockOffset, Endpoint, HandshakeSegment, InitialSequences, Nanos, Timestamp},
    lifecycle::{CloseReason, ObservedDrops, SegmentDrops},
};

use crate::attempts::{MS, SECOND, US, client, dropped, end, failed, lossy, served};

const CLOCK: ClockOffset = ClockOffset { to_utc_ns: 1_795_000_000_000_000_000 };
/// When the clients begin.
const BEGAN: u64 = 1_000 * SECOND;
/// How far the server's clock is ahead.
const AHEAD: u64 = 1_250 * US;

fn server() -> Endpoint {
    end("192.0.2.7", 80)
}

/// Returns both ends of a handshake with a round trip of 62 µs, whose SYN was sent again `lost` times.
fn both(number: u32, lost: u8) -> (HandshakeAttempt, HandshakeAttempt) {
    let waited = u64::from(lost) * SECOND;
    let began = BEGAN + u64::from(number) * 10 * SECOND;
    let numbers = |local, remote| Some(InitialSequences { local, remote: Some(remote) });
    let local = end("10.0.0.1", 40_000 + u16::try_from(number).unwrap());
    let base = if lost == 0 { client(server(), 62 * US) } else { lossy(server(), 62 * US, lost, waited) };
    let active = HandshakeAttempt {
        local,
        ended: Timestamp(began + waited + 62 * US),
        entered: Some(Timestamp(began)),
        sequences: numbers(number, 100 + number),
        drops: SegmentDrops::observed(ObservedDrops::All),
        ..base
    };
    let answered = began + waited + 31 * US + AHEAD;
    let passive = HandshakeAttempt {
        remote: local,
        ended: Timestamp(answered + 63 * US),
        entered: Some(Timestamp(answered + 61 * US)),
        sequences: numbers(100 + number, number),
        drops: SegmentDrops::observed(ObservedDrops::All),
        ..served(80, server(), 62 * US)
    };
    (active, passive)
}

fn side(attempts: &[HandshakeAttempt]) -> JoinSide {
    let mut side = JoinSide::default();
    for attempt in attempts {
        side.add(HandshakeEnd::new(attempt, CLOCK));
    }
    side
}

fn stories(join: &HandshakeJoin) -> Vec<String> {
    join.report().handshakes.iter().map(joined_story).collect()
}

#[test]
fn a_story_says_where_segments_were_lost() {
    let ((fast, fast_served), (slow, slow_served)) = (both(1, 0), both(2, 2));
    let join = |slow, slow_served| HandshakeJoin {
        this: side(&[fast, slow]),
        other: side(&[fast_served, slow_served]),
    };
    assert_eq!(
        stories(&join(slow, slow_served)),
        ["2 s; 2 SYNs lost between the hosts", "62 µs; nothing lost"]
    );
    let with = |client, server| {
        let slow = HandshakeAttempt { drops: client, ..slow };
        let served = HandshakeAttempt { drops: server, ..slow_served };
        stories(&join(slow, served)).swap_remove(0)
    };
    let reason = "(netfilter_drop in nft_do_chain)";
    assert_eq!(
        with(dropped(HandshakeSegment::Syn, 2), dropped(HandshakeSegment::Syn, 0)),
        format!("2 s; 2 SYNs lost, dropped by the client's host {reason}")
    );
    assert_eq!(
        with(dropped(HandshakeSegment::Syn, 0), dropped(HandshakeSegment::Syn, 1)),
        format!("2 s; 2 SYNs lost, 1 dropped by the server's host {reason}")
    );
    // Where drops are not observed, the place is unknown.
    assert_eq!(with(SegmentDrops::NONE, dropped(HandshakeSegment::Syn, 0)), "2 s; 2 SYNs lost");
}

#[test]
fn a_table_begins_with_how_the_recordings_fit() {
    let (fast, fast_served) = both(1, 0);
    let alone = HandshakeAttempt {
        sequences: Some(InitialSequences { local: 9, remote: None }),
        ..failed(end("198.51.100.1", 80), CloseReason::TimedOut, 3 * SECOND)
    };
    let abandoned = HandshakeAttempt {
        outcome: HandshakeOutcome::Abandoned,
        duration: Some(Nanos(MS)),
        sequences: None,
        ..fast_served
    };
    let join = HandshakeJoin { this: side(&[fast, alone]), other: side(&[fast_served, abandoned]) };
    let hosts = JoinHosts { this: "web-1".to_owned(), other: "db-1\u{1b}".to_owned() };
    let mut text = String::new();
    let style = TableStyle { time: TimeStyle::None, ..TableStyle::default() };
    let table = JoinTable { slowest: 5, style, hosts: &hosts };
    table.write(&join.report(), &mut text).unwrap();
    assert_eq!(
        text,
        "Handshakes with both ends, on web-1 and on db-1\\x1b: 1; with a lost segment: 0\n\
         Clock offset: db-1\\x1b is 1.25 ms ± 32.5 µs ahead of web-1\n\
         Without the other end: 1 on web-1, 1 on db-1\\x1b; 1 on db-1\\x1b without initial sequence numbers\n\n\
         CLIENT                  SERVER                  AT CLIENT AT SERVER  STORY\n\
         10.0.0.1:40001          192.0.2.7:80               62.0us    62.0us  62 µs; nothing lost\n"
    );
    let mut empty = String::new();
    table.write(&HandshakeJoin::default().report(), &mut empty).unwrap();
    assert!(empty.contains("Clock offset: unknown"), "{empty}");
}
