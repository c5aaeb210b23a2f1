//! Counts the transitions along each edge of the TCP state diagram, with the time spent in the previous state.

use std::collections::BTreeMap;

use crate::{
    analysis::DurationSketch,
    event::{Nanos, TcpState},
    lifecycle::{ClosedConnection, EndedTimewait, Observation},
};

/// An edge of the diagram: the previous state and the new state.
pub type Edge = (TcpState, TcpState);

/// The statistics of an edge.
#[derive(Clone, Debug, Default)]
pub struct EdgeStats {
    /// The number of transitions along the edge.
    pub count: u64,
    /// The number of those that closed a connection with a failure.
    pub failures: u64,
    /// The known times spent in the previous state.
    pub durations: DurationSketch,
}

/// The TCP state diagram with statistics for each edge.
///
/// The diagram is RFC 9293, figure 5. It corrects two simplifications of the kernel's tracepoint: a
/// connection that continues as a timewait socket goes to TIME_WAIT, not to CLOSE, and a server's SYN_RECV
/// lasts as long as the measured handshake.
#[derive(Clone, Debug, Default)]
pub struct StateGraph {
    edges: BTreeMap<Edge, EdgeStats>,
}

impl StateGraph {
    /// Adds an observation of the tracker.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            // The close is counted with `Observation::Closed`, which has the state after it.
            Observation::Transition { transition, connection: Some(_), .. }
                if transition.to == TcpState::Closed => {}
            Observation::Transition { transition, .. } if transition.from == transition.to => {}
            Observation::Transition { transition, duration, connection, .. } => {
                let handshake = connection
                    .and_then(|connection| connection.handshake)
                    .filter(|handshake| handshake.replaces(transition.from));
                // The measured handshake replaces the microseconds that the kernel's socket spends in
                // SYN_RECV, even if its duration is unknown.
                let duration = handshake.map_or(*duration, |handshake| handshake.duration);
                self.add((transition.from, transition.to), duration, false);
            }
            Observation::Closed(closed) if closed.close_seen => self.closed(closed),
            Observation::TimewaitEnd { end, .. } => self.timewait_removed(end),
            _ => {}
        }
    }

    fn closed(&mut self, closed: &ClosedConnection<'_>) {
        let history = &closed.connection.history;
        let from = history.current();
        let duration = history.since().map(|since| closed.closed.since(since));
        match closed.after {
            // An orphaned FIN_WAIT2 stays in its state; its removal is a separate event.
            Some(after) if after.state == from => {}
            Some(after) => self.add((from, after.state), duration, false),
            None => self.add((from, TcpState::Closed), duration, closed.close_cause.reason.is_failure()),
        }
    }

    fn timewait_removed(&mut self, end: &EndedTimewait) {
        self.add((end.state, TcpState::Closed), Some(end.duration), end.state == TcpState::FinWait2);
    }

    fn add(&mut self, edge: Edge, duration: Option<Nanos>, failure: bool) {
        let stats = self.edges.entry(edge).or_default();
        stats.count += 1;
        stats.failures += u64::from(failure);
        // A new socket in CLOSE has no meaningful age.
        if let Some(duration) = duration.filter(|_| edge.0 != TcpState::Closed) {
            stats.durations.add(duration);
        }
    }

    /// Returns the statistics of an edge; none if no transition took it.
    pub fn edge(&self, edge: Edge) -> Option<&EdgeStats> {
        self.edges.get(&edge)
    }

    /// Iterates over the edges with transitions, in the order of a connection's lifecycle.
    pub fn edges(&self) -> impl Iterator<Item = (Edge, &EdgeStats)> {
        let every = TcpState::ALL.into_iter().flat_map(|from| TcpState::ALL.map(|to| (from, to)));
        every.filter_map(|edge| Some((edge, self.edges.get(&edge)?)))
    }

    /// Returns the times that connections spent in `state` before they left it.
    pub fn time_in(&self, state: TcpState) -> DurationSketch {
        let mut all = DurationSketch::default();
        for (_, stats) in self.edges.iter().filter(|((from, _), _)| *from == state) {
            all.merge(&stats.durations);
        }
        all
    }
}

/// Returns whether an edge skips the orderly close: it leads to CLOSE from any other state than LAST_ACK, TIME_WAIT,
/// LISTEN and CLOSE.
pub fn is_pathological((from, to): Edge) -> bool {
    to == TcpState::Closed
        && !matches!(from, TcpState::LastAck | TcpState::TimeWait | TcpState::Listen | TcpState::Closed)
}

/// The number of connections in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCounts([u64; 12]);

impl LiveCounts {
    /// Adds `count` connections in `state`.
    pub fn add(&mut self, state: TcpState, count: u64) {
        self.0[state as usize] += count;
    }

    /// Returns the number of connections in `state`.
    pub fn of(&self, state: TcpState) -> u64 {
        self.0[state as usize]
    }
}
