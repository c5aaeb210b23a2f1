//! A full table: what is forgotten, and that it is counted.

use tracer_core::event::{
    Event,
    TcpState::{CloseWait, Closed, Established, SynSent},
};
use tracer_core_testing::script::{Life, error, process, time, transition};

use crate::observed::{feed, tracker};

/// A SYN_SENT of socket `number` at `number` microseconds, to a port that tells it apart.
fn begin(number: u16) -> Event {
    let life = Life::client(u64::from(number)).step(u64::from(number), SynSent).by(process(1, "app"));
    Event::Transition(life.with(|it| it.remote.port = number).transitions()[0])
}

#[test]
fn every_connection_too_many_forgets_one() {
    for max in 1..=8_u16 {
        let mut tracker = tracker(usize::from(max));
        for number in 1..=100 {
            let observed = feed(&mut tracker, [&begin(number)]);
            assert_eq!(tracker.live(), usize::from(number.min(max)), "{max} {number}");
            assert_eq!(tracker.counts().evicted, u64::from(number.saturating_sub(max)));
            // So few are all looked at: it is the most silent one.
            let evicted: Vec<_> = observed.evicted.iter().map(|it| it.remote.port).collect();
            assert_eq!(evicted, if number > max { vec![number - max] } else { vec![] });
        }
        let counts = tracker.counts();
        assert_eq!((counts.transitions, counts.closed, counts.unmatched, counts.gaps), (100, 0, 0, 0));
    }
}

#[test]
fn an_event_saves_from_being_forgotten() {
    for max in 2..=8_u16 {
        let mut tracker = tracker(usize::from(max));
        for number in 1..=max {
            feed(&mut tracker, [&begin(number)]);
        }
        let heard = transition(1, time(50), SynSent, Established);
        feed(&mut tracker, [&Event::Transition(heard)]);
        let observed = feed(&mut tracker, [&begin(60)]);
        assert_eq!(observed.evicted[0].remote.port, 2, "{max}");
        assert!(tracker.connections().any(|(socket, _)| socket.0 == 1));
    }
}

#[test]
fn what_was_forgotten_comes_back_incomplete() {
    let mut tracker = tracker(1);
    let life = Life::connected_client(1, process(1, "app"));
    feed(&mut tracker, &life.events());
    feed(&mut tracker, [&begin(7)]);
    assert_eq!(tracker.counts().evicted, 1);
    let later = life.step(500, CloseWait).step(600, Closed).flags(error(32)).events();
    let observed = feed(&mut tracker, &later[2..]);
    assert!(observed.only().connection.incomplete);
    assert_eq!(observed.only().duration_ns, None);
    let counts = tracker.counts();
    assert_eq!((counts.evicted, counts.unmatched, counts.closed), (2, 1, 1));
    assert_eq!(tracker.live(), 0);
}

#[test]
fn a_new_life_on_the_same_socket_forgets_nobody_else() {
    let mut tracker = tracker(2);
    feed(&mut tracker, [&begin(1), &begin(2)]);
    let observed = feed(&mut tracker, [&begin(1)]);
    assert_eq!((observed.evicted.len(), observed.ended.len(), tracker.live()), (0, 1, 2));
    assert_eq!((tracker.counts().evicted, tracker.counts().unseen_closes), (0, 1));
}

#[test]
fn a_limit_of_none_is_one() {
    let mut tracker = tracker(0);
    feed(&mut tracker, [&begin(1), &begin(2)]);
    assert_eq!((tracker.live(), tracker.counts().evicted), (1, 1));
}

#[test]
fn listeners_take_no_room() {
    let mut tracker = tracker(1);
    feed(&mut tracker, [&begin(1)]);
    for socket in 100..200 {
        feed(&mut tracker, &Life::listener(socket, 0, None).events());
    }
    assert_eq!((tracker.live(), tracker.counts().evicted), (1, 0));
}

/// The larger table looks at a few only, but forgets exactly one for each, and never a new one.
#[test]
fn a_larger_table_keeps_its_limit() {
    let mut tracker = tracker(100);
    for number in 1..=1000 {
        feed(&mut tracker, [&begin(number)]);
        assert!(tracker.live() <= 100);
        assert!(tracker.connections().any(|(socket, _)| socket.0 == u64::from(number)));
    }
    assert_eq!((tracker.live(), tracker.counts().evicted), (100, 900));
}
