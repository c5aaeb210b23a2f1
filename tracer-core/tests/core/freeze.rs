//! When the conditions of a flight recorder trigger.

use proptest::prelude::*;
use tracer_core::{
    analysis::{FreezeCondition, FreezeCount, FreezeMeasure, FreezeTrigger, FreezeTriggerOptions, Measured},
    event::{Nanos, SourceCounts, TcpState},
    lifecycle::{Thresholds, Tracker, TrackerOptions},
};
use tracer_core_testing::script::{SECOND, ScriptedSocket, error, time};

const LOSSES: FreezeMeasure = FreezeMeasure::Count(FreezeCount::LostEvents);

fn condition(measure: FreezeMeasure, limit: u64) -> FreezeCondition {
    FreezeCondition { measure, limit, text: format!("{measure:?}>{limit}") }
}

/// A trigger with a window of 10 s and a pause of a minute. Times are in microseconds.
struct Harness {
    trigger: FreezeTrigger,
    tracker: Tracker,
    lost: u64,
}

impl Harness {
    fn new(conditions: Vec<FreezeCondition>) -> Self {
        let options = FreezeTriggerOptions {
            conditions,
            window: Nanos::from_secs(10),
            pause: Nanos::from_secs(60),
            thresholds: Thresholds::default(),
        };
        let mut new = Self {
            trigger: FreezeTrigger::new(options),
            tracker: Tracker::new(TrackerOptions::default()),
            lost: 0,
        };
        assert_eq!(new.at(0), None);
        new
    }

    fn at(&mut self, us: u64) -> Option<Measured> {
        let source = SourceCounts { lost: self.lost, ..SourceCounts::ZERO };
        self.trigger.advance(&self.tracker, &source, time(us), true).map(|reason| reason.measured)
    }

    fn lose(&mut self, events: u64, us: u64) -> Option<Measured> {
        self.lost += events;
        self.at(us)
    }

    fn take(&mut self, socket: &ScriptedSocket) {
        let Self { trigger, tracker, .. } = self;
        for event in socket.events() {
            tracker.observe(&event, &mut |observation| trigger.observe(&observation));
        }
    }
}

/// Returns a client with a port of its own that sends its SYN after a second, and its further steps.
fn client(port: u16, steps: &[(u64, TcpState)]) -> ScriptedSocket {
    let mut socket = ScriptedSocket::client(port.into()).step(SECOND, TcpState::SynSent);
    for (us, state) in steps {
        socket = socket.step(*us, *state);
    }
    socket.with_all(|transition| {
        if transition.local.port != 0 {
            transition.local.port = port;
        }
    })
}

#[test]
fn a_lasting_condition_triggers_once() {
    let mut harness = Harness::new(vec![condition(LOSSES, 9)]);
    assert_eq!(harness.lose(9, SECOND), None, "not above the limit");
    assert_eq!(harness.lose(1, 2 * SECOND), Some(Measured::Count(10)));
    for second in 3..600 {
        assert_eq!(harness.lose(20, second * SECOND), None, "{second}");
    }
}

#[test]
fn a_condition_is_armed_again_after_a_calm_window_and_the_pause() {
    let mut harness = Harness::new(vec![condition(LOSSES, 0)]);
    assert!(harness.lose(1, SECOND).is_some());
    // It holds for a window, and is calm for another.
    for second in 2..30 {
        assert_eq!(harness.at(second * SECOND), None, "{second}");
    }
    assert_eq!(harness.lose(1, 30 * SECOND), None, "the pause lasts");
    for second in 31..55 {
        assert_eq!(harness.at(second * SECOND), None, "{second}");
    }
    assert_eq!(harness.lose(1, 55 * SECOND), None, "still the pause");
    assert_eq!(harness.at(61 * SECOND), Some(Measured::Count(1)), "it still holds after the pause");
    // A calm that is shorter than the window does not arm it.
    for second in 62..75 {
        assert_eq!(harness.at(second * SECOND), None, "{second}");
    }
    for second in 75..200 {
        assert_eq!(harness.lose(1, second * SECOND), None, "{second}");
    }
    // A calm window does.
    for second in 200..225 {
        assert_eq!(harness.at(second * SECOND), None, "{second}");
    }
    assert_eq!(harness.lose(3, 225 * SECOND), Some(Measured::Count(3)));
}

#[test]
fn nothing_triggers_while_a_file_is_written() {
    let Harness { mut trigger, tracker, .. } = Harness::new(vec![condition(LOSSES, 0)]);
    let lost = SourceCounts { lost: 1, ..SourceCounts::ZERO };
    assert_eq!(trigger.advance(&tracker, &lost, time(SECOND), false), None);
    let reason = trigger.advance(&tracker, &lost, time(2 * SECOND), true).unwrap();
    assert_eq!((reason.condition, reason.measured), (condition(LOSSES, 0), Measured::Count(1)));
}

#[test]
fn one_trigger_is_for_all_conditions_that_hold() {
    let mut harness = Harness::new(vec![condition(LOSSES, 0), condition(LOSSES, 1)]);
    assert_eq!(harness.lose(2, SECOND), Some(Measured::Count(2)));
    for second in 2..300 {
        assert_eq!(harness.lose(2, second * SECOND), None, "{second}");
    }
}

#[test]
fn slow_handshakes_trigger_and_the_value_has_their_number() {
    let mut harness = Harness::new(vec![condition(FreezeMeasure::HandshakePercentile(99), 1_000_000_000)]);
    for port in 1..=30 {
        harness.take(&client(port, &[(4 * SECOND, TcpState::Established)]));
    }
    let Some(Measured::Duration { value, handshakes: 30 }) = harness.at(4 * SECOND) else { panic!() };
    assert!(value.as_millis().abs_diff(3_000) <= 30, "{value:?}");
}

#[test]
fn failures_resets_and_timeouts_are_told_apart() {
    for (count, number) in [
        (FreezeCount::HandshakeFailures, 2),
        (FreezeCount::Failures, 3),
        (FreezeCount::Resets, 1),
        (FreezeCount::Timeouts, 1),
    ] {
        let mut harness = Harness::new(vec![condition(FreezeMeasure::Count(count), 0)]);
        // Refused, timed out, and reset once it was established (ECONNREFUSED, ETIMEDOUT, ECONNRESET).
        harness.take(&client(1, &[(2 * SECOND, TcpState::Closed)]).flags(error(111)));
        harness.take(&client(2, &[(3 * SECOND, TcpState::Closed)]).flags(error(110)));
        let reset = client(3, &[(3 * SECOND, TcpState::Established), (4 * SECOND, TcpState::Closed)]);
        harness.take(&reset.flags(error(104)));
        assert_eq!(harness.at(4 * SECOND), Some(Measured::Count(number)), "{count:?}");
    }
}

#[test]
fn stuck_connections_trigger_by_their_number() {
    let mut harness = Harness::new(vec![condition(FreezeMeasure::Stuck, 1)]);
    for (port, second) in [(1, 3), (2, 5)] {
        let steps = [(2 * SECOND, TcpState::Established), (second * SECOND, TcpState::CloseWait)];
        harness.take(&client(port, &steps));
    }
    assert_eq!(harness.at(63 * SECOND), None, "one is stuck");
    assert_eq!(harness.at(65 * SECOND), Some(Measured::Count(2)));
}

proptest! {
    /// Whatever happens, triggers are at least the pause apart.
    #[test]
    fn triggers_keep_the_pause(steps in proptest::collection::vec((1_u64..5 * SECOND, 0_u64..3), 1..300)) {
        let mut harness = Harness::new(vec![condition(LOSSES, 0), condition(LOSSES, 4)]);
        let (mut now, mut last): (u64, Option<u64>) = (0, None);
        for (step, lost) in steps {
            now += step;
            if harness.lose(lost, now).is_some() {
                prop_assert!(last.is_none_or(|last| now - last >= 60 * SECOND), "{last:?} and {now}");
                last = Some(now);
            }
        }
    }
}
