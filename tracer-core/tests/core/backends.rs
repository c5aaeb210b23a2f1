//! The backend behind the remote address of a client.

use tracer_core::{
    analysis::{GroupKey, HandshakeAttempt, HandshakesBy},
    event::{
        Endpoint, Event, Netns,
        TcpState::{Closed, Established, SynSent},
        Translated,
    },
    lifecycle::{Observation, Tracker, TrackerOptions},
};
use tracer_core_testing::script::{CLIENT, SECOND, SERVER, ScriptedSocket, at, error, time};

/// What the observations of some events say about backends.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    attempt: Option<Endpoint>,
    closed: Option<Endpoint>,
    group: Option<GroupKey>,
}

fn named(events: &[Event]) -> Named {
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut named = Named { attempt: None, closed: None, group: None };
    for event in events {
        tracker.observe(event, &mut |observation| {
            if let Some(attempt) = HandshakeAttempt::ended_by(&observation) {
                named.attempt = attempt.backend;
                named.group = Some(GroupKey::of(&attempt, HandshakesBy::Backend, None));
            }
            if let Observation::Closed(closed) = observation {
                named.closed = closed.backend;
            }
        });
    }
    assert_eq!(tracker.translations().count(), 0, "no connection is open");
    named
}

fn translated(us: u64) -> Event {
    let (backend, netns) = (at("10.1.2.3", 8443), Some(Netns(1)));
    Event::Translated(Translated { time: time(us), client: CLIENT, service: SERVER, backend, netns })
}

#[test]
fn an_established_client_keeps_its_backend_until_it_closes() {
    let socket = ScriptedSocket::client(1).step(0, SynSent).step(200, Established);
    let events = socket.step(300 * SECOND, Closed).flags(error(104)).events();
    let backend = Some(at("10.1.2.3", 8443));
    let expected = Named { attempt: backend, closed: backend, group: backend.map(GroupKey::Service) };
    assert_eq!(named(&[vec![translated(100)], events.clone()].concat()), expected);
    let without = Named { attempt: None, closed: None, group: Some(GroupKey::Service(SERVER)) };
    assert_eq!(named(&events), without);
}

#[test]
fn a_failed_client_has_its_backend() {
    let events =
        ScriptedSocket::client(1).step(0, SynSent).step(3 * SECOND, Closed).flags(error(110)).events();
    let backend = Some(at("10.1.2.3", 8443));
    let found = named(&[vec![translated(100)], events].concat());
    assert_eq!((found.attempt, found.closed), (backend, backend));
}

#[test]
fn the_connection_of_a_server_has_none() {
    let Event::Translated(event) = translated(100) else { unreachable!() };
    let reversed = Event::Translated(Translated { client: SERVER, service: CLIENT, ..event });
    let events = ScriptedSocket::accepted(1).step(SECOND, Closed).flags(error(104)).events();
    let found = named(&[vec![reversed], events].concat());
    assert_eq!((found.attempt, found.closed), (None, None));
}
