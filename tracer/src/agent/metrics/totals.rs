//! The counts that belong to nobody.

use crate::agent::metrics::{Histogram, names::EVENT_TYPES, tally::HANDSHAKE_ROLES};

/// The counts that belong to nobody.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// By the kernel's numbers of the states left and entered.
    pub(super) transitions: [[u64; 12]; 12],
    pub(super) state_durations: [Histogram; 12],
    pub(super) rtts: [Histogram; HANDSHAKE_ROLES],
    pub(super) connection_durations: [Histogram; 4],
    pub(super) events: [u64; EVENT_TYPES.len()],
}
