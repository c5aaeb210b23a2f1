//! The counts without opt-in labels.

use std::collections::BTreeMap;

use tracer_core::event::{HandshakeSegment, KernelName};

use crate::agent::metrics::{
    histogram::Histogram,
    names::{ACCEPT_WAITS, EVENT_TYPES},
    tally::HANDSHAKE_ROLES,
};

/// Most reasons that have a series of their own. The kernel has about 130; a recording may have any.
const MAX_REASONS: usize = 256;

/// Counts by something and the kernel's reason. Further reasons are counted as `other`.
#[derive(Clone, Debug)]
pub(super) struct ByReason<K>(BTreeMap<(K, KernelName), u64>);

impl<K> Default for ByReason<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> ByReason<K> {
    /// Counts one; `None` is a reason that the kernel does not give.
    pub(super) fn count(&mut self, key: K, reason: Option<KernelName>) {
        let reason = reason.unwrap_or_else(|| KernelName::new(b"unknown"));
        let is_new = !self.0.contains_key(&(key, reason));
        let reason = if is_new && self.0.len() >= MAX_REASONS { KernelName::new(b"other") } else { reason };
        *self.0.entry((key, reason)).or_default() += 1;
    }

    /// Iterates over the counts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &KernelName, u64)> + '_ {
        self.0.iter().map(|((key, reason), count)| (*key, reason, *count))
    }
}

/// The counts without opt-in labels.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// Indexed by the kernel's numbers of the state left and the state entered.
    pub(super) transitions: [[u64; 12]; 12],
    pub(super) state_durations: [Histogram; 12],
    pub(super) rtts: [Histogram; HANDSHAKE_ROLES],
    pub(super) connection_durations: [Histogram; 4],
    pub(super) events: [u64; EVENT_TYPES.len()],
    /// In the order of [`ACCEPT_WAITS`].
    pub(super) accept_waits: [Histogram; ACCEPT_WAITS.len()],
    pub(super) inbound_refused: ByReason<()>,
    pub(super) segment_drops: ByReason<HandshakeSegment>,
}
