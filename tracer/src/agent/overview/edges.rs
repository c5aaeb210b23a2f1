//! The transitions that are counted separately for each facet.

use tracer_core::event::TcpState::{
    self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
};

/// The transitions of regular connections and of failures, as the kernel's tracepoint reports them: TIME_WAIT has no
/// transition, because a timewait socket replaces the closed one.
pub(super) const EDGES: [(TcpState, TcpState); 21] = [
    (Closed, Listen),
    (Closed, SynSent),
    (Listen, SynReceived),
    (Listen, Closed),
    (SynSent, SynReceived),
    (SynSent, Established),
    (SynSent, Closed),
    (SynReceived, Established),
    (SynReceived, FinWait1),
    (SynReceived, Closed),
    (Established, FinWait1),
    (Established, CloseWait),
    (Established, Closed),
    (FinWait1, FinWait2),
    (FinWait1, Closing),
    (FinWait1, Closed),
    (FinWait2, Closed),
    (CloseWait, LastAck),
    (CloseWait, Closed),
    (Closing, Closed),
    (LastAck, Closed),
];

/// Counts for each of [`EDGES`]; the last one is for all other transitions.
pub(super) type EdgeCounts = [u32; EDGES.len() + 1];

/// The place of each pair of states in [`EdgeCounts`]. A search would be measurable per transition.
#[expect(clippy::cast_possible_truncation, reason = "there are 21 edges")]
const PLACES: [[u8; STATES]; STATES] = {
    let mut places = [[EDGES.len() as u8; STATES]; STATES];
    let mut edge = 0;
    while edge < EDGES.len() {
        let (from, to) = EDGES[edge];
        places[from as usize][to as usize] = edge as u8;
        edge += 1;
    }
    places
};
/// Numbers of states: those of the kernel, from 1 on.
const STATES: usize = 16;

/// Returns the place of a transition in [`EdgeCounts`].
pub(super) fn index(from: TcpState, to: TcpState) -> usize {
    usize::from(PLACES[from as usize % STATES][to as usize % STATES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edge_has_its_place() {
        for (place, (from, to)) in EDGES.into_iter().enumerate() {
            assert_eq!(index(from, to), place, "{from:?} to {to:?}");
        }
        assert_eq!(index(Closed, Closed), EDGES.len());
        assert_eq!(index(Listen, Established), EDGES.len());
    }
}
