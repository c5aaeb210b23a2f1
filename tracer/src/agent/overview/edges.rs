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

/// Returns the place of a transition in [`EdgeCounts`].
pub(super) fn index(from: TcpState, to: TcpState) -> usize {
    EDGES.iter().position(|&edge| edge == (from, to)).unwrap_or(EDGES.len())
}
