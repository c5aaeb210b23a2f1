//! Groups of handshakes and their report.

use std::sync::Arc;

use proptest::prelude::*;
use tcptrace_bpf::report::{HandshakeTable, Palette, TableStyle, TableWidth, TimeStyle};
use tracer_core::{
    analysis::{
        Fault, GroupKey, HandshakeAttempt, HandshakeOutcome, Handshakes, HandshakesBy, HandshakesOptions,
    },
    event::{ClockOffset, HandshakeSegment, Nanos},
    lifecycle::CloseReason,
};

use crate::attempts::{MS, SECOND, US, client, dropped, end, failed, lossy, process, served};

fn by(by: HandshakesBy) -> HandshakesOptions {
    HandshakesOptions { by, slowest: 5, max_groups: 10_000 }
}

fn table(handshakes: &Handshakes, groups: usize) -> String {
    table_of(handshakes, groups, TableWidth::Standard)
}

fn table_of(handshakes: &Handshakes, groups: usize, width: TableWidth) -> String {
    let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
    let style = TableStyle { width, time: TimeStyle::Utc, ..TableStyle::default() };
    let table = HandshakeTable { groups, style, clock };
    let mut text = String::new();
    table.write(&handshakes.report(), &mut text).unwrap();
    text
}

/// Returns the handshakes with five healthy backends, and with three that drop every third SYN, are slow, and refuse.
fn incident() -> Handshakes {
    let mut handshakes = Handshakes::new(by(HandshakesBy::Service));
    for round in 0..60 {
        for backend in 1..=5 {
            handshakes.add(&client(end(&format!("10.0.1.{backend}"), 8080), (180 + round) * US), None);
        }
        let dropping = end("10.0.1.6", 8080);
        handshakes.add(
            &if round % 3 == 2 { lossy(dropping, MS, 1, SECOND) } else { client(dropping, 200 * US) },
            None,
        );
        handshakes.add(&client(end("10.0.1.7", 8080), 223 * MS + round * US), None);
        handshakes.add(&failed(end("10.0.1.8", 8080), CloseReason::Refused, 150 * US), None);
        handshakes.add(&served(443, end("10.0.2.1", 50_000), 300 * US), None);
    }
    handshakes
}

#[test]
fn the_tables_fit_a_terminal_and_keep_the_answer() {
    for width in [80, 120, 200] {
        let text = table_of(&incident(), 20, TableWidth::Fit(width));
        let header = |title: &str| text.lines().position(|line| line.starts_with(title)).unwrap();
        let (groups, slowest) = (header("GROUP"), header("ENDED"));
        for line in text.lines().skip(groups).take_while(|line| !line.is_empty()) {
            assert!(line.chars().count() <= usize::from(width), "{line}");
        }
        for line in text.lines().skip(slowest).take_while(|line| !line.is_empty()) {
            assert!(line.chars().count() <= usize::from(width), "{line}");
        }
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[groups].ends_with("WHY") && lines[slowest].ends_with("STORY"), "{text}");
        assert_eq!(lines[groups].contains("P90"), width == 200, "{text}");
        assert_eq!(lines[slowest].contains("LOCAL"), width >= 120, "{text}");
    }
}

#[test]
fn colors_name_the_culprits_and_move_nothing() {
    let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
    let handshakes = incident();
    let write = |width, palette| {
        let mut text = String::new();
        let style = TableStyle { width, time: TimeStyle::Utc, palette };
        HandshakeTable { groups: 20, style, clock }.write(&handshakes.report(), &mut text).unwrap();
        text
    };
    for width in [TableWidth::Standard, TableWidth::Wide, TableWidth::Fit(80), TableWidth::Fit(120)] {
        let (plain, colored) = (write(width, Palette::default()), write(width, Palette::new(true)));
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
        // Of the groups, the offenders are red, and the others are not.
        let red = |group: &str| {
            colored.lines().any(|line| line.starts_with(&format!("\u{1b}[31m{group}\u{1b}[0m")))
        };
        assert!(red("10.0.1.6:8080") && red("10.0.1.7:8080") && red("10.0.1.8:8080"), "{colored}");
        assert!(!red("10.0.1.1:8080"), "{colored}");
        assert!(colored.lines().any(|line| line.starts_with("\u{1b}[1mGROUP")), "{colored}");
    }
}

#[test]
fn the_first_line_fits_a_terminal() {
    let text = table_of(&incident(), 20, TableWidth::Fit(80));
    let first: Vec<&str> = text.lines().take_while(|line| !line.starts_with("GROUP")).collect();
    assert!(first.len() > 1 && first.iter().all(|line| line.chars().count() <= 80), "{text}");
    assert!(first[1..].iter().all(|line| line.starts_with("  ")), "{text}");
}

#[test]
fn the_worst_offenders_come_first_and_are_named() {
    let handshakes = incident();
    let report = handshakes.report();
    let first: Vec<_> = report.groups[..3].iter().map(|group| group.key.clone()).collect();
    let service = |backend: &str| GroupKey::Service(end(backend, 8080));
    assert_eq!(first, ["10.0.1.8", "10.0.1.6", "10.0.1.7"].map(service));
    assert!(report.groups[..3].iter().all(|group| group.score.is_offender()));
    assert!(report.groups[3..].iter().all(|group| !group.score.is_offender()), "the others are healthy");
    let faults: Vec<_> = report.groups[..3].iter().map(|group| group.score.faults[0]).collect();
    let Fault::Slow { p50, host_median, by_network: true } = faults[2] else { panic!("{faults:?}") };
    assert!(p50.0.abs_diff(223 * MS) < 3 * MS && host_median < Nanos(300 * US), "{faults:?}");
    assert_eq!(
        faults[..2],
        [
            Fault::Failing { outcome: HandshakeOutcome::Failed(CloseReason::Refused), count: 60, of: 60 },
            Fault::Resending { count: 20, of: 60, mean_wait: Some(Nanos(SECOND)) },
        ]
    );
    let text = table(&handshakes, 20);
    let top: Vec<&str> = text.lines().take(3).collect();
    for offender in
        ["10.0.1.6:8080 (33 % resent a SYN", "10.0.1.7:8080 (slow network", "10.0.1.8:8080 (100 % refused)"]
    {
        assert!(top[0].contains(offender), "{offender} not in {top:?}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_healthy_host_has_no_offenders() {
    let mut handshakes = Handshakes::new(by(HandshakesBy::Service));
    assert_eq!(table(&handshakes, 20).lines().next(), Some("No handshake was seen"));
    for index in 0..100 {
        handshakes.add(&client(end("10.0.1.1", 80), (150 + index) * US), None);
        handshakes.add(&client(end("10.0.1.2", 80), (250 + index) * US), None);
    }
    insta::assert_snapshot!(table(&handshakes, 1));
}

#[test]
fn a_single_failure_does_not_outrank_many() {
    let mut handshakes = Handshakes::new(by(HandshakesBy::Remote));
    for index in 0..100 {
        let stray = failed(end("10.0.9.9", 80), CloseReason::Refused, MS);
        let frequent = failed(end("10.0.1.1", 80), CloseReason::Refused, MS);
        if index == 0 {
            handshakes.add(&stray, None);
        }
        handshakes.add(&if index % 4 == 0 { frequent } else { client(end("10.0.1.1", 80), MS) }, None);
    }
    let report = handshakes.report();
    assert_eq!(*report.groups[0].key, GroupKey::Remote("10.0.1.1".parse().unwrap()));
}

#[test]
fn every_grouping_has_its_key() {
    let attempt = client(end("192.0.2.7", 5432), MS);
    let key = |how| {
        let mut handshakes = Handshakes::new(by(how));
        handshakes.add(&attempt, Some(Arc::from("0123456789abcdef")));
        handshakes.report().groups[0].key.clone()
    };
    assert_eq!(key(HandshakesBy::Service), GroupKey::Service(end("192.0.2.7", 5432)));
    assert_eq!(key(HandshakesBy::Remote), GroupKey::Remote("192.0.2.7".parse().unwrap()));
    assert_eq!(key(HandshakesBy::RemotePort), GroupKey::RemotePort(5432));
    assert_eq!(key(HandshakesBy::LocalPort), GroupKey::LocalPort(40_000));
    assert_eq!(key(HandshakesBy::Process), GroupKey::Process(Some(process(1, "orders-api").comm)));
    assert_eq!(key(HandshakesBy::Container), GroupKey::Container(Some(Arc::from("0123456789abcdef"))));
    assert_eq!(key(HandshakesBy::Role), GroupKey::Role(attempt.role));
    assert_eq!(key(HandshakesBy::None), GroupKey::All);
    let server = served(443, end("192.0.2.7", 50_000), MS);
    assert_eq!(GroupKey::of(&server, HandshakesBy::Service, None), GroupKey::Served(443));
}

#[test]
fn the_slowest_handshakes_are_sorted() {
    let mut handshakes = Handshakes::new(HandshakesOptions { slowest: 3, ..by(HandshakesBy::None) });
    for ms in [5, 900, 20, 7_000, 900, 3] {
        handshakes.add(&client(end("192.0.2.7", 80), ms * MS), None);
    }
    let report = handshakes.report();
    let kept: Vec<_> =
        report.slowest.iter().map(|(_, attempt)| attempt.duration.unwrap().as_millis()).collect();
    assert_eq!(kept, [7_000, 900, 900]);
    let mut none = Handshakes::new(HandshakesOptions { slowest: 0, ..by(HandshakesBy::None) });
    none.add(&client(end("192.0.2.7", 80), MS), None);
    assert!(none.report().slowest.is_empty());
}

fn any_attempt() -> impl Strategy<Value = HandshakeAttempt> {
    (1..30_u16, 1..20_000_000_000_u64, proptest::option::of(0..5_u8), 0..4_u8).prop_map(
        |(port, duration, resent, kind)| {
            let to = end("192.0.2.7", port);
            match kind {
                0 => failed(to, CloseReason::TimedOut, duration),
                1 => HandshakeAttempt { outcome: HandshakeOutcome::Abandoned, ..client(to, duration) },
                2 => HandshakeAttempt { duration: None, retransmits: resent, ..client(to, duration) },
                _ => HandshakeAttempt { retransmits: resent, rtt: None, ..client(to, duration) },
            }
        },
    )
}

proptest! {
    #[test]
    fn folding_keeps_every_total(
        attempts in proptest::collection::vec(any_attempt(), 0..200),
        max_groups in 1..40_usize,
    ) {
        let options = by(HandshakesBy::RemotePort);
        let mut handshakes = Handshakes::new(HandshakesOptions { max_groups, ..options });
        let mut alone = Handshakes::new(by(HandshakesBy::None));
        for attempt in &attempts {
            handshakes.add(attempt, None);
            alone.add(attempt, None);
        }
        let report = handshakes.report();
        prop_assert!(report.groups.len() <= max_groups + 1);
        let mut sum = tracer_core::analysis::HandshakeStats::default();
        for group in &report.groups {
            prop_assert!(group.stats.network().saturating_add(group.stats.retransmit_wait()) <= group.stats.durations().sum());
            sum.merge(group.stats);
        }
        let reference = alone.report();
        for stats in [&sum, report.total] {
            prop_assert_eq!(stats.count(), attempts.len() as u64);
            prop_assert_eq!(stats.established(), reference.total.established());
            prop_assert!(stats.failures().eq(reference.total.failures()));
            prop_assert_eq!(stats.retransmitted(), reference.total.retransmitted());
            prop_assert_eq!(stats.durations().sum(), reference.total.durations().sum());
            prop_assert_eq!(stats.durations().max(), reference.total.durations().max());
            prop_assert_eq!(stats.retransmit_wait(), reference.total.retransmit_wait());
            prop_assert_eq!(stats.network(), reference.total.network());
        }
        let drawn: u64 = report.histogram.buckets().map(|bucket| bucket.count).sum();
        prop_assert_eq!(drawn, report.total.durations().count());
    }
}

/// The numbers of the sample are those of a real host, but its lines are the program's.
#[test]
fn the_documented_sample_has_the_current_headers() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/handshakes.md");
    let page = std::fs::read_to_string(page).unwrap();
    let sample = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let drawn = table(&incident(), 10);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for begin in ["GROUP ", "ENDED ", "    FROM ", "         ╟ SYNs"] {
        let line = |text: &str| text.lines().find(|line| line.starts_with(begin)).map(str::to_owned);
        assert_eq!(line(sample), line(&drawn), "{begin}");
        assert!(line(sample).is_some(), "{begin}");
    }
    // The numbers of the refusing backend do not depend on the host.
    let refusing = |text: &str| words(text.lines().nth(2).unwrap())[2..].to_vec();
    let columns = |text: &str| refusing(text).len();
    assert_eq!(columns(sample), columns(&drawn));
    assert_eq!(refusing(sample)[3..], refusing(&drawn)[3..]);
}

#[test]
fn a_group_says_what_this_host_dropped() {
    let mut handshakes = Handshakes::new(by(HandshakesBy::Service));
    let to = end("10.0.1.9", 8080);
    for index in 0..6 {
        let drops = dropped(HandshakeSegment::Syn, 1 + index % 2);
        let attempt = failed(to, CloseReason::TimedOut, 3 * SECOND);
        handshakes.add(&HandshakeAttempt { drops, ..attempt }, None);
    }
    handshakes.add(&client(end("10.0.1.1", 8080), 200 * US), None);
    let report = handshakes.report();
    let counts = |position: usize| report.groups[position].stats.drops().iter().map(|drop| drop.count);
    assert_eq!(counts(0).collect::<Vec<_>>(), [9]);
    assert_eq!(counts(1).count(), 0);
    assert_eq!(report.total.drops().count(), 9);
    let text = table(&handshakes, 20);
    let why = "6 of 6 timed out; dropped here: 9 SYNs, netfilter_drop in nft_do_chain";
    assert!(text.starts_with(&format!("Worst offenders: 10.0.1.9:8080 ({why})\n")), "{text}");
    assert!(text.lines().nth(2).unwrap().ends_with(&format!("  {why}")), "{text}");
}

#[test]
fn a_server_that_drops_acks_stands_out_without_a_delay() {
    let mut handshakes = Handshakes::new(by(HandshakesBy::Service));
    for index in 0..20 {
        let drops = dropped(HandshakeSegment::Ack, u32::from(index == 0));
        handshakes.add(&HandshakeAttempt { drops, ..served(80, end("10.0.1.9", 40_000), 200 * US) }, None);
    }
    let text = table(&handshakes, 20);
    let why = "dropped here: 1 ACK, netfilter_drop in nft_do_chain";
    assert!(text.starts_with(&format!("Worst offenders: port 80 here ({why})\n")), "{text}");
}
