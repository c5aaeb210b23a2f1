//! Assigns events to connections: reused sockets, unseen starts and closes, gaps, repeated states.

use std::collections::HashSet;

use tracer_core::{
    event::{
        ConnectionId, Event, ExistingSocket, Process, SocketCookie,
        TcpState::{
            self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
            SynSent,
        },
    },
    lifecycle::{CloseReason, ClosedBy, DurationSource::Observed, Observation, Role},
    owner::OwnerSource,
};
use tracer_core_testing::script::{CLIENT, NETNS, SERVER, ScriptedSocket, error, fins, process, shut, time};

use crate::observed::{run, track, tracker};

fn app() -> Process {
    process(100, "app")
}

fn server() -> Process {
    process(200, "server")
}

#[test]
fn a_client_socket_is_reused_by_a_server() {
    let mut tracker = tracker(10);
    let first = ScriptedSocket::connected_client(1, app()).step(300, Closed).flags(error(104));
    let listener = ScriptedSocket::listener(9, 0, Some(server()));
    let mut second = ScriptedSocket::server(1).step(350, SynReceived).step(360, Established).transitions();
    let mut events = listener.events();
    events.extend(first.events());
    events.extend(second.drain(..).map(Event::Transition));
    let observed = track(&mut tracker, &events);
    assert_eq!(observed.only_closed().connection.role, Role::Client);
    let (_, live) = tracker.connections().next().unwrap();
    assert_eq!((live.role, live.first_seen, live.gap), (Role::Server, time(350), false));
    assert_eq!((live.local, live.remote), (SERVER, CLIENT));
    assert_eq!((live.owner.process, live.owner.source), (Some(server()), OwnerSource::Listener));
    let counts = tracker.counts();
    assert_eq!((counts.closed, counts.unseen_closes, counts.gaps, counts.unmatched), (1, 0, 0, 0));
}

/// One descriptor carries several connections: `connect(AF_UNSPEC)`, then `connect()` again.
#[test]
fn a_descriptor_that_connects_again_has_two_connections() {
    let socket = ScriptedSocket::connected_client(1, app())
        .step(300, Closed)
        .by(app())
        .flags(tracer_core_testing::script::open())
        .step(400, SynSent)
        .by(app())
        .step(450, Closed)
        .flags(error(111));
    let observed = run(&socket.events());
    let reasons: Vec<_> =
        observed.closed.iter().map(|it| (it.close_cause.reason, it.duration_us())).collect();
    assert_eq!(reasons, [(CloseReason::Disconnected, Some(300)), (CloseReason::Refused, Some(50))]);
    assert_eq!(observed.steps[3].duration_us, None);
}

/// Every transition that starts a connection on a tracked socket, or closes something other than a connection.
#[test]
fn a_new_start_on_a_tracked_socket_closes_the_old_connection() {
    let beginnings = [
        ScriptedSocket::client(1).step(5000, SynSent).by(server()),
        ScriptedSocket::server(1).step(5000, SynReceived),
        ScriptedSocket::listener(1, 5000, Some(server())),
        ScriptedSocket::existing(1, Listen).step(5000, Closed),
        ScriptedSocket::existing(1, Closed).step(5000, Closed),
    ];
    for (index, beginning) in beginnings.iter().enumerate() {
        let mut tracker = tracker(10);
        let first = ScriptedSocket::connected_client(1, app());
        let observed = track(&mut tracker, first.events().iter().chain(&beginning.events()));
        let closed = observed.only_closed();
        assert_eq!((closed.close_cause.reason, closed.close_cause.closed_by), (CloseReason::Unknown, None));
        assert_eq!((closed.connection.gap, closed.connection.role), (true, Role::Client));
        assert_eq!(closed.connection.owner.process, Some(app()));
        assert_eq!(closed.after, None);
        let counts = tracker.counts();
        assert_eq!((counts.unseen_closes, counts.closed, counts.gaps), (1, 1, 0));
        let live: Vec<_> = tracker.connections().map(|(_, it)| (it.first_seen, it.gap)).collect();
        assert_eq!(live, if index < 2 { vec![(time(5000), false)] } else { vec![] });
    }
}

/// Unknown is absent, never zero: the end of ESTABLISHED was not seen.
#[test]
fn an_unseen_close_leaves_the_last_state_without_a_duration() {
    let first = ScriptedSocket::connected_client(1, app());
    let next = ScriptedSocket::client(1).step(5000, SynSent);
    let observed = run(first.events().iter().chain(&next.events()));
    let states: Vec<_> = observed.only_closed().states.iter().map(|&(state, us, _)| (state, us)).collect();
    assert_eq!(states, [(SynSent, Some(200)), (Established, None)]);
}

#[test]
fn an_unseen_close_leaves_the_connection_without_a_duration() {
    let first = ScriptedSocket::connected_client(1, app());
    let next = ScriptedSocket::client(1).step(5000, SynSent);
    let observed = run(first.events().iter().chain(&next.events()));
    assert_eq!(observed.only_closed().duration, None);
}

#[test]
fn a_socket_that_stopped_listening_gives_no_owner() {
    let listener = ScriptedSocket::listener(9, 0, Some(server()));
    let reuse = ScriptedSocket::client(9).step(10, SynSent).by(app());
    let child = ScriptedSocket::accepted(1).step(100, Closed).flags(error(104));
    let observed = run(listener.events().iter().chain(&reuse.events()).chain(&child.events()));
    assert_eq!(observed.only_closed().connection.owner.source, OwnerSource::Unknown);
}

#[test]
fn a_connection_with_an_unseen_start_is_incomplete() {
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
        let socket = ScriptedSocket::existing(1, from).step(100, to).step(250, Closed).flags(fins());
        let observed = track(&mut tracker, &socket.events());
        assert_eq!(observed.durations_us(), [None, Some(150)], "{from:?}");
        let closed = observed.only_closed();
        assert_eq!(
            (closed.connection.incomplete, closed.connection.gap, closed.connection.role),
            (true, false, Role::Unknown)
        );
        assert_eq!((closed.opened, closed.duration, closed.closed_us()), (None, None, 250));
        assert_eq!(closed.states[0].0, from);
        assert_eq!(closed.states[0].1, None);
        assert_eq!(closed.states[1], (to, Some(150), Observed));
        assert!(closed.connection.handshake.is_none(), "{from:?}");
        let counts = tracker.counts();
        assert_eq!((counts.unmatched, counts.gaps, counts.closed), (1, 0, 1));
    }
}

#[test]
fn a_connection_with_only_its_close_seen_has_a_reason_but_no_duration() {
    for (from, by) in [(LastAck, ClosedBy::Remote), (FinWait2, ClosedBy::Local), (Closing, ClosedBy::Both)] {
        let mut tracker = tracker(10);
        let observed =
            track(&mut tracker, &ScriptedSocket::existing(1, from).step(100, Closed).flags(fins()).events());
        let closed = observed.only_closed();
        assert_eq!(
            (closed.close_cause.reason, closed.close_cause.closed_by),
            (CloseReason::Closed, Some(by))
        );
        assert_eq!((closed.connection.incomplete, closed.duration), (true, None));
        assert_eq!((closed.states[0].0, closed.states[0].1), (from, None));
        assert_eq!((tracker.live(), tracker.counts().unmatched), (0, 1));
    }
}

/// ESTABLISHED→FIN_WAIT1 was missed.
#[test]
fn a_gap_leaves_both_neighbors_without_a_duration() {
    let mut tracker = tracker(10);
    let mut events = ScriptedSocket::client_in(1, app(), FinWait2).step(1000, Closed).flags(fins()).events();
    events.remove(2);
    let observed = track(&mut tracker, &events);
    assert_eq!(observed.durations_us(), [None, Some(200), None, Some(100)]);
    let closed = observed.only_closed();
    assert!(closed.connection.gap && !closed.connection.incomplete);
    let states: Vec<_> = closed.states.iter().map(|&(state, us, _)| (state, us)).collect();
    assert_eq!(
        states[..4],
        [(SynSent, Some(200)), (Established, None), (FinWait1, None), (FinWait2, Some(100))]
    );
    // The start and the close were seen.
    assert_eq!((closed.duration_us(), closed.close_cause.reason), (Some(1000), CloseReason::Closed));
    assert_eq!(tracker.counts().gaps, 1);
}

#[test]
fn a_gap_over_the_handshake_leaves_it_unknown() {
    let mut events =
        ScriptedSocket::connected_client(1, app()).step(700, FinWait1).by(app()).step(900, Closed).events();
    events.remove(1);
    let observed = run(&events);
    let closed = observed.only_closed();
    assert!(closed.connection.gap);
    assert!(closed.connection.handshake.is_none());
    assert_eq!(closed.states.iter().map(|it| it.1).collect::<Vec<_>>(), [None, None, Some(200)]);
}

/// A connection in FIN_WAIT2 was established, whatever was missed.
#[test]
fn a_missed_handshake_is_not_a_failed_handshake() {
    let mut events = ScriptedSocket::client_in(1, app(), FinWait2).step(1000, Closed).flags(fins()).events();
    events.drain(1..3);
    let observed = run(&events);
    let closed = observed.only_closed();
    assert!(closed.connection.gap);
    assert!(!closed.connection.never_established());
    assert!(closed.connection.handshake.is_none());
}

/// `close()` after `shutdown()`: the state and its entry time do not change.
#[test]
fn a_repeated_state_changes_nothing() {
    for state in [FinWait1, FinWait2, Closing, LastAck] {
        let mut tracker = tracker(10);
        let socket = ScriptedSocket::client_in(1, app(), state)
            .step(2000, state)
            .by(app())
            .step(3000, state)
            .by(app())
            .step(4000, Closed)
            .flags(fins());
        let plain = ScriptedSocket::client_in(2, app(), state).step(4000, Closed).flags(fins());
        let observed = track(&mut tracker, &socket.events());
        let without = run(&plain.events());
        assert_eq!(observed.only_closed().states, without.only_closed().states, "{state:?}");
        assert!(!observed.only_closed().connection.gap);
        assert_eq!(tracker.counts().gaps, 0);
        assert_eq!(observed.steps.len(), without.steps.len() + 2);
    }
}

#[test]
fn a_repeated_state_as_the_first_event_adds_the_connection() {
    let mut tracker = tracker(10);
    let socket =
        ScriptedSocket::existing(1, FinWait2).step(100, FinWait2).by(app()).step(300, Closed).flags(fins());
    let observed = track(&mut tracker, &socket.events());
    assert_eq!(observed.durations_us(), [None, None]);
    let closed = observed.only_closed();
    assert_eq!((closed.connection.incomplete, closed.connection.gap), (true, false));
    assert_eq!(closed.connection.owner.process, Some(app()));
    assert_eq!(tracker.counts().unmatched, 1);
}

#[test]
fn a_repeated_state_can_reveal_a_gap() {
    let socket = ScriptedSocket::client_in(1, app(), FinWait1);
    let mut events = socket.events();
    events.extend(ScriptedSocket::existing(1, FinWait2).step(2000, FinWait2).by(app()).events());
    let mut tracker = tracker(10);
    track(&mut tracker, &events);
    let (_, live) = tracker.connections().next().unwrap();
    assert_eq!((live.state(), live.history.since(), live.gap), (FinWait2, None, true));
}

/// Only a damaged recording contains these transitions.
#[test]
fn impossible_transitions_are_counted() {
    for from in TcpState::ALL {
        for to in TcpState::ALL {
            let mut tracker = tracker(2);
            let events = ScriptedSocket::existing(1, from).step(0, to).step(1, from).step(2, Closed).events();
            track(&mut tracker, &events);
            assert_eq!(tracker.counts().transitions, 3);
            assert!(tracker.live() <= 2);
        }
    }
}

/// Returns the ids of a run's transitions and of its closed connections.
fn ids(events: &[Event]) -> (Vec<ConnectionId>, Vec<ConnectionId>) {
    let (mut of_transitions, mut of_closed) = (Vec::new(), Vec::new());
    let mut tracker = tracker(10);
    for event in events {
        tracker.observe(event, &mut |observation| match observation {
            Observation::Transition { transition, connection: Some(connection), .. } => {
                of_transitions.push(connection.id(transition.socket));
            }
            Observation::Closed(closed) => of_closed.push(closed.id),
            _ => {}
        });
    }
    (of_transitions, of_closed)
}

#[test]
fn a_connection_has_one_id_and_the_next_one_on_its_socket_another() {
    let socket = ScriptedSocket::connected_client(1, app())
        .step(300, Closed)
        .flags(error(104))
        .step(400, SynSent)
        .step(450, Closed)
        .flags(error(111));
    let (of_transitions, of_closed) = ids(&socket.events());
    let [first, second] = of_closed[..] else { panic!("{of_closed:?}") };
    assert_ne!(first, second);
    assert_eq!(of_transitions, [first, first, first, second, second]);
    assert_eq!(ids(&socket.events()), (of_transitions, of_closed), "a replay gives the same ids");
    let elsewhere = ScriptedSocket::connected_client(2, app()).step(300, Closed).flags(error(104));
    assert!(!ids(&elsewhere.events()).1.contains(&first));
}

/// The dump knows the connection by its cookie, and the first transition by its socket.
#[test]
fn a_dumped_connection_keeps_its_id_from_its_first_transition_on() {
    let dumped = ExistingSocket {
        time: time(0),
        cookie: SocketCookie(77),
        state: Established,
        state_age: None,
        local: CLIENT,
        remote: SERVER,
        process: Some(app()),
        netns: Some(NETNS),
        cgroup_id: None,
        info: None,
        interface: None,
    };
    let socket = ScriptedSocket::existing(1, Established)
        .step(100, FinWait1)
        .step(200, FinWait2)
        .step(300, Closed)
        .flags(fins());
    let dump = [Event::Existing(dumped), Event::DumpEnd { started: time(0), timewait: false }];
    let (of_transitions, of_closed) = ids(&dump.into_iter().chain(socket.events()).collect::<Vec<_>>());
    let all: HashSet<_> = of_transitions.iter().chain(&of_closed).collect();
    assert_eq!((of_transitions.len(), of_closed.len(), all.len()), (3, 1, 1));
}

#[test]
fn the_end_of_a_timewait_socket_has_the_id_of_its_connection() {
    let socket = ScriptedSocket::connected_client(1, app())
        .step(300, FinWait1)
        .by(app())
        .flags(shut())
        .step(400, FinWait2)
        .step(500, Closed)
        .flags(fins());
    let mut tracker = tracker(10);
    let mut found = Vec::new();
    let end = Event::TimewaitEnd(tracer_core::event::TimewaitEnd {
        time: time(60_000_500),
        state: TcpState::TimeWait,
        local: CLIENT,
        remote: SERVER,
        netns: Some(NETNS),
    });
    for event in socket.events().iter().chain([&end]) {
        tracker.observe(event, &mut |observation| match observation {
            Observation::Closed(closed) => found.push(Some(closed.id)),
            Observation::TimewaitEnd { end, .. } => found.push(end.connection),
            _ => {}
        });
    }
    let [closed, ended] = found[..] else { panic!("{found:?}") };
    assert!(closed.is_some());
    assert_eq!(closed, ended);
}
