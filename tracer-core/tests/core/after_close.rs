//! The state after the close: TIME_WAIT or an orphaned FIN_WAIT2.

use tracer_core::{
    event::{
        Event, Nanos,
        TcpState::{Closed, FinWait2, TimeWait},
        Timestamp,
    },
    lifecycle::{
        AfterClose, ClosedBy,
        DurationSource::{Modelled, Observed},
        TimeWaitModel, Tracker, TrackerOptions,
    },
};
use tracer_core_testing::script::{SECOND, ScriptedSocket, fins, process, shut, transition};

use crate::observed::{run, track};

fn in_fin_wait_2(socket: u64) -> ScriptedSocket {
    ScriptedSocket::client_in(socket, process(1, "app"), FinWait2)
}

#[test]
fn time_wait_lasts_60_seconds_after_both_fins() {
    let observed = run(&in_fin_wait_2(1).step(1000, Closed).flags(fins()).events());
    let closed = observed.only_closed();
    let minute = AfterClose { state: TimeWait, duration: Nanos::from_secs(60), source: Modelled };
    assert_eq!(closed.after, Some(minute));
    assert_eq!(
        closed.states[3..],
        [(FinWait2, Some(100), Observed), (TimeWait, Some(60 * SECOND), Modelled)]
    );
    // The duration of the connection excludes the states after the close.
    assert_eq!(closed.duration_us(), Some(1000));
}

#[test]
fn an_orphaned_fin_wait_2_lasts_for_the_fin_timeout() {
    let mut tracker = Tracker::new(TrackerOptions {
        time_wait: TimeWaitModel { fin_timeout: Nanos::from_secs(2) },
        ..TrackerOptions::default()
    });
    let observed = track(&mut tracker, &in_fin_wait_2(1).step(1000, Closed).flags(shut()).events());
    let closed = observed.only_closed();
    let fin_wait = AfterClose { state: FinWait2, duration: Nanos::from_secs(2), source: Modelled };
    assert_eq!(closed.after, Some(fin_wait));
    // FIN_WAIT2 before and after the close is one span.
    assert_eq!(closed.states.len(), 4);
    assert_eq!(closed.states[3], (FinWait2, Some(100 + 2 * SECOND), Modelled));
    assert_eq!((closed.duration_us(), closed.close_cause.closed_by), (Some(1000), Some(ClosedBy::Local)));
}

#[test]
fn without_socket_flags_the_state_after_the_close_is_unknown() {
    let observed = run(&in_fin_wait_2(1).step(1000, Closed).events());
    let closed = observed.only_closed();
    assert_eq!(closed.after, None);
    assert_eq!(closed.states[3..], [(FinWait2, Some(100), Observed)]);
}

/// A state whose start was not seen has no duration, even if its end is modelled.
#[test]
fn an_orphaned_fin_wait_2_with_an_unseen_start_has_no_duration() {
    let observed = run(&ScriptedSocket::existing(1, FinWait2).step(1000, Closed).flags(shut()).events());
    let closed = observed.only_closed();
    assert!(closed.connection.incomplete);
    assert_eq!(
        closed.states.iter().map(|&(state, duration, _)| (state, duration)).collect::<Vec<_>>(),
        [(FinWait2, None)]
    );
}

/// Only a damaged recording has such times. The tracker must not panic.
#[test]
fn the_longest_possible_fin_wait_2_does_not_overflow() {
    let mut end = transition(1, Timestamp(u64::MAX - 1), FinWait2, Closed);
    end.flags = Some(shut());
    let mut events = in_fin_wait_2(1).events();
    events.truncate(3);
    let entered = transition(1, Timestamp(0), tracer_core::event::TcpState::FinWait1, FinWait2);
    events.extend([Event::Transition(entered), Event::Transition(end)]);
    let observed = run(&events);
    assert_eq!(observed.only_closed().states.len(), 4);
}
