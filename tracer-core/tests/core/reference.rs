//! A minimal reference implementation of the table: the live sockets, their last events, and the expected counters.

use std::collections::{BTreeMap, BTreeSet};

use tracer_core::{
    event::{
        TcpState::{self, Closed, Listen, SynReceived, SynSent},
        Timestamp, Transition,
    },
    lifecycle::Tracker,
};

use crate::observed::Observed;

#[derive(Debug, Default)]
pub(crate) struct Reference {
    max: usize,
    live: BTreeMap<u64, (TcpState, Timestamp)>,
    pub(crate) started: u64,
    pub(crate) transitions: u64,
    pub(crate) closed: u64,
    pub(crate) evicted: u64,
    pub(crate) unmatched: u64,
    pub(crate) gaps: u64,
    pub(crate) unseen_closes: u64,
}

impl Reference {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Processes an event after `tracker`, which reported `observed`, and compares the results.
    ///
    /// The tracker chooses the evicted connection among the least recently active; everything else is determined.
    pub(crate) fn observe(&mut self, event: &Transition, tracker: &Tracker, observed: &Observed) {
        self.transitions += 1;
        let socket = event.socket.0;
        let (mut closed, mut unseen) = (0, 0);
        let known = self.live.contains_key(&socket);
        let starts = matches!((event.from, event.to), (Closed, SynSent | Listen) | (Listen, SynReceived));
        let adds = match (event.from, event.to) {
            (Closed | Listen, Closed) | (Closed, Listen) => {
                unseen = u64::from(self.live.remove(&socket).is_some());
                None
            }
            _ if starts => {
                unseen = u64::from(self.live.remove(&socket).is_some());
                self.started += 1;
                Some(event.to)
            }
            (from, to) => {
                if let Some(&(state, _)) = self.live.get(&socket) {
                    self.gaps += u64::from(state != from);
                } else {
                    self.started += 1;
                    self.unmatched += 1;
                }
                Some(to)
            }
        };
        if let Some(to) = adds {
            let new = !self.live.contains_key(&socket);
            if !observed.evicted.is_empty() {
                assert!(new && self.live.len() == self.max, "unnecessary eviction: {event:?}");
                self.evict(tracker, socket);
            }
            self.live.insert(socket, (to, event.time));
            if to == Closed {
                self.live.remove(&socket);
                closed = 1;
            }
        } else {
            assert!(observed.evicted.is_empty());
        }
        closed += unseen;
        self.unseen_closes += unseen;
        self.closed += closed;
        assert!(unseen == 0 || known);
        assert_eq!(observed.closed.len() as u64, closed, "{event:?}");
        assert_eq!(observed.steps.len(), 1, "each transition is reported once");
        let live: BTreeSet<u64> = tracker.connections().map(|(socket, _)| socket.0).collect();
        assert_eq!(live, self.live.keys().copied().collect(), "{event:?}");
        for (socket, connection) in tracker.connections() {
            assert_eq!(connection.state(), self.live[&socket.0].0);
        }
    }

    fn evict(&mut self, tracker: &Tracker, new: u64) {
        let kept: BTreeSet<u64> = tracker.connections().map(|(socket, _)| socket.0).collect();
        let gone: Vec<u64> =
            self.live.keys().copied().filter(|it| *it != new && !kept.contains(it)).collect();
        assert_eq!(gone.len(), 1, "exactly one connection is evicted");
        let (_, last_event) = self.live.remove(&gone[0]).expect("the evicted connection was in the table");
        assert!(
            self.live.values().all(|&(_, since)| since >= last_event),
            "the evicted connection is the least recently active"
        );
        self.evicted += 1;
    }

    /// Compares all counters, and checks that every connection is accounted for.
    pub(crate) fn check(&self, tracker: &Tracker) {
        let counts = tracker.counts();
        assert_eq!(counts.transitions, self.transitions, "transitions");
        assert_eq!(counts.closed, self.closed, "closed");
        assert_eq!(counts.evicted, self.evicted, "evicted");
        assert_eq!(counts.unmatched, self.unmatched, "unmatched");
        assert_eq!(counts.gaps, self.gaps, "gaps");
        assert_eq!(counts.unseen_closes, self.unseen_closes, "unseen closes");
        assert_eq!(tracker.live(), self.live.len());
        assert!(tracker.live() <= self.max);
        assert_eq!(counts.closed + counts.evicted + tracker.live() as u64, self.started, "started");
    }
}
