//! The rows of whatever the core reports are the JSON that `serde_json` makes of them.

use proptest::prelude::*;
use tcptrace_bpf::report::{ConnectionRow, Format, Row, Sink, TimeStyle, TransitionRow};
use tracer_core::{
    event::{ClockOffset, Event},
    lifecycle::{Observation, Tracker, TrackerOptions},
};
use tracer_core_testing::generated::{life, nonsense};

/// The rows as they are written, and as `serde_json` writes them.
#[derive(Default)]
struct Both {
    written: Vec<u8>,
    known: String,
}

impl Both {
    fn take<R: Row>(&mut self, row: &R) {
        Sink::new(&mut self.written, Format::Json, TimeStyle::Utc).write(row).expect("a vector takes all");
        self.known.push_str(&serde_json::to_string(row).expect("it is a row"));
        self.known.push('\n');
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_what_serde_json_makes_of_them(
        transitions in prop_oneof![nonsense(), life(1)],
        to_utc_ns in prop_oneof![Just(1_795_000_000_000_000_000), any::<i64>()],
    ) {
        let clock = ClockOffset { to_utc_ns: i128::from(to_utc_ns) };
        let mut tracker = Tracker::new(TrackerOptions::default());
        let mut both = Both::default();
        let count = transitions.len();
        for transition in transitions {
            tracker.observe(&Event::Transition(transition), &mut |observation| match observation {
                Observation::Transition { transition, connection, duration_ns } => {
                    both.take(&TransitionRow::new(transition, connection, duration_ns, clock));
                }
                Observation::Closed(closed) => both.take(&ConnectionRow::new(&closed, None, clock)),
                _ => {}
            });
        }
        prop_assert!(both.known.lines().count() >= count);
        prop_assert_eq!(String::from_utf8_lossy(&both.written), both.known);
    }
}
