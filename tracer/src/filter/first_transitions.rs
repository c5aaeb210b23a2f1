//! First transitions that wait until the ports that a filter asks for are known.

use std::collections::HashMap;

use super::Filter;
use crate::{
    event::{SocketId, Timestamp, Transition},
    lifecycle::{Connection, TcpState},
};

/// Most of them at once.
const MAX_HELD: usize = 65_536;

/// When a transition can be looked at.
#[derive(Debug, PartialEq)]
pub enum Turn {
    /// Later: it comes with the connection's next.
    Later,
    /// Now.
    Now,
    /// Now, after the connection's first, which has waited for it.
    After(Box<Transition>),
}

/// Holds back the first transition of a connection when a filter asks for what only the second tells.
///
/// A client's first transition has no local port yet; a server's, up to 6.14, no remote end.
#[derive(Debug)]
pub struct FirstTransitions {
    asked_for: bool,
    held: HashMap<SocketId, Box<Transition>>,
    forgotten: u64,
}

impl FirstTransitions {
    /// Nothing is held back yet, and never will be unless the filter asks for a port or a remote end.
    pub fn new(filter: &Filter) -> Self {
        Self { asked_for: filter.asks_for_ports(), held: HashMap::new(), forgotten: 0 }
    }

    /// When a transition can be looked at: a first one without ports not before the second.
    pub fn turn(&mut self, transition: &Transition, connection: Option<&Connection>) -> Turn {
        if !self.asked_for {
            return Turn::Now;
        }
        let held = self.held.remove(&transition.socket);
        // A socket has one beginning; what an earlier life, whose end was missed, has left is none of it.
        let held = held.filter(|_| !matches!(transition.from, TcpState::Closed | TcpState::Listen));
        let unknown = |connection: &Connection| connection.local.port == 0 || connection.remote.port == 0;
        if held.is_some() || transition.to == TcpState::Closed || !connection.is_some_and(unknown) {
            return held.map_or(Turn::Now, Turn::After);
        }
        if self.held.len() >= MAX_HELD {
            self.forget_the_older_half();
        }
        self.held.insert(transition.socket, Box::new(*transition));
        Turn::Later
    }

    /// How many were forgotten because too many waited: connections whose end was missed, most likely.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn forget_the_older_half(&mut self) {
        let mut times: Vec<Timestamp> = self.held.values().map(|first| first.time).collect();
        let middle = times.len() / 2;
        let (_, &mut middle, _) = times.select_nth_unstable(middle);
        let before = self.held.len();
        self.held.retain(|_, first| first.time > middle);
        self.forgotten += (before - self.held.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Endpoint, Event},
        lifecycle::{Observation, Tracker, TrackerOptions},
    };

    fn transition(time: u64, socket: u64, from: TcpState, to: TcpState, local_port: u16) -> Transition {
        let end = |port| Endpoint { address: "192.0.2.1".parse().unwrap(), port };
        Transition {
            time: Timestamp(time),
            socket: SocketId(socket),
            cookie: None,
            from,
            to,
            local: end(local_port),
            remote: end(443),
            process: None,
            thread: None,
            netns: None,
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            unaccepted_segments: None,
            flags: None,
            info: None,
        }
    }

    /// What is shown, in order, as (time, state entered).
    fn shown(transitions: &[Transition]) -> Vec<(u64, TcpState)> {
        let filter = Filter { remote_ports: Some("443".parse().unwrap()), ..Filter::default() };
        let mut first = FirstTransitions::new(&filter);
        let mut tracker = Tracker::new(TrackerOptions::default());
        let mut shown = Vec::new();
        for transition in transitions {
            tracker.observe(&Event::Transition(*transition), &mut |observation| {
                if let Observation::Transition { transition, connection, .. } = observation {
                    match first.turn(transition, connection) {
                        Turn::Later => return,
                        Turn::Now => {}
                        Turn::After(held) => shown.push((held.time.0, held.to)),
                    }
                    shown.push((transition.time.0, transition.to));
                }
            });
        }
        assert!(first.held.is_empty(), "{:?}", first.held);
        shown
    }

    use TcpState::{Closed, Established, SynSent};

    #[test]
    fn it_comes_with_the_second() {
        let life = [
            transition(1, 7, Closed, SynSent, 0),
            transition(2, 7, SynSent, Established, 40_000),
            transition(3, 7, Established, Closed, 40_000),
        ];
        assert_eq!(shown(&life), [(1, SynSent), (2, Established), (3, Closed)]);
    }

    /// As on a host that has no local port left.
    #[test]
    fn a_connection_that_never_has_a_port_is_shown_at_its_end() {
        let life = [transition(1, 7, Closed, SynSent, 0), transition(2, 7, SynSent, Closed, 0)];
        assert_eq!(shown(&life), [(1, SynSent), (2, Closed)]);
    }

    #[test]
    fn what_an_earlier_life_has_left_is_not_a_later_ones_beginning() {
        let lives = [
            transition(1, 7, Closed, SynSent, 0),
            // Its end was missed; the next has bound its port before.
            transition(5, 7, Closed, SynSent, 40_000),
            transition(6, 7, SynSent, Closed, 40_000),
        ];
        assert_eq!(shown(&lives), [(5, SynSent), (6, Closed)]);
    }

    #[test]
    fn too_many_are_counted_and_the_young_kept() {
        let filter = Filter { local_ports: Some("80".parse().unwrap()), ..Filter::default() };
        let mut first = FirstTransitions::new(&filter);
        let mut tracker = Tracker::new(TrackerOptions::default());
        let many = MAX_HELD as u64 + 1;
        for socket in 0..many {
            let event = Event::Transition(transition(socket, socket, Closed, SynSent, 0));
            tracker.observe(&event, &mut |observation| {
                if let Observation::Transition { transition, connection, .. } = observation {
                    assert_eq!(first.turn(transition, connection), Turn::Later);
                }
            });
        }
        assert_eq!(first.held.len() as u64 + first.forgotten(), many);
        assert!((1..many).contains(&first.forgotten()), "{}", first.forgotten());
        assert!(first.held.contains_key(&SocketId(many - 1)));
    }
}
