//! Evictions from a full table.

use tracer_core::event::{
    Event,
    TcpState::{CloseWait, Closed, Established, SynSent},
};
use tracer_core_testing::script::{ScriptedSocket, error, process, time, transition};

use crate::observed::{track, tracker};

/// A SYN_SENT of socket `number` to port `number`, at `number` microseconds.
fn begin(number: u16) -> Event {
    let socket =
        ScriptedSocket::client(u64::from(number)).step(u64::from(number), SynSent).by(process(1, "app"));
    Event::Transition(socket.with(|it| it.remote.port = number).transitions()[0])
}

#[test]
fn each_connection_over_the_limit_evicts_the_least_recently_active() {
    for max in 1..=8_u16 {
        let mut tracker = tracker(usize::from(max));
        for number in 1..=100 {
            let observed = track(&mut tracker, [&begin(number)]);
            assert_eq!(tracker.live(), usize::from(number.min(max)), "{max} {number}");
            assert_eq!(tracker.counts().evicted, u64::from(number.saturating_sub(max)));
            // The sample covers the whole table, so the eviction is exact.
            let evicted: Vec<_> = observed.evicted.iter().map(|it| it.remote.port).collect();
            assert_eq!(evicted, if number > max { vec![number - max] } else { vec![] });
        }
        let counts = tracker.counts();
        assert_eq!((counts.transitions, counts.closed, counts.unmatched, counts.gaps), (100, 0, 0, 0));
    }
}

#[test]
fn an_event_protects_a_connection_from_eviction() {
    for max in 2..=8_u16 {
        let mut tracker = tracker(usize::from(max));
        for number in 1..=max {
            track(&mut tracker, [&begin(number)]);
        }
        let event = transition(1, time(50), SynSent, Established);
        track(&mut tracker, [&Event::Transition(event)]);
        let observed = track(&mut tracker, [&begin(60)]);
        assert_eq!(observed.evicted[0].remote.port, 2, "{max}");
        assert!(tracker.connections().any(|(socket, _)| socket.0 == 1));
    }
}

#[test]
fn an_evicted_connection_returns_as_incomplete() {
    let mut tracker = tracker(1);
    let socket = ScriptedSocket::connected_client(1, process(1, "app"));
    track(&mut tracker, &socket.events());
    track(&mut tracker, [&begin(7)]);
    assert_eq!(tracker.counts().evicted, 1);
    let later = socket.step(500, CloseWait).step(600, Closed).flags(error(32)).events();
    let observed = track(&mut tracker, &later[2..]);
    assert!(observed.only_closed().connection.incomplete);
    assert_eq!(observed.only_closed().duration, None);
    let counts = tracker.counts();
    assert_eq!((counts.evicted, counts.unmatched, counts.closed), (2, 1, 1));
    assert_eq!(tracker.live(), 0);
}

#[test]
fn a_new_connection_on_the_same_socket_evicts_no_other() {
    let mut tracker = tracker(2);
    track(&mut tracker, [&begin(1), &begin(2)]);
    let observed = track(&mut tracker, [&begin(1)]);
    assert_eq!((observed.evicted.len(), observed.closed.len(), tracker.live()), (0, 1, 2));
    assert_eq!((tracker.counts().evicted, tracker.counts().unseen_closes), (0, 1));
}

#[test]
fn a_capacity_of_zero_is_raised_to_one() {
    let mut tracker = tracker(0);
    track(&mut tracker, [&begin(1), &begin(2)]);
    assert_eq!((tracker.live(), tracker.counts().evicted), (1, 1));
}

#[test]
fn listeners_do_not_use_the_connection_table() {
    let mut tracker = tracker(1);
    track(&mut tracker, [&begin(1)]);
    for socket in 100..200 {
        track(&mut tracker, &ScriptedSocket::listener(socket, 0, None).events());
    }
    assert_eq!((tracker.live(), tracker.counts().evicted), (1, 0));
}

/// A larger table samples a few entries. It evicts exactly one per insertion, and never the new one.
#[test]
fn a_table_larger_than_the_sample_keeps_its_capacity() {
    let mut tracker = tracker(100);
    for number in 1..=1000 {
        track(&mut tracker, [&begin(number)]);
        assert!(tracker.live() <= 100);
        assert!(tracker.connections().any(|(socket, _)| socket.0 == u64::from(number)));
    }
    assert_eq!((tracker.live(), tracker.counts().evicted), (100, 900));
}
