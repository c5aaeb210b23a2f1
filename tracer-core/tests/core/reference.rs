//! The table once more, as simply as it can be said: what is live, since when it is silent, and how many
//! of each kind there must have been.

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
    pub(crate) begun: u64,
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

    /// Takes in an event that `tracker` has taken in, of which it reported `observed`.
    ///
    /// Which connection is forgotten is the tracker's choice among the most silent; the rest is not.
    pub(crate) fn follow(&mut self, event: &Transition, tracker: &Tracker, observed: &Observed) {
        self.transitions += 1;
        let socket = event.socket.0;
        let (mut closed, mut unseen) = (0, 0);
        let known = self.live.contains_key(&socket);
        let begins = matches!((event.from, event.to), (Closed, SynSent | Listen) | (Listen, SynReceived));
        let adds = match (event.from, event.to) {
            (Closed | Listen, Closed) | (Closed, Listen) => {
                unseen = u64::from(self.live.remove(&socket).is_some());
                None
            }
            _ if begins => {
                unseen = u64::from(self.live.remove(&socket).is_some());
                self.begun += 1;
                Some(event.to)
            }
            (from, to) => {
                if let Some(&(state, _)) = self.live.get(&socket) {
                    self.gaps += u64::from(state != from);
                } else {
                    self.begun += 1;
                    self.unmatched += 1;
                }
                Some(to)
            }
        };
        if let Some(to) = adds {
            let new = !self.live.contains_key(&socket);
            if !observed.evicted.is_empty() {
                assert!(new && self.live.len() == self.max, "forgot a connection without need: {event:?}");
                self.forget(tracker, socket);
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
        assert_eq!(observed.ended.len() as u64, closed, "{event:?}");
        assert_eq!(observed.steps.len(), 1, "one line for each transition");
        let live: BTreeSet<u64> = tracker.connections().map(|(socket, _)| socket.0).collect();
        assert_eq!(live, self.live.keys().copied().collect(), "{event:?}");
        for (socket, connection) in tracker.connections() {
            assert_eq!(connection.state(), self.live[&socket.0].0);
        }
    }

    fn forget(&mut self, tracker: &Tracker, new: u64) {
        let kept: BTreeSet<u64> = tracker.connections().map(|(socket, _)| socket.0).collect();
        let gone: Vec<u64> =
            self.live.keys().copied().filter(|it| *it != new && !kept.contains(it)).collect();
        assert_eq!(gone.len(), 1, "exactly one is forgotten");
        let (_, silent) = self.live.remove(&gone[0]).expect("it is from the table");
        assert!(self.live.values().all(|&(_, since)| since >= silent), "it is the most silent one");
        self.evicted += 1;
    }

    /// Compares every count, and that nothing is lost between them.
    pub(crate) fn check(&self, tracker: &Tracker) {
        let counts = tracker.counts();
        assert_eq!(counts.transitions, self.transitions, "transitions");
        assert_eq!(counts.closed, self.closed, "closed");
        assert_eq!(counts.evicted, self.evicted, "evicted");
        assert_eq!(counts.unmatched, self.unmatched, "unmatched");
        assert_eq!(counts.gaps, self.gaps, "gaps");
        assert_eq!(counts.unseen_closes, self.unseen_closes, "unseen ends");
        assert_eq!(tracker.live(), self.live.len());
        assert!(tracker.live() <= self.max);
        assert_eq!(counts.closed + counts.evicted + tracker.live() as u64, self.begun, "begun");
    }
}
