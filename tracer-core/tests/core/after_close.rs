//! What the kernel keeps after the end: TIME_WAIT, or FIN_WAIT2 whose application has left.

use tracer_core::{
    event::{
        Event,
        TcpState::{Closed, FinWait2, TimeWait},
        Timestamp,
    },
    lifecycle::{
        AfterClose, ClosedBy,
        DurationSource::{Modelled, Observed},
        TimeWaitModel, Tracker, TrackerOptions,
    },
};
use tracer_core_testing::script::{Life, SECOND, fins, process, shut, transition};

use crate::observed::{feed, run};

fn in_fin_wait_2(socket: u64) -> Life {
    Life::client_in(socket, process(1, "app"), FinWait2)
}

#[test]
fn both_fins_make_a_time_wait_of_a_minute() {
    let observed = run(&in_fin_wait_2(1).step(1000, Closed).flags(fins()).events());
    let ended = observed.only();
    let minute = AfterClose { state: TimeWait, duration_ns: 60_000_000_000, source: Modelled };
    assert_eq!(ended.after, Some(minute));
    assert_eq!(ended.states[3..], [(FinWait2, Some(100), Observed), (TimeWait, Some(60 * SECOND), Modelled)]);
    // The application is done: what comes after does not count.
    assert_eq!(ended.duration_us(), Some(1000));
}

#[test]
fn an_orphaned_fin_wait_2_lasts_for_the_fin_timeout() {
    let mut tracker = Tracker::new(TrackerOptions {
        time_wait: TimeWaitModel { fin_timeout_ns: 2_000_000_000 },
        ..TrackerOptions::default()
    });
    let observed = feed(&mut tracker, &in_fin_wait_2(1).step(1000, Closed).flags(shut()).events());
    let ended = observed.only();
    let rest = AfterClose { state: FinWait2, duration_ns: 2_000_000_000, source: Modelled };
    assert_eq!(ended.after, Some(rest));
    // One state: first with a socket, then without.
    assert_eq!(ended.states.len(), 4);
    assert_eq!(ended.states[3], (FinWait2, Some(100 + 2 * SECOND), Modelled));
    assert_eq!((ended.duration_us(), ended.close_cause.closed_by), (Some(1000), Some(ClosedBy::Local)));
}

#[test]
fn which_of_the_two_is_not_guessed() {
    let observed = run(&in_fin_wait_2(1).step(1000, Closed).events());
    let ended = observed.only();
    assert_eq!(ended.after, None);
    assert_eq!(ended.states[3..], [(FinWait2, Some(100), Observed)]);
}

/// A state's duration is none when its beginning was not seen, also when its end is modelled.
#[test]
fn an_orphaned_fin_wait_2_of_unknown_beginning_has_no_known_duration() {
    let observed = run(&Life::existing(1, FinWait2).step(1000, Closed).flags(shut()).events());
    let ended = observed.only();
    assert!(ended.connection.incomplete);
    assert_eq!(
        ended.states.iter().map(|&(state, duration, _)| (state, duration)).collect::<Vec<_>>(),
        [(FinWait2, None)]
    );
}

/// Only a damaged recording has such times, and it must not end the program.
#[test]
fn a_fin_wait_2_as_long_as_the_clock_goes() {
    let mut end = transition(1, Timestamp(u64::MAX - 1), FinWait2, Closed);
    end.flags = Some(shut());
    let mut events = in_fin_wait_2(1).events();
    events.truncate(3);
    let entered = transition(1, Timestamp(0), tracer_core::event::TcpState::FinWait1, FinWait2);
    events.extend([Event::Transition(entered), Event::Transition(end)]);
    let observed = run(&events);
    assert_eq!(observed.only().states.len(), 4);
}
