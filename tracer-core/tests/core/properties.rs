//! What holds for every sequence of events.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tracer_core::{
    event::{
        Event,
        TcpState::{Closed, Established, Listen, SynReceived},
        Transition,
    },
    lifecycle::Role,
};
use tracer_core_testing::{
    generated::{life, nonsense},
    script::{time, transition},
};

use crate::{
    observed::{Ended, feed, tracker},
    reference::Reference,
};

const SOCKETS: u64 = 4;

/// Cases are made anew each time, and a failure prints its smallest input: no file is left behind.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

/// Several lives at once, their events in the order of time, those of one socket in their own.
fn lives() -> impl Strategy<Value = Vec<Transition>> {
    (1..=SOCKETS).map(life).collect::<Vec<_>>().prop_map(|lives| {
        let mut events = lives.concat();
        events.sort_by_key(|event| event.time);
        events
    })
}

fn events(transitions: &[Transition]) -> Vec<Event> {
    transitions.iter().copied().map(Event::Transition).collect()
}

/// The states until the end, with what the kernel keeps afterwards taken off; a child's SYN_RECV of
/// unknown true length counts with the time it was in the table.
fn observed_ns(ended: &Ended) -> Option<u64> {
    let history = &ended.connection.history;
    let after = ended.after.map_or(0, |after| after.duration_ns);
    match ended.total_ns {
        Some(total) => Some(total - after),
        None if ended.connection.role == Role::Server
            && ended.connection.handshake?.duration_ns.is_none() =>
        {
            assert!(history.contains(SynReceived) && history.contains(Established), "{ended:#?}");
            history.spans(ended.closed).map(|span| span.duration_ns).sum()
        }
        None => None,
    }
}

/// A child that was never ESTABLISHED: made at the SYN, so that its SYN_RECV is a real one.
fn unfinished_fast_open(ended: &Ended) -> bool {
    ended.connection.role == Role::Server && !ended.connection.history.contains(Established)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_comes_is_counted_and_bounded(max in 1..=8_usize, transitions in nonsense()) {
        let mut tracker = tracker(max);
        let mut reference = Reference::new(max);
        for transition in &transitions {
            let observed = feed(&mut tracker, [&Event::Transition(*transition)]);
            reference.follow(transition, &tracker, &observed);
            reference.check(&tracker);
        }
    }

    #[test]
    fn a_valid_life_adds_up(transitions in lives()) {
        let mut tracker = tracker(1000);
        let observed = feed(&mut tracker, &events(&transitions));
        let counts = tracker.counts();
        prop_assert_eq!(observed.ended.len() as u64, SOCKETS);
        prop_assert_eq!((counts.gaps, counts.unmatched, counts.unseen_closes, counts.evicted), (0, 0, 0, 0));
        prop_assert_eq!(tracker.live(), 0);
        for ended in &observed.ended {
            prop_assert!(!ended.connection.gap && !ended.connection.incomplete);
            prop_assert!(ended.connection.role != Role::Unknown);
            if !unfinished_fast_open(ended) {
                prop_assert_eq!(observed_ns(ended), ended.duration_ns, "{:#?}", ended);
            }
        }
    }

    #[test]
    fn a_fast_open_never_finished_adds_up(transitions in lives()) {
        for ended in &feed(&mut tracker(1000), &events(&transitions)).ended {
            if unfinished_fast_open(ended) {
                prop_assert_eq!(observed_ns(ended), ended.duration_ns, "{:#?}", ended);
            }
        }
    }

    #[test]
    fn a_replay_is_the_same(max in 1..=8_usize, transitions in nonsense()) {
        // The extreme ends of the clock are the business of the first property.
        let transitions: Vec<_> = transitions.into_iter().filter(|it| it.time.0 < 1 << 62).collect();
        let (mut first, mut second) = (tracker(max), tracker(max));
        let events = events(&transitions);
        prop_assert_eq!(
            format!("{:?}", feed(&mut first, &events)),
            format!("{:?}", feed(&mut second, &events))
        );
        prop_assert_eq!(first.counts(), second.counts());
    }

    /// Every socket lives twice, so that also a missed end shows.
    #[test]
    fn a_missed_event_marks_its_connection_and_no_other(
        first in lives(),
        second in lives(),
        which: prop::sample::Index,
    ) {
        let mut transitions = first;
        let later = transitions.last().map_or(0, |last| last.time.0);
        transitions.extend(second.into_iter().map(|mut it| {
            it.time.0 += later;
            it
        }));
        // What repeats a state changes nothing, and neither does missing it; after the last event of a
        // socket nothing comes that could tell.
        let mut seen = BTreeSet::new();
        let last: BTreeSet<usize> =
            (0..transitions.len()).rev().filter(|&index| seen.insert(transitions[index].socket)).collect();
        let choices: Vec<usize> = (0..transitions.len())
            .filter(|index| transitions[*index].from != transitions[*index].to && !last.contains(index))
            .collect();
        let missed = transitions.remove(choices[which.index(choices.len())]);

        let mut tracker = tracker(1000);
        let mut marked = Vec::new();
        let mut ended = 0;
        for transition in &transitions {
            let observed = feed(&mut tracker, [&Event::Transition(*transition)]);
            for it in &observed.ended {
                ended += 1;
                if it.connection.gap || it.connection.incomplete {
                    marked.push((transition.socket, it.clone()));
                }
            }
        }
        let counts = tracker.counts();
        prop_assert_eq!(counts.gaps + counts.unmatched + counts.unseen_closes, 1, "{:?}", missed);
        prop_assert_eq!(tracker.live(), 0);
        // A life that was nothing but its beginning and its end leaves its end alone.
        prop_assert_eq!(ended, 2 * SOCKETS);
        prop_assert_eq!(marked.len(), 1);
        let (socket, connection) = &marked[0];
        prop_assert_eq!(*socket, missed.socket);
        let begins = matches!(missed.from, Closed | Listen);
        prop_assert_eq!(connection.connection.incomplete, begins);
        prop_assert_eq!(connection.connection.gap, !begins);
        prop_assert_eq!(connection.opened.is_none(), begins);
    }
}

/// The reference itself, on the smallest case.
#[test]
fn the_reference_agrees_on_a_table_of_one() {
    let mut tracker = tracker(1);
    let mut reference = Reference::new(1);
    for socket in 1..=3 {
        let begin = transition(socket, time(socket), Listen, SynReceived);
        let observed = feed(&mut tracker, [&Event::Transition(begin)]);
        reference.follow(&begin, &tracker, &observed);
        reference.check(&tracker);
    }
    assert_eq!((reference.begun, reference.evicted), (3, 2));
}
