//! What went along each edge of the TCP state diagram, and how long it had stayed in the state it left.

use std::collections::BTreeMap;

use crate::{
    analysis::DurationSketch,
    event::TcpState,
    lifecycle::{ClosedConnection, EndedTimewait, Observation},
};

/// An edge of the diagram: the state left and the state entered.
pub type Edge = (TcpState, TcpState);

/// What went along an edge.
#[derive(Clone, Debug, Default)]
pub struct EdgeStats {
    /// How many connections.
    pub count: u64,
    /// How many of them ended there in a failure.
    pub failures: u64,
    /// How long they had been in the state left, as far as that is known.
    pub durations: DurationSketch,
}

/// The state diagram with what was seen.
///
/// It is the diagram of RFC 9293, figure 5, so what the kernel's tracepoint leaves out is put in: a connection that
/// the kernel hands over to a mini-socket goes to TIME_WAIT, not to CLOSE, and a server's SYN_RECV lasts as long
/// as the measured handshake.
#[derive(Clone, Debug, Default)]
pub struct StateGraph {
    edges: BTreeMap<Edge, EdgeStats>,
}

impl StateGraph {
    /// Takes in what the core reports.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            // The end of a connection is told once more, with what comes after.
            Observation::Transition { transition, connection: Some(_), .. }
                if transition.to == TcpState::Closed => {}
            Observation::Transition { transition, .. } if transition.from == transition.to => {}
            Observation::Transition { transition, duration_ns, connection } => {
                let handshake = connection
                    .and_then(|connection| connection.handshake)
                    .filter(|handshake| handshake.replaces(transition.from));
                // The measured one in place of the microseconds that the kernel's socket spends in SYN_RECV, also
                // when it is not known.
                let duration = handshake.map_or(*duration_ns, |handshake| handshake.duration_ns);
                self.add((transition.from, transition.to), duration, false);
            }
            Observation::Closed(closed) if closed.close_seen => self.closed(closed),
            Observation::TimewaitEnd { end, .. } => self.timewait_ended(end),
            _ => {}
        }
    }

    fn closed(&mut self, closed: &ClosedConnection<'_>) {
        let history = &closed.connection.history;
        let from = history.current();
        let duration = history.since().map(|since| closed.closed.since(since));
        match closed.after {
            // It stays in the state, without a socket; its end has an event of its own.
            Some(after) if after.state == from => {}
            Some(after) => self.add((from, after.state), duration, false),
            None => self.add((from, TcpState::Closed), duration, closed.close_cause.reason.is_failure()),
        }
    }

    fn timewait_ended(&mut self, end: &EndedTimewait) {
        self.add((end.state, TcpState::Closed), Some(end.duration_ns), end.state == TcpState::FinWait2);
    }

    fn add(&mut self, edge: Edge, duration_ns: Option<u64>, failure: bool) {
        let stats = self.edges.entry(edge).or_default();
        stats.count += 1;
        stats.failures += u64::from(failure);
        // Nothing has been in CLOSE before its first event.
        if let Some(duration) = duration_ns.filter(|_| edge.0 != TcpState::Closed) {
            stats.durations.add(duration);
        }
    }

    /// What went along an edge; none when nothing did.
    pub fn edge(&self, edge: Edge) -> Option<&EdgeStats> {
        self.edges.get(&edge)
    }

    /// Every edge that something went along, in the order of a connection's life.
    pub fn edges(&self) -> impl Iterator<Item = (Edge, &EdgeStats)> {
        let every = TcpState::ALL.into_iter().flat_map(|from| TcpState::ALL.map(|to| (from, to)));
        every.filter_map(|edge| Some((edge, self.edges.get(&edge)?)))
    }

    /// How long connections stayed in a state that they have left.
    pub fn time_in(&self, state: TcpState) -> DurationSketch {
        let mut all = DurationSketch::default();
        for (_, stats) in self.edges.iter().filter(|((from, _), _)| *from == state) {
            all.merge(&stats.durations);
        }
        all
    }
}

/// Whether an edge is none that a connection should take.
pub fn is_pathological((from, to): Edge) -> bool {
    to == TcpState::Closed
        && !matches!(from, TcpState::LastAck | TcpState::TimeWait | TcpState::Listen | TcpState::Closed)
}

/// How many connections there are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCounts([u64; 12]);

impl LiveCounts {
    /// Counts one more.
    pub fn add(&mut self, state: TcpState, count: u64) {
        self.0[state as usize] += count;
    }

    /// How many are in a state.
    pub fn of(&self, state: TcpState) -> u64 {
        self.0[state as usize]
    }
}
