//! Properties of every sequence of events.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tracer_core::{
    event::{
        Event, Nanos,
        TcpState::{Closed, Established, Listen, SynReceived},
        Transition,
    },
    lifecycle::Role,
};
use tracer_core_testing::{
    generated::{arbitrary_transitions, lifecycle},
    script::{time, transition},
};

use crate::{
    observed::{ClosedRecord, track, tracker},
    reference::Reference,
};

const SOCKETS: u64 = 4;

/// Writes no regression files: every run generates new cases, and a failure prints its smallest input.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

/// Generates interleaved lifecycles on several sockets, sorted by time.
fn lifecycles() -> impl Strategy<Value = Vec<Transition>> {
    (1..=SOCKETS).map(lifecycle).collect::<Vec<_>>().prop_map(|lifecycles| {
        let mut events = lifecycles.concat();
        events.sort_by_key(|event| event.time);
        events
    })
}

fn events(transitions: &[Transition]) -> Vec<Event> {
    transitions.iter().copied().map(Event::Transition).collect()
}

/// Returns the sum of the states up to the close, without the state after it. A child's SYN_RECV of unknown duration
/// counts with the time its socket spent in the state.
fn summed(closed: &ClosedRecord) -> Option<Nanos> {
    let history = &closed.connection.history;
    let after = closed.after.map_or(Nanos::ZERO, |after| after.duration);
    match closed.total {
        Some(total) => Some(total.saturating_sub(after)),
        None if closed.connection.role == Role::Server && closed.connection.handshake?.duration.is_none() => {
            assert!(history.contains(SynReceived) && history.contains(Established), "{closed:#?}");
            history
                .spans(closed.closed)
                .try_fold(Nanos::ZERO, |sum, span| Some(sum.saturating_add(span.duration?)))
        }
        None => None,
    }
}

/// Returns whether the connection is a child that never became ESTABLISHED: a Fast Open child.
fn unfinished_fast_open(closed: &ClosedRecord) -> bool {
    closed.connection.role == Role::Server && !closed.connection.history.contains(Established)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_transitions_are_counted_and_the_table_is_bounded(max in 1..=8_usize, transitions in arbitrary_transitions()) {
        let mut tracker = tracker(max);
        let mut reference = Reference::new(max);
        for transition in &transitions {
            let observed = track(&mut tracker, [&Event::Transition(*transition)]);
            reference.observe(transition, &tracker, &observed);
            reference.check(&tracker);
        }
    }

    #[test]
    fn the_states_of_a_valid_lifecycle_add_up(transitions in lifecycles()) {
        let mut tracker = tracker(1000);
        let observed = track(&mut tracker, &events(&transitions));
        let counts = tracker.counts();
        prop_assert_eq!(observed.closed.len() as u64, SOCKETS);
        prop_assert_eq!((counts.gaps, counts.unmatched, counts.unseen_closes, counts.evicted), (0, 0, 0, 0));
        prop_assert_eq!(tracker.live(), 0);
        for closed in &observed.closed {
            prop_assert!(!closed.connection.gap && !closed.connection.incomplete);
            prop_assert!(closed.connection.role != Role::Unknown);
            if !unfinished_fast_open(closed) {
                prop_assert_eq!(summed(closed), closed.duration, "{:#?}", closed);
            }
        }
    }

    #[test]
    fn the_states_of_an_unfinished_fast_open_add_up(transitions in lifecycles()) {
        for closed in &track(&mut tracker(1000), &events(&transitions)).closed {
            if unfinished_fast_open(closed) {
                prop_assert_eq!(summed(closed), closed.duration, "{:#?}", closed);
            }
        }
    }

    #[test]
    fn a_replay_gives_the_same_observations(max in 1..=8_usize, transitions in arbitrary_transitions()) {
        // The first property covers extreme timestamps.
        let transitions: Vec<_> = transitions.into_iter().filter(|it| it.time.0 < 1 << 62).collect();
        let (mut first, mut second) = (tracker(max), tracker(max));
        let events = events(&transitions);
        prop_assert_eq!(
            format!("{:?}", track(&mut first, &events)),
            format!("{:?}", track(&mut second, &events))
        );
        prop_assert_eq!(first.counts(), second.counts());
    }

    /// Every socket has two connections, so that a missed close is noticed.
    #[test]
    fn a_missed_event_marks_its_connection_and_no_other(
        first in lifecycles(),
        second in lifecycles(),
        which: prop::sample::Index,
    ) {
        let mut transitions = first;
        let later = transitions.last().map_or(0, |last| last.time.0);
        transitions.extend(second.into_iter().map(|mut it| {
            it.time.0 += later;
            it
        }));
        // Only these misses are detectable: a repeated state changes nothing, and no event follows the last one of a
        // socket.
        let mut seen = BTreeSet::new();
        let last: BTreeSet<usize> =
            (0..transitions.len()).rev().filter(|&index| seen.insert(transitions[index].socket)).collect();
        let choices: Vec<usize> = (0..transitions.len())
            .filter(|index| transitions[*index].from != transitions[*index].to && !last.contains(index))
            .collect();
        let missed = transitions.remove(choices[which.index(choices.len())]);

        let mut tracker = tracker(1000);
        let mut marked = Vec::new();
        let mut closed = 0;
        for transition in &transitions {
            let observed = track(&mut tracker, [&Event::Transition(*transition)]);
            for it in &observed.closed {
                closed += 1;
                if it.connection.gap || it.connection.incomplete {
                    marked.push((transition.socket, it.clone()));
                }
            }
        }
        let counts = tracker.counts();
        prop_assert_eq!(counts.gaps + counts.unmatched + counts.unseen_closes, 1, "{:?}", missed);
        prop_assert_eq!(tracker.live(), 0);
        // A lifecycle of two events still closes when its start is missed.
        prop_assert_eq!(closed, 2 * SOCKETS);
        prop_assert_eq!(marked.len(), 1);
        let (socket, connection) = &marked[0];
        prop_assert_eq!(*socket, missed.socket);
        let begins = matches!(missed.from, Closed | Listen);
        prop_assert_eq!(connection.connection.incomplete, begins);
        prop_assert_eq!(connection.connection.gap, !begins);
        prop_assert_eq!(connection.opened.is_none(), begins);
    }
}

/// Checks the reference on the smallest case.
#[test]
fn the_reference_model_agrees_for_a_table_of_one() {
    let mut tracker = tracker(1);
    let mut reference = Reference::new(1);
    for socket in 1..=3 {
        let begin = transition(socket, time(socket), Listen, SynReceived);
        let observed = track(&mut tracker, [&Event::Transition(begin)]);
        reference.observe(&begin, &tracker, &observed);
        reference.check(&tracker);
    }
    assert_eq!((reference.started, reference.evicted), (3, 2));
}
