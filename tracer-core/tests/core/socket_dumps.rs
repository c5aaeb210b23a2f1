//! Socket dumps: the connections they add, confirm and close.

use tracer_core::{
    event::{
        Endpoint, Event, ExistingSocket, ExistingTimewait, Netns, Process, SocketCookie,
        TcpState::{self, Established, Listen, SynSent},
    },
    lifecycle::Tracker,
    owner::OwnerSource,
};
use tracer_core_testing::script::{BOUND, CLIENT, NETNS, SECOND, SERVER, ScriptedSocket, at, process, time};

use crate::observed::{track, tracker};

/// A socket in a dump at `us`.
fn dumped(us: u64, cookie: u64, state: TcpState, local: Endpoint, remote: Endpoint) -> ExistingSocket {
    ExistingSocket {
        time: time(us),
        cookie: SocketCookie(cookie),
        state,
        state_age: None,
        local,
        remote,
        process: None,
        netns: Some(NETNS),
        cgroup_id: None,
        info: None,
        interface: None,
    }
}

fn listening(us: u64, cookie: u64, process: Option<Process>) -> ExistingSocket {
    ExistingSocket { process, ..dumped(us, cookie, Listen, BOUND, at("0.0.0.0", 0)) }
}

/// The end of a dump of the whole host.
fn dump_end(us: u64) -> Event {
    Event::DumpEnd { started: time(us), timewait: false }
}

/// A resync of the scripted network namespace.
fn resync(us: u64, dumped: &[ExistingSocket]) -> Vec<Event> {
    let started = time(us);
    let scope = Event::DumpScope { started, netns: NETNS };
    let dumped = dumped.iter().copied().map(Event::Existing);
    std::iter::once(scope).chain(dumped).chain([Event::DumpEnd { started, timewait: false }]).collect()
}

/// Returns the owner of a newly accepted connection.
fn owner_of_a_child(tracker: &mut Tracker) -> (Option<Process>, OwnerSource) {
    let observed = track(tracker, &ScriptedSocket::accepted(1).events());
    let owner = observed.steps[0].connection.expect("the transition has a connection").owner;
    (owner.process, owner.source)
}

#[test]
fn a_dumped_listener_that_is_already_known_is_not_added() {
    let nginx = process(200, "nginx");
    let mut tracker = tracker(10);
    track(&mut tracker, &ScriptedSocket::listener(9, 0, Some(nginx)).events());
    for round in 1..4 {
        track(&mut tracker, &resync(round * SECOND, &[listening(round * SECOND, 7, None)]));
        assert_eq!(tracker.listening(), 1);
    }
    assert_eq!(owner_of_a_child(&mut tracker), (Some(nginx), OwnerSource::Listener));
    track(
        &mut tracker,
        &ScriptedSocket::listener(9, 0, None).step(5 * SECOND, TcpState::Closed).events()[1..],
    );
    assert_eq!(tracker.listening(), 0);
}

#[test]
fn a_resync_adds_missing_listeners_of_a_port() {
    let nginx = process(200, "nginx");
    let mut tracker = tracker(10);
    let first = [7, 8].map(|cookie| Event::Existing(listening(0, cookie, Some(nginx))));
    track(&mut tracker, first.iter().chain(&[dump_end(0)]));
    assert_eq!(tracker.listening(), 2);
    // The third listener has no known process, so the owner of an accepted connection becomes unknown.
    track(&mut tracker, &resync(SECOND, &[7, 8, 9].map(|cookie| listening(SECOND, cookie, None))));
    assert_eq!(tracker.listening(), 3);
    assert_eq!(owner_of_a_child(&mut tracker), (None, OwnerSource::Unknown));
}

/// The table has the port of a client in SYN_SENT only if the application bound it.
#[test]
fn a_resync_confirms_handshakes_in_progress() {
    let bound = ScriptedSocket::client(1).step(0, SynSent).with(|it| it.local = CLIENT);
    let unbound = ScriptedSocket::client(2).step(0, SynSent);
    let in_progress = dumped(SECOND, 7, SynSent, CLIENT, SERVER);
    let mut tracker = tracker(10);
    track(&mut tracker, bound.events().iter().chain(&unbound.events()));
    let other = ExistingSocket { local: Endpoint { port: 50_000, ..CLIENT }, ..in_progress };
    let observed = track(&mut tracker, &resync(SECOND, &[in_progress, other]));
    assert_eq!((observed.closed.len(), tracker.live(), tracker.counts().existing), (0, 2, 0));
    let observed = track(&mut tracker, &resync(2 * SECOND, &[other]));
    assert_eq!((observed.only_closed().connection.local, tracker.live()), (CLIENT, 1));
}

/// A handshake with the key of a connection whose close was missed does not confirm that connection.
#[test]
fn a_dumped_handshake_confirms_no_other_state() {
    let mut tracker = tracker(10);
    track(&mut tracker, &ScriptedSocket::connected_client(1, process(100, "curl")).events());
    let observed = track(&mut tracker, &resync(SECOND, &[dumped(SECOND, 7, SynSent, CLIENT, SERVER)]));
    assert_eq!((observed.closed.len(), tracker.live()), (1, 0));
}

#[test]
fn a_resync_closes_only_connections_in_its_scope() {
    let mut tracker = tracker(10);
    track(&mut tracker, &ScriptedSocket::connected_client(1, process(100, "curl")).events());
    let started = time(SECOND);
    let elsewhere = Event::DumpScope { started, netns: Netns(NETNS.0 + 1) };
    let observed = track(&mut tracker, &[elsewhere, Event::DumpEnd { started, timewait: false }]);
    assert_eq!((observed.closed.len(), tracker.live()), (0, 1));
    let observed = track(&mut tracker, &resync(SECOND, &[]));
    assert_eq!((observed.closed.len(), tracker.live()), (1, 0));
}

/// A continuation file of a recording begins with the open sockets under their real ids. Several clients of
/// one server may still have no port.
#[test]
fn dumped_clients_without_a_port_stay_separate() {
    let unbound = Endpoint { port: 0, ..CLIENT };
    let connecting = |socket: u64| Event::Existing(dumped(0, !socket, SynSent, unbound, SERVER));
    let mut tracker = tracker(10);
    let observed = track(&mut tracker, &[connecting(1), connecting(2), connecting(2), dump_end(0)]);
    assert_eq!((observed.closed.len(), tracker.live(), tracker.counts().existing), (0, 2, 2));
    let observed = track(&mut tracker, &ScriptedSocket::client(3).step(100, SynSent).events());
    assert_eq!((observed.closed.len(), tracker.live()), (0, 3));
    // The next transition of each socket belongs to its own connection.
    for socket in [1, 2] {
        let established = ScriptedSocket::existing(socket, SynSent).step(200, Established);
        let observed = track(&mut tracker, &established.events());
        assert!(!observed.steps[0].connection.expect("the transition has a connection").gap);
    }
    assert_eq!((tracker.live(), tracker.counts().unmatched, tracker.counts().unseen_closes), (3, 0, 0));
}

/// A file of the recording is missing, and the socket has a new connection.
#[test]
fn a_dumped_socket_with_another_key_is_a_new_connection() {
    let mut tracker = tracker(10);
    track(&mut tracker, &ScriptedSocket::connected_client(1, process(100, "curl")).events());
    let other = Endpoint { port: 50_000, ..CLIENT };
    let dumped_again = Event::Existing(dumped(SECOND, !1, Established, other, SERVER));
    let observed = track(&mut tracker, &[dumped_again, dump_end(SECOND)]);
    assert!(observed.only_closed().connection.gap);
    assert_eq!(observed.only_closed().connection.local, CLIENT);
    assert_eq!((tracker.live(), tracker.counts().unseen_closes), (1, 1));
}

fn timewait() -> Event {
    Event::ExistingTimewait(ExistingTimewait {
        time: time(0),
        state: TcpState::TimeWait,
        timer_due: time(60 * SECOND),
        local: CLIENT,
        remote: SERVER,
        netns: Some(NETNS),
    })
}

/// Recordings of earlier versions have dumps without timewait sockets.
#[test]
fn only_a_dump_of_timewait_sockets_replaces_them() {
    let mut tracker = tracker(10);
    let end = |us, timewait| Event::DumpEnd { started: time(us), timewait };
    track(&mut tracker, &[timewait(), end(0, true)]);
    assert_eq!(tracker.timewait_counts(), (1, 0));
    track(&mut tracker, &[end(SECOND, false)]);
    assert_eq!(tracker.timewait_counts(), (1, 0));
    track(&mut tracker, &[end(2 * SECOND, true)]);
    assert_eq!(tracker.timewait_counts(), (0, 0));
}

/// A damaged recording may have a dump without an end.
#[test]
fn dumped_timewait_sockets_beyond_the_table_are_counted() {
    const CAPACITY: u64 = 262_144;
    let mut tracker = tracker(10);
    for _ in 0..CAPACITY + 3 {
        tracker.observe(&timewait(), &mut |_| unreachable!("a dump is reported at its end"));
    }
    assert_eq!(tracker.counts().unfollowed, 3);
}

#[test]
fn a_resync_removes_a_listener_whose_close_was_missed() {
    let nginx = process(200, "nginx");
    let mut tracker = tracker(10);
    track(&mut tracker, &ScriptedSocket::listener(9, 0, Some(nginx)).events());
    assert_eq!(tracker.listening(), 1);
    track(&mut tracker, &resync(SECOND, &[]));
    assert_eq!(tracker.listening(), 0);
    assert_eq!(owner_of_a_child(&mut tracker), (None, OwnerSource::Unknown));
}
