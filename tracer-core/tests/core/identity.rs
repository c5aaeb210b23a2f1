//! Which events belong to one life: reused sockets, unseen beginnings and ends, gaps, repeated states.

use tracer_core::{
    event::{
        Process,
        TcpState::{
            self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
            SynSent,
        },
    },
    lifecycle::{CloseReason, ClosedBy, DurationSource::Observed, Role},
    owner::OwnerSource,
};
use tracer_core_testing::script::{CLIENT, Life, SERVER, error, fins, process, time};

use crate::observed::{feed, run, tracker};

fn app() -> Process {
    process(100, "app")
}

fn server() -> Process {
    process(200, "server")
}

#[test]
fn a_client_s_socket_becomes_a_server_s() {
    let mut tracker = tracker(10);
    let first = Life::connected_client(1, app()).step(300, Closed).flags(error(104));
    let listener = Life::listener(9, 0, Some(server()));
    let mut second = Life::server(1).step(350, SynReceived).step(360, Established).transitions();
    let mut events = listener.events();
    events.extend(first.events());
    events.extend(second.drain(..).map(tracer_core::event::Event::Transition));
    let observed = feed(&mut tracker, &events);
    assert_eq!(observed.only().connection.role, Role::Client);
    let (_, live) = tracker.connections().next().unwrap();
    assert_eq!((live.role, live.first_seen, live.gap), (Role::Server, time(350), false));
    assert_eq!((live.local, live.remote), (SERVER, CLIENT));
    assert_eq!((live.owner.process, live.owner.source), (Some(server()), OwnerSource::Listener));
    let counts = tracker.counts();
    assert_eq!((counts.closed, counts.unseen_closes, counts.gaps, counts.unmatched), (1, 0, 0, 0));
}

/// One descriptor carries several lives: `connect(AF_UNSPEC)`, then `connect()` again.
#[test]
fn a_descriptor_that_connects_again() {
    let life = Life::connected_client(1, app())
        .step(300, Closed)
        .by(app())
        .flags(tracer_core_testing::script::open())
        .step(400, SynSent)
        .by(app())
        .step(450, Closed)
        .flags(error(111));
    let observed = run(&life.events());
    let reasons: Vec<_> = observed.ended.iter().map(|it| (it.close_cause.reason, it.duration_us())).collect();
    assert_eq!(reasons, [(CloseReason::Disconnected, Some(300)), (CloseReason::Refused, Some(50))]);
    assert_eq!(observed.steps[3].duration_us, None);
}

/// Every beginning on a socket that is still in the table, and every end of something else.
#[test]
fn a_life_whose_end_was_not_seen() {
    let beginnings = [
        Life::client(1).step(5000, SynSent).by(server()),
        Life::server(1).step(5000, SynReceived),
        Life::listener(1, 5000, Some(server())),
        Life::existing(1, Listen).step(5000, Closed),
        Life::existing(1, Closed).step(5000, Closed),
    ];
    for (index, beginning) in beginnings.iter().enumerate() {
        let mut tracker = tracker(10);
        let first = Life::connected_client(1, app());
        let observed = feed(&mut tracker, first.events().iter().chain(&beginning.events()));
        let ended = observed.only();
        assert_eq!((ended.close_cause.reason, ended.close_cause.closed_by), (CloseReason::Unknown, None));
        assert_eq!((ended.connection.gap, ended.connection.role), (true, Role::Client));
        assert_eq!(ended.connection.owner.process, Some(app()));
        assert_eq!(ended.after, None);
        let counts = tracker.counts();
        assert_eq!((counts.unseen_closes, counts.closed, counts.gaps), (1, 1, 0));
        let live: Vec<_> = tracker.connections().map(|(_, it)| (it.first_seen, it.gap)).collect();
        assert_eq!(live, if index < 2 { vec![(time(5000), false)] } else { vec![] });
    }
}

/// Unknown is absent, never zero: nobody saw when ESTABLISHED ended.
#[test]
fn an_unseen_end_leaves_the_last_state_without_a_duration() {
    let first = Life::connected_client(1, app());
    let next = Life::client(1).step(5000, SynSent);
    let observed = run(first.events().iter().chain(&next.events()));
    let states: Vec<_> = observed.only().states.iter().map(|&(state, us, _)| (state, us)).collect();
    assert_eq!(states, [(SynSent, Some(200)), (Established, None)]);
}

#[test]
fn an_unseen_end_leaves_the_life_without_a_duration() {
    let first = Life::connected_client(1, app());
    let next = Life::client(1).step(5000, SynSent);
    let observed = run(first.events().iter().chain(&next.events()));
    assert_eq!(observed.only().duration_ns, None);
}

#[test]
fn a_reused_listener_no_longer_lends_its_owner() {
    let listener = Life::listener(9, 0, Some(server()));
    let reuse = Life::client(9).step(10, SynSent).by(app());
    let child = Life::accepted(1).step(100, Closed).flags(error(104));
    let observed = run(listener.events().iter().chain(&reuse.events()).chain(&child.events()));
    assert_eq!(observed.only().connection.owner.source, OwnerSource::Unknown);
}

#[test]
fn a_life_whose_beginning_was_not_seen() {
    let next = [
        (SynSent, Established),
        (SynReceived, Established),
        (Established, FinWait1),
        (Established, CloseWait),
        (FinWait1, FinWait2),
        (FinWait1, Closing),
        (CloseWait, LastAck),
    ];
    for (from, to) in next {
        let mut tracker = tracker(10);
        let life = Life::existing(1, from).step(100, to).step(250, Closed).flags(fins());
        let observed = feed(&mut tracker, &life.events());
        assert_eq!(observed.durations_us(), [None, Some(150)], "{from:?}");
        let ended = observed.only();
        assert_eq!(
            (ended.connection.incomplete, ended.connection.gap, ended.connection.role),
            (true, false, Role::Unknown)
        );
        assert_eq!((ended.opened, ended.duration_ns, ended.closed_us()), (None, None, 250));
        assert_eq!(ended.states[0].0, from);
        assert_eq!(ended.states[0].1, None);
        assert_eq!(ended.states[1], (to, Some(150), Observed));
        assert!(ended.connection.handshake.is_none(), "{from:?}");
        let counts = tracker.counts();
        assert_eq!((counts.unmatched, counts.gaps, counts.closed), (1, 0, 1));
    }
}

#[test]
fn a_life_of_which_only_the_end_was_seen() {
    for (from, by) in [(LastAck, ClosedBy::Remote), (FinWait2, ClosedBy::Local), (Closing, ClosedBy::Both)] {
        let mut tracker = tracker(10);
        let observed = feed(&mut tracker, &Life::existing(1, from).step(100, Closed).flags(fins()).events());
        let ended = observed.only();
        assert_eq!((ended.close_cause.reason, ended.close_cause.closed_by), (CloseReason::Closed, Some(by)));
        assert_eq!((ended.connection.incomplete, ended.duration_ns), (true, None));
        assert_eq!((ended.states[0].0, ended.states[0].1), (from, None));
        assert_eq!((tracker.live(), tracker.counts().unmatched), (0, 1));
    }
}

/// ESTABLISHED→FIN_WAIT1 was missed.
#[test]
fn a_gap_leaves_both_sides_without_a_duration() {
    let mut tracker = tracker(10);
    let mut events = Life::client_in(1, app(), FinWait2).step(1000, Closed).flags(fins()).events();
    events.remove(2);
    let observed = feed(&mut tracker, &events);
    assert_eq!(observed.durations_us(), [None, Some(200), None, Some(100)]);
    let ended = observed.only();
    assert!(ended.connection.gap && !ended.connection.incomplete);
    let states: Vec<_> = ended.states.iter().map(|&(state, us, _)| (state, us)).collect();
    assert_eq!(
        states[..4],
        [(SynSent, Some(200)), (Established, None), (FinWait1, None), (FinWait2, Some(100))]
    );
    // Beginning and end were seen.
    assert_eq!((ended.duration_us(), ended.close_cause.reason), (Some(1000), CloseReason::Closed));
    assert_eq!(tracker.counts().gaps, 1);
}

#[test]
fn a_gap_over_the_handshake_leaves_it_unknown() {
    let mut events =
        Life::connected_client(1, app()).step(700, FinWait1).by(app()).step(900, Closed).events();
    events.remove(1);
    let observed = run(&events);
    let ended = observed.only();
    assert!(ended.connection.gap);
    assert!(ended.connection.handshake.is_none());
    assert_eq!(ended.states.iter().map(|it| it.1).collect::<Vec<_>>(), [None, None, Some(200)]);
}

/// A connection in FIN_WAIT2 must have been established, whatever was missed.
#[test]
fn two_missed_events_do_not_make_a_failed_handshake() {
    let mut events = Life::client_in(1, app(), FinWait2).step(1000, Closed).flags(fins()).events();
    events.drain(1..3);
    let observed = run(&events);
    let ended = observed.only();
    assert!(ended.connection.gap);
    assert!(!ended.connection.never_established());
    assert!(ended.connection.handshake.is_none());
}

/// `close()` after `shutdown()`: the state stays, and so does the time it was entered.
#[test]
fn the_same_state_again_is_no_change() {
    for state in [FinWait1, FinWait2, Closing, LastAck] {
        let mut tracker = tracker(10);
        let life = Life::client_in(1, app(), state)
            .step(2000, state)
            .by(app())
            .step(3000, state)
            .by(app())
            .step(4000, Closed)
            .flags(fins());
        let plain = Life::client_in(2, app(), state).step(4000, Closed).flags(fins());
        let observed = feed(&mut tracker, &life.events());
        let without = run(&plain.events());
        assert_eq!(observed.only().states, without.only().states, "{state:?}");
        assert!(!observed.only().connection.gap);
        assert_eq!(tracker.counts().gaps, 0);
        assert_eq!(observed.steps.len(), without.steps.len() + 2);
    }
}

#[test]
fn the_same_state_again_as_the_first_event() {
    let mut tracker = tracker(10);
    let life = Life::existing(1, FinWait2).step(100, FinWait2).by(app()).step(300, Closed).flags(fins());
    let observed = feed(&mut tracker, &life.events());
    assert_eq!(observed.durations_us(), [None, None]);
    let ended = observed.only();
    assert_eq!((ended.connection.incomplete, ended.connection.gap), (true, false));
    assert_eq!(ended.connection.owner.process, Some(app()));
    assert_eq!(tracker.counts().unmatched, 1);
}

#[test]
fn the_same_state_again_can_show_a_gap() {
    let life = Life::client_in(1, app(), FinWait1);
    let mut events = life.events();
    events.extend(Life::existing(1, FinWait2).step(2000, FinWait2).by(app()).events());
    let mut tracker = tracker(10);
    feed(&mut tracker, &events);
    let (_, live) = tracker.connections().next().unwrap();
    assert_eq!((live.state(), live.history.since(), live.gap), (FinWait2, None, true));
}

/// States that Linux never shows, from a damaged recording.
#[test]
fn states_that_cannot_be_are_taken_without_a_word() {
    for from in TcpState::ALL {
        for to in TcpState::ALL {
            let mut tracker = tracker(2);
            let events = Life::existing(1, from).step(0, to).step(1, from).step(2, Closed).events();
            feed(&mut tracker, &events);
            assert_eq!(tracker.counts().transitions, 3);
            assert!(tracker.live() <= 2);
        }
    }
}
