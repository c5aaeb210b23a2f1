//! Holds back first transitions until the ports that a filter needs are known.

use std::collections::HashMap;

use tracer_core::{
    event::{SocketId, TcpState, Timestamp, Transition},
    lifecycle::{Connection, Observation, SegmentDrops},
};

use crate::report::filter::criteria::Filter;

/// The most transitions that are held at once.
const MAX_HELD: usize = 65_536;

/// The observations to show after an observation: a held transition, the observation itself, both, or neither.
#[derive(Debug, PartialEq)]
pub struct Released {
    held: Option<Box<Transition>>,
    shows_observation: bool,
}

impl Released {
    /// Returns the observations to show, in order; `observation` is the one that was passed to `release`.
    pub fn then<'a>(&'a self, observation: Observation<'a>) -> impl Iterator<Item = Observation<'a>> {
        let connection = match observation {
            Observation::Transition { connection, .. } => connection,
            _ => None,
        };
        let held = self.held.as_deref().map(|transition| Observation::Transition {
            transition,
            duration: None,
            connection,
            drops: &SegmentDrops::NONE,
            half_open: None,
            backend: None,
        });
        held.into_iter().chain(self.shows_observation.then_some(observation))
    }
}

/// Holds back the first transition of a connection if the filter needs a port that only the second transition has.
///
/// A client's first transition has no local port yet; a server's has no remote endpoint up to Linux 6.14.
#[derive(Debug)]
pub struct FirstTransitions {
    needs_ports: bool,
    held: HashMap<SocketId, Box<Transition>>,
    forgotten: u64,
}

impl FirstTransitions {
    /// Creates an empty store. Transitions are held only if the filter needs a port or a remote address.
    pub fn new(filter: &Filter) -> Self {
        Self { needs_ports: filter.needs_ports(), held: HashMap::new(), forgotten: 0 }
    }

    /// Decides which observations to show: a first transition without ports waits for the second.
    pub fn release(&mut self, observation: &Observation<'_>) -> Released {
        let now = Released { held: None, shows_observation: true };
        let Observation::Transition { transition, connection, .. } = *observation else { return now };
        if !self.needs_ports {
            return now;
        }
        let held = self.held.remove(&transition.socket);
        // A transition held for an earlier connection, whose close was not seen, does not belong to this one.
        let held = held.filter(|_| !matches!(transition.from, TcpState::Closed | TcpState::Listen));
        let unknown = |connection: &Connection| connection.local.port == 0 || connection.remote.port == 0;
        if held.is_some() || transition.to == TcpState::Closed || !connection.is_some_and(unknown) {
            return Released { held, ..now };
        }
        if self.held.len() >= MAX_HELD {
            self.drop_older_half();
        }
        self.held.insert(transition.socket, Box::new(*transition));
        Released { held: None, shows_observation: false }
    }

    /// Returns how many transitions were dropped because too many were held, most likely of connections whose close was
    /// not seen.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn drop_older_half(&mut self) {
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
    use tracer_core::{
        event::{Endpoint, Event},
        lifecycle::{Tracker, TrackerOptions},
    };

    use super::*;

    fn transition(time: u64, socket: u64, from: TcpState, to: TcpState, local_port: u16) -> Transition {
        let endpoint = |port| Endpoint { address: "192.0.2.1".parse().unwrap(), port };
        Transition {
            time: Timestamp(time),
            socket: SocketId(socket),
            cookie: None,
            from,
            to,
            local: endpoint(local_port),
            remote: endpoint(443),
            process: None,
            thread: None,
            netns: None,
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            flags: None,
            info: None,
            sequences: None,
        }
    }

    /// Returns the time and the new state of each transition that is shown, in order.
    fn shown(transitions: &[Transition]) -> Vec<(u64, TcpState)> {
        let filter = Filter { remote_ports: Some("443".parse().unwrap()), ..Filter::default() };
        let mut first = FirstTransitions::new(&filter);
        let mut tracker = Tracker::new(TrackerOptions::default());
        let mut shown = Vec::new();
        for transition in transitions {
            tracker.observe(&Event::Transition(*transition), &mut |observation| {
                for observation in first.release(&observation).then(observation) {
                    if let Observation::Transition { transition, .. } = observation {
                        shown.push((transition.time.0, transition.to));
                    }
                }
            });
        }
        assert!(first.held.is_empty(), "{:?}", first.held);
        shown
    }

    use TcpState::{Closed, Established, SynSent};

    #[test]
    fn a_held_transition_is_shown_before_the_second() {
        let transitions = [
            transition(1, 7, Closed, SynSent, 0),
            transition(2, 7, SynSent, Established, 40_000),
            transition(3, 7, Established, Closed, 40_000),
        ];
        assert_eq!(shown(&transitions), [(1, SynSent), (2, Established), (3, Closed)]);
    }

    /// As on a host without a free local port.
    #[test]
    fn a_connection_that_never_has_a_port_is_shown_at_its_close() {
        let transitions = [transition(1, 7, Closed, SynSent, 0), transition(2, 7, SynSent, Closed, 0)];
        assert_eq!(shown(&transitions), [(1, SynSent), (2, Closed)]);
    }

    #[test]
    fn a_held_transition_of_an_earlier_connection_is_dropped() {
        let transitions = [
            transition(1, 7, Closed, SynSent, 0),
            // Its close was missed. The next connection bound its port before connecting.
            transition(5, 7, Closed, SynSent, 40_000),
            transition(6, 7, SynSent, Closed, 40_000),
        ];
        assert_eq!(shown(&transitions), [(5, SynSent), (6, Closed)]);
    }

    #[test]
    fn beyond_the_limit_the_older_half_is_dropped_and_counted() {
        let filter = Filter { local_ports: Some("80".parse().unwrap()), ..Filter::default() };
        let mut first = FirstTransitions::new(&filter);
        let mut tracker = Tracker::new(TrackerOptions::default());
        let many = MAX_HELD as u64 + 1;
        for socket in 0..many {
            let event = Event::Transition(transition(socket, socket, Closed, SynSent, 0));
            tracker.observe(&event, &mut |observation| {
                assert_eq!(first.release(&observation).then(observation).count(), 0);
            });
        }
        assert_eq!(first.held.len() as u64 + first.forgotten(), many);
        assert!((1..many).contains(&first.forgotten()), "{}", first.forgotten());
        assert!(first.held.contains_key(&SocketId(many - 1)));
    }
}
