//! The counts without opt-in labels.

use crate::agent::metrics::{histogram::Histogram, names::EVENT_TYPES, tally::HANDSHAKE_ROLES};

/// The counts without opt-in labels.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// Indexed by the kernel's numbers of the state left and the state entered.
    pub(super) transitions: [[u64; 12]; 12],
    pub(super) state_durations: [Histogram; 12],
    pub(super) rtts: [Histogram; HANDSHAKE_ROLES],
    pub(super) connection_durations: [Histogram; 4],
    pub(super) events: [u64; EVENT_TYPES.len()],
}
