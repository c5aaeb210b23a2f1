//! Looks at the host's sockets: what they add, confirm and end.

use tracer_core::{
    event::{
        Endpoint, Event, ExistingSocket, Process,
        TcpState::{self, Established, Listen, SynSent},
    },
    lifecycle::Tracker,
    owner::OwnerSource,
};
use tracer_core_testing::script::{BOUND, CLIENT, Life, NETNS, SECOND, SERVER, at, process, time};

use crate::observed::{feed, tracker};

/// What a look at `us` finds.
fn found(us: u64, cookie: u64, state: TcpState, local: Endpoint, remote: Endpoint) -> ExistingSocket {
    ExistingSocket {
        time: time(us),
        cookie,
        state,
        state_age_ns: None,
        local,
        remote,
        process: None,
        netns: Some(NETNS),
        cgroup_id: None,
        info: None,
    }
}

fn listening(us: u64, cookie: u64, process: Option<Process>) -> ExistingSocket {
    ExistingSocket { process, ..found(us, cookie, Listen, BOUND, at("0.0.0.0", 0)) }
}

/// The end of a look of the whole host.
fn end(us: u64) -> Event {
    Event::SnapshotEnd { started: time(us) }
}

/// A later look, which is of this namespace.
fn later(us: u64, found: &[ExistingSocket]) -> Vec<Event> {
    let started = time(us);
    let scope = Event::SnapshotScope { started, netns: NETNS };
    let found = found.iter().copied().map(Event::Existing);
    std::iter::once(scope).chain(found).chain([Event::SnapshotEnd { started }]).collect()
}

/// Whose a connection is that arrives.
fn owner_of_a_child(tracker: &mut Tracker) -> (Option<Process>, OwnerSource) {
    let observed = feed(tracker, &Life::accepted(1).events());
    let owner = observed.steps[0].connection.expect("it is a connection's").owner;
    (owner.process, owner.source)
}

#[test]
fn a_listener_that_a_look_finds_again_is_the_same() {
    let nginx = process(200, "nginx");
    let mut tracker = tracker(10);
    feed(&mut tracker, &Life::listener(9, 0, Some(nginx)).events());
    for look in 1..4 {
        feed(&mut tracker, &later(look * SECOND, &[listening(look * SECOND, 7, None)]));
        assert_eq!(tracker.listening(), 1);
    }
    assert_eq!(owner_of_a_child(&mut tracker), (Some(nginx), OwnerSource::Listener));
    feed(&mut tracker, &Life::listener(9, 0, None).step(5 * SECOND, TcpState::Closed).events()[1..]);
    assert_eq!(tracker.listening(), 0);
}

#[test]
fn listeners_of_one_port_are_as_many_as_a_look_finds() {
    let nginx = process(200, "nginx");
    let mut tracker = tracker(10);
    let first = [7, 8].map(|cookie| Event::Existing(listening(0, cookie, Some(nginx))));
    feed(&mut tracker, first.iter().chain(&[end(0)]));
    assert_eq!(tracker.listening(), 2);
    // One of nobody known, whose beginning was missed: whose a connection is cannot be told any more.
    feed(&mut tracker, &later(SECOND, &[7, 8, 9].map(|cookie| listening(SECOND, cookie, None))));
    assert_eq!(tracker.listening(), 3);
    assert_eq!(owner_of_a_child(&mut tracker), (None, OwnerSource::Unknown));
}

/// The table has a client's port from its beginning on only if the application bound it.
#[test]
fn a_later_look_knows_what_is_still_opening() {
    let bound = Life::client(1).step(0, SynSent).with(|it| it.local = CLIENT);
    let unbound = Life::client(2).step(0, SynSent);
    let still_opens = found(SECOND, 7, SynSent, CLIENT, SERVER);
    let mut tracker = tracker(10);
    feed(&mut tracker, bound.events().iter().chain(&unbound.events()));
    let other = ExistingSocket { local: Endpoint { port: 50_000, ..CLIENT }, ..still_opens };
    let observed = feed(&mut tracker, &later(SECOND, &[still_opens, other]));
    assert_eq!((observed.ended.len(), tracker.live(), tracker.counts().existing), (0, 2, 0));
    let observed = feed(&mut tracker, &later(2 * SECOND, &[other]));
    assert_eq!((observed.only().connection.local, tracker.live()), (CLIENT, 1));
}

/// What opens on the ends of a connection whose end was missed does not keep it alive.
#[test]
fn an_opening_confirms_no_other_state() {
    let mut tracker = tracker(10);
    feed(&mut tracker, &Life::connected_client(1, process(100, "curl")).events());
    let observed = feed(&mut tracker, &later(SECOND, &[found(SECOND, 7, SynSent, CLIENT, SERVER)]));
    assert_eq!((observed.ended.len(), tracker.live()), (1, 0));
}

#[test]
fn a_later_look_ends_only_what_is_in_its_namespaces() {
    let mut tracker = tracker(10);
    feed(&mut tracker, &Life::connected_client(1, process(100, "curl")).events());
    let started = time(SECOND);
    let elsewhere = Event::SnapshotScope { started, netns: NETNS + 1 };
    let observed = feed(&mut tracker, &[elsewhere, Event::SnapshotEnd { started }]);
    assert_eq!((observed.ended.len(), tracker.live()), (0, 1));
    let observed = feed(&mut tracker, &later(SECOND, &[]));
    assert_eq!((observed.ended.len(), tracker.live()), (1, 0));
}

/// A recording's next file begins with what is open, under the identity that it has: several clients of one server may
/// still be without a port.
#[test]
fn clients_without_a_port_are_told_apart() {
    let unbound = Endpoint { port: 0, ..CLIENT };
    let opening = |socket: u64| Event::Existing(found(0, !socket, SynSent, unbound, SERVER));
    let mut tracker = tracker(10);
    let observed = feed(&mut tracker, &[opening(1), opening(2), opening(2), end(0)]);
    assert_eq!((observed.ended.len(), tracker.live(), tracker.counts().existing), (0, 2, 2));
    let observed = feed(&mut tracker, &Life::client(3).step(100, SynSent).events());
    assert_eq!((observed.ended.len(), tracker.live()), (0, 3));
    // The next transition of each is its own.
    for socket in [1, 2] {
        let established = Life::existing(socket, SynSent).step(200, Established);
        let observed = feed(&mut tracker, &established.events());
        assert!(!observed.steps[0].connection.expect("it is a connection's").gap);
    }
    assert_eq!((tracker.live(), tracker.counts().unmatched, tracker.counts().unseen_closes), (3, 0, 0));
}

/// The same again when a file between was not given: the socket has meanwhile begun another life.
#[test]
fn a_socket_that_is_found_with_other_ends_has_begun_another_life() {
    let mut tracker = tracker(10);
    feed(&mut tracker, &Life::connected_client(1, process(100, "curl")).events());
    let other = Endpoint { port: 50_000, ..CLIENT };
    let again = Event::Existing(found(SECOND, !1, Established, other, SERVER));
    let observed = feed(&mut tracker, &[again, end(SECOND)]);
    assert!(observed.only().connection.gap);
    assert_eq!(observed.only().connection.local, CLIENT);
    assert_eq!((tracker.live(), tracker.counts().unseen_closes), (1, 1));
}
