//! Comparisons of two periods: what is claimed, and what is not.

use tracer_core::{
    analysis::{
        ComparePeriod, CompareReport, GroupKey, HandshakeAttempt, HandshakeOutcome, HandshakesBy, Measure,
        Verdict,
    },
    event::{Endpoint, Nanos, Timestamp},
    lifecycle::{CloseReason, DurationSource, Role, SegmentDrops},
};

const SECOND: u64 = 1_000_000_000;

/// A generator of random numbers with a fixed seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn server(port: u16) -> Endpoint {
    Endpoint { address: "192.0.2.1".parse().expect("an address"), port }
}

fn attempt(port: u16, at: u64, duration: u64, resent: bool) -> HandshakeAttempt {
    HandshakeAttempt {
        ended: Timestamp(at),
        role: Role::Client,
        local: Endpoint { address: "10.0.0.1".parse().expect("an address"), port: 40_000 },
        remote: server(port),
        process: None,
        thread: None,
        netns: None,
        cgroup_id: None,
        outcome: HandshakeOutcome::Established,
        duration: Some(Nanos(duration)),
        source: DurationSource::Observed,
        caveat: None,
        rtt: None,
        retransmits: Some(u8::from(resent)),
        lost: Some(resent),
        error: None,
        drops: SegmentDrops::NONE,
        unserved: false,
        entered: None,
        sequences: None,
        half_open: None,
        backend: None,
    }
}

fn failed(port: u16, at: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        outcome: HandshakeOutcome::Failed(CloseReason::TimedOut),
        ..attempt(port, at, SECOND, false)
    }
}

/// Returns a period in which each port has `count` handshakes of 1 to 2 ms; of those of `lossy`, 2 % resent a SYN.
fn period(random: &mut Random, ports: &[u16], lossy: Option<u16>, count: u64) -> ComparePeriod {
    let mut period = ComparePeriod::new(HandshakesBy::Service);
    for at in 0..count {
        for &port in ports {
            let resent = lossy == Some(port) && random.below(50) == 0;
            let duration = 1_000_000 + random.below(1_000_000) + u64::from(resent) * SECOND;
            period.add_handshake(&attempt(port, at * SECOND / 10, duration, resent), None);
        }
    }
    period
}

fn verdict(report: &CompareReport<'_>, port: u16, measure: Measure) -> Verdict {
    let key = GroupKey::Service(server(port));
    let group = report.groups.iter().find(|group| *group.key == key).expect("the group is compared");
    group.shifts.iter().find(|shift| shift.measure == measure).expect("the measure is tested").verdict
}

#[test]
fn a_loss_is_found_in_its_group_only_and_its_removal_too() {
    let mut random = Random(1);
    let ports = [80, 443, 5_432];
    let before = period(&mut random, &ports, None, 1_000);
    let after = period(&mut random, &ports, Some(443), 1_000);
    let report = CompareReport::new(&before, &after);
    assert_eq!(*report.groups[0].key, GroupKey::Service(server(443)));
    assert_eq!(verdict(&report, 443, Measure::HandshakeLoss), Verdict::Worse);
    assert_eq!(verdict(&report, 443, Measure::HandshakeP99), Verdict::Worse);
    assert_eq!(verdict(&report, 443, Measure::HandshakeP50), Verdict::NotProven);
    assert!(report.groups[0].cost > 0.0);
    let claims = report.groups[1..].iter().flat_map(|group| &group.shifts).filter(|it| it.verdict.is_claim());
    assert_eq!(claims.count(), 0);
    let report = CompareReport::new(&after, &before);
    assert_eq!(*report.groups[0].key, GroupKey::Service(server(443)));
    assert_eq!(verdict(&report, 443, Measure::HandshakeLoss), Verdict::Better);
    assert!(report.groups[0].cost < 0.0);
}

#[test]
fn the_same_traffic_gives_no_claim_more_often_than_promised() {
    let mut random = Random(2);
    let mut false_claims = 0;
    for _ in 0..200 {
        let ports = [80, 443, 5_432];
        // Both periods have the same loss.
        let before = period(&mut random, &ports, Some(80), 200);
        let after = period(&mut random, &ports, Some(80), 200);
        let report = CompareReport::new(&before, &after);
        let claims = report.groups.iter().flat_map(|group| &group.shifts).filter(|it| it.verdict.is_claim());
        false_claims += u32::from(claims.count() > 0);
    }
    // 1 % of 200 are 2; more than 6 have a probability below 0.5 %.
    assert!(false_claims <= 6, "{false_claims} of 200 comparisons");
}

#[test]
fn few_handshakes_prove_nothing_and_ten_failures_do() {
    let compare = |count: u64| {
        let mut before = ComparePeriod::new(HandshakesBy::Service);
        let mut after = ComparePeriod::new(HandshakesBy::Service);
        for at in 0..count {
            before.add_handshake(&attempt(80, at * SECOND, 1_000_000, false), None);
            after.add_handshake(&failed(80, at * SECOND), None);
        }
        verdict(&CompareReport::new(&before, &after), 80, Measure::HandshakeFailures)
    };
    assert_eq!(compare(3), Verdict::TooFew);
    assert_eq!(compare(10), Verdict::Worse);
}

#[test]
fn a_slower_median_is_claimed_and_a_small_shift_is_not() {
    let compare = |extra: u64| {
        let mut random = Random(3);
        let mut periods = [0, extra].map(|extra| {
            let mut period = ComparePeriod::new(HandshakesBy::None);
            for at in 0..500 {
                let duration = 1_000_000 + random.below(100_000) + extra;
                period.add_handshake(&attempt(80, at * SECOND, duration, false), None);
            }
            period
        });
        let [before, after] = &mut periods;
        let report = CompareReport::new(before, after);
        let shift = report.groups[0].shifts.iter().find(|it| it.measure == Measure::HandshakeP50).unwrap();
        (shift.verdict, shift.adjusted_p_value < 1e-6)
    };
    assert_eq!(compare(1_000_000), (Verdict::Worse, true));
    // Significant, but 15 % are below the limit of 20 %.
    assert_eq!(compare(150_000), (Verdict::NotProven, true));
    assert_eq!(compare(0), (Verdict::NotProven, false));
}

#[test]
fn groups_of_one_period_are_counted() {
    let mut random = Random(4);
    let before = period(&mut random, &[80, 443], None, 10);
    let after = period(&mut random, &[80, 1, 2], None, 10);
    let report = CompareReport::new(&before, &after);
    assert_eq!((report.groups.len(), report.only_before, report.only_after), (1, 1, 2));
    assert_eq!(report.groups[0].handshakes, (10, 10));
}
