//! The handshakes of two hosts, joined: matching, the clocks' offset, and the fate of each segment.

mod network;

use proptest::prelude::*;
use tracer_core::{
    analysis::{
        HandshakeAttempt, HandshakeEnd, HandshakeFate, HandshakeJoin, HandshakeOutcome, JoinReport, JoinSide,
        MatchedBy, UtcTime,
    },
    event::{ClockOffset, Endpoint, Event, HandshakeSegment, KernelName, Nanos, SegmentDropped, Timestamp},
    lifecycle::{Observation, ObservedDrops, Tracker, TrackerOptions},
};

use network::{DELAY, MS, Network, Recorded, SECOND, START, Script, end, run};

/// Adds the handshakes of a host to a side of the join.
fn collect(mut events: Vec<Event>, side: &mut JoinSide) {
    events.sort_by_key(Event::time);
    let clock = ClockOffset { to_utc_ns: 0 };
    let options = TrackerOptions { drops: ObservedDrops::All, ..TrackerOptions::default() };
    let mut tracker = Tracker::new(options);
    let last = events.last().map_or(Timestamp(0), Event::time).saturating_add(Nanos::from_secs(1_000));
    for event in events.iter().chain([&Event::Time(last)]) {
        tracker.observe(event, &mut |observation| {
            if let Observation::SegmentDropped(event) = observation {
                side.add_drop(UtcTime::new(event.time, clock), event);
            }
            if let Some(attempt) = HandshakeAttempt::ended_by(&observation) {
                side.add(HandshakeEnd::new(&attempt, clock));
            }
        });
    }
    side.covers(UtcTime::new(Timestamp(0), clock), UtcTime::new(Timestamp(u64::MAX >> 2), clock));
}

/// Joins the recordings of the scripts. With `from_server`, the report is about the server's host.
fn join(scripts: &[Script], offset: i64, from_server: bool) -> (HandshakeJoin, Vec<[u32; 3]>) {
    let recorded: Vec<Recorded> = scripts.iter().map(|script| run(script, offset)).collect();
    let lost = recorded.iter().map(|it| it.lost).collect();
    let all = |side: fn(&Recorded) -> &Vec<Event>| recorded.iter().flat_map(|it| side(it).clone()).collect();
    let (client, server): (Vec<Event>, Vec<Event>) = (all(|it| &it.client), all(|it| &it.server));
    let mut join = HandshakeJoin::default();
    let (this, other) = if from_server { (server, client) } else { (client, server) };
    collect(this, &mut join.this);
    collect(other, &mut join.other);
    (join, lost)
}

/// A connection without losses, which bounds the offset of the clocks.
fn plain(at: u64) -> Script {
    let port = 20_000 + u16::try_from(at / SECOND).expect("a few connections");
    let numbers = (1_000 + u32::from(port), 2_000 + u32::from(port));
    let (client, server) = (Endpoint { port, ..end("10.0.0.1:0") }, end("10.0.0.2:80"));
    Script { at, numbers, client: (client, server), server: (server, client), ..Script::default() }
}

fn fates(scripts: &[Script], offset: i64) -> Vec<(u16, [Option<u32>; 3])> {
    let (join, _) = join(scripts, offset, false);
    let mut fates: Vec<_> =
        join.report().handshakes.iter().map(|it| (it.client.local.port, three(&it.fate))).collect();
    fates.sort_unstable();
    fates
}

fn three(fate: &HandshakeFate) -> [Option<u32>; 3] {
    HandshakeSegment::ALL.map(|segment| fate.lost(segment))
}

/// The fate of one connection beside a plain one, whichever side the report is about and however the clocks differ.
fn fate_of(network: &Network) -> [Option<u32>; 3] {
    let mut found = None;
    for offset in [0, -7_300_000_000, 86_400_000_000_000] {
        for from_server in [false, true] {
            let script = Script { at: 5 * SECOND, network: network.clone(), ..Script::default() };
            let (join, _) = join(&[plain(0), script], offset, from_server);
            let report = join.report();
            assert_eq!(report.counts.matched(), 2, "{:?}", report.counts);
            let joined = report.handshakes.iter().find(|it| it.client.local.port == 40_000);
            let joined = joined.expect("it is matched");
            assert_eq!(joined.client_is_here, !from_server);
            let fate = three(&joined.fate);
            assert_eq!(*found.get_or_insert(fate), fate, "{offset} {from_server}");
        }
    }
    found.expect("it ran")
}

#[test]
fn each_lost_segment_is_named() {
    let lost = |count| vec![true; count];
    assert_eq!(fate_of(&Network::default()), [Some(0); 3]);
    for count in 1..=3 {
        let syns = Network { syns: lost(count), ..Network::default() };
        assert_eq!(fate_of(&syns), [u32::try_from(count).ok(), Some(0), Some(0)]);
    }
    assert_eq!(fate_of(&Network { syn_acks: lost(1), ..Network::default() }), [Some(0), Some(1), Some(0)]);
    // The server keeps sending SYN-ACKs; at least the first ACK was lost.
    for count in 1..=2 {
        let acks = Network { acks: lost(count), ..Network::default() };
        assert_eq!(fate_of(&acks), [Some(0), Some(0), Some(1)]);
    }
    let both = Network { syns: lost(1), acks: lost(1), ..Network::default() };
    assert_eq!(fate_of(&both), [Some(1), Some(0), Some(1)]);
}

#[test]
fn a_full_accept_queue_is_no_lost_ack() {
    assert_eq!(fate_of(&Network { full: true, ..Network::default() }), [Some(0), Some(0), None]);
}

#[test]
fn a_client_that_no_answer_reaches_has_lost_syn_acks() {
    let network = Network { syn_acks: vec![true; 20], ..Network::default() };
    let script = Script { at: 5 * SECOND, network, patience: 4 * SECOND + 500 * MS, ..Script::default() };
    let (join, lost) = join(&[plain(0), script], -3, false);
    let report = join.report();
    let joined = &report.handshakes[0];
    assert_eq!(joined.by, Some(MatchedBy::ClientSequence));
    assert_eq!(joined.server.unwrap().outcome, HandshakeOutcome::Abandoned);
    let [syns, syn_acks, acks] = three(&joined.fate);
    assert_eq!((syns, acks), (Some(0), Some(0)));
    assert!(syn_acks.is_some_and(|count| count >= 3 && count <= lost[1][1]), "{syn_acks:?} {lost:?}");
}

#[test]
fn a_client_without_an_answer_has_no_trace_on_the_other_host() {
    let network = Network { syns: vec![true; 20], ..Network::default() };
    let script = Script { at: 5 * SECOND, network, patience: 3 * SECOND, ..Script::default() };
    let (both, _) = join(&[plain(0), script.clone()], 5, false);
    let report = both.report();
    assert_eq!((report.counts.matched(), report.counts.without_trace), (1, 1));
    let joined = &report.handshakes[0];
    assert_eq!((joined.server, joined.by, three(&joined.fate)), (None, None, [None; 3]));
    // To another address it is not the other host's.
    let elsewhere = end("10.0.0.3:80");
    let script = Script { client: (script.client.0, elsewhere), ..script };
    let (elsewhere, _) = join(&[plain(0), script], 5, false);
    assert_eq!((elsewhere.report().counts.without_trace, elsewhere.report().counts.this.unmatched), (0, 1));
}

#[test]
fn a_syn_that_the_server_drops_is_its_trace() {
    let network = Network { syns: vec![true; 20], ..Network::default() };
    let script = Script { network, patience: 3 * SECOND, ..Script::default() };
    // Without a completed handshake the clocks are not compared.
    let (mut join, _) = join(std::slice::from_ref(&script), 0, false);
    let clock = ClockOffset { to_utc_ns: 0 };
    let dropped = SegmentDropped {
        time: Timestamp(START),
        socket: None,
        source: script.client.0,
        destination: script.client.1,
        netns: None,
        segment: HandshakeSegment::Syn,
        reason: KernelName::new(b"netfilter_drop"),
        function: None,
    };
    for _ in 0..3 {
        join.other.add_drop(UtcTime::new(dropped.time, clock), &dropped);
    }
    let report = join.report();
    assert_eq!(three(&report.handshakes[0].fate), [Some(3), None, None]);
    assert_eq!(report.handshakes[0].server_drops.count(), 3);
    assert_eq!(report.clock, None);
}

#[test]
fn translated_addresses_and_ports_do_not_matter() {
    let script = Script { server: (end("192.168.0.9:8080"), end("172.16.0.1:61000")), ..Script::default() };
    assert_eq!(fates(&[script], 12_345), [(40_000, [Some(0); 3])]);
}

#[test]
fn equal_numbers_of_different_connections_are_ambiguous() {
    let twin = |port| {
        let client = Endpoint { port, ..end("10.0.0.1:0") };
        Script {
            client: (client, end("10.0.0.2:80")),
            server: (end("10.9.9.9:99"), client),
            ..Script::default()
        }
    };
    let (join, _) = join(&[twin(1), twin(2)], 0, false);
    let report = join.report();
    assert_eq!((report.counts.matched(), report.counts.other.ambiguous), (0, 2));
    // The ports of one tell them apart.
    let other = Script { server: (end("10.0.0.2:80"), twin(1).client.0), ..twin(1) };
    let (join, _) = self::join(&[other, twin(2)], 0, false);
    assert_eq!(join.report().counts.matched(), 2);
}

fn assert_within(report: &JoinReport<'_>, offset: i64) {
    let clock = report.clock.expect("a handshake was completed");
    let bounds = clock.bounds;
    assert!(bounds.low <= offset && offset <= bounds.high, "{offset} is not in {bounds:?}");
    assert_eq!(clock.contradictions, 0);
}

fn network() -> impl Strategy<Value = Network> {
    let losses = || prop::collection::vec(any::<bool>(), 0..3);
    let delays = prop::collection::vec(1_000..400 * MS, 1..8);
    (losses(), losses(), losses(), delays).prop_map(|(syns, syn_acks, acks, delays)| Network {
        syns,
        syn_acks,
        acks,
        delays,
        full: false,
    })
}

proptest! {
    #[test]
    fn the_true_offset_is_within_the_stated_bounds(
        offset in -50_000_000_000_000_i64..1_000_000_000_000_000,
        networks in prop::collection::vec(network(), 1..6),
        from_server: bool,
    ) {
        // Some generated handshakes give no lower bound: a sample of whole milliseconds may be a SYN cookie's. The first does.
        let generated = networks.into_iter().zip(1..).map(|(network, index)| Script { network, ..plain(index * 3 * SECOND) });
        let scripts: Vec<Script> = std::iter::once(plain(0)).chain(generated).collect();
        let (join, _) = join(&scripts, offset, from_server);
        let report = join.report();
        let stated = if from_server { -offset } else { offset };
        assert_within(&report, stated);
        prop_assert_eq!(report.counts.matched(), scripts.len() as u64);
    }

    #[test]
    fn never_more_than_what_was_lost_is_stated(networks in prop::collection::vec(network(), 1..6), offset in -1_000_000_i64..1_000_000) {
        let plain_first = plain(0);
        let scripts: Vec<Script> = [plain_first].into_iter().chain(
            networks.into_iter().zip(1..).map(|(network, index)| Script { network, ..plain(index * 20 * SECOND) })
        ).collect();
        let (join, lost) = join(&scripts, offset, false);
        let report = join.report();
        for joined in &report.handshakes {
            let index = scripts.iter().position(|script| script.client.0 == joined.client.local).unwrap();
            for (stated, truth) in three(&joined.fate).into_iter().zip(lost[index]) {
                prop_assert!(stated.is_none_or(|stated| stated <= truth), "{:?} of {:?}: {:?}", three(&joined.fate), lost[index], scripts[index]);
            }
            // The times of the segments are within their bounds.
            if let Some(span) = joined.one_way.syn {
                let delay = scripts[index].network.delays.first().copied().unwrap_or(DELAY).cast_signed();
                prop_assert!(span.least <= delay && delay <= span.most, "{:?} {}", span, delay);
            }
        }
    }
}
