//! The counts that opt-in labels divide: one set per label combination.

use tracer_core::{
    event::{Nanos, TcpState},
    lifecycle::{CloseReason, Role},
};

use crate::agent::metrics::{
    histogram::{HANDSHAKE_BOUNDS, Histogram},
    names::{NETWORK_TYPES, OutcomeLabel, role_index},
};

/// Number of roles of a handshake: client, server, simultaneous.
pub(super) const HANDSHAKE_ROLES: usize = 3;

/// Counts indexed by the kernel's state number.
pub(super) type ByState = [u32; 12];

/// The counters of one label combination.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) handshakes: [[u64; OutcomeLabel::ALL.len()]; HANDSHAKE_ROLES],
    /// By role and network type; allocated with the first observation.
    pub(super) durations: [[Option<Box<Histogram>>; NETWORK_TYPES.len()]; HANDSHAKE_ROLES],
    pub(super) syn_retransmits: [u64; HANDSHAKE_ROLES],
    pub(super) closed: [[u64; CloseReason::ALL.len()]; 4],
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Tally {
    /// Counts a finished handshake.
    pub(super) fn handshake(&mut self, role: Role, outcome: OutcomeLabel) {
        if let Some(counts) = self.handshakes.get_mut(role_index(role)) {
            counts[outcome as usize] += 1;
        }
    }

    /// Counts the duration of a completed handshake.
    pub(super) fn duration(&mut self, role: Role, ipv4: bool, duration: Nanos) {
        if let Some(histograms) = self.durations.get_mut(role_index(role)) {
            histograms[usize::from(!ipv4)]
                .get_or_insert_with(|| Box::new(Histogram::new(&HANDSHAKE_BOUNDS)))
                .observe(duration);
        }
    }

    /// Counts retransmitted SYNs or SYN-ACKs.
    pub(super) fn retransmits(&mut self, role: Role, count: u8) {
        if let Some(total) = self.syn_retransmits.get_mut(role_index(role)) {
            *total += u64::from(count);
        }
    }

    /// Counts a closed connection.
    pub(super) fn closed(&mut self, role: Role, reason: CloseReason) {
        self.closed[role_index(role)][reason as usize] += 1;
    }

    /// Estimates the number of lines on the page.
    pub(super) fn lines(&self) -> usize {
        let filled = |counts: &[u64]| counts.iter().filter(|&&count| count > 0).count();
        let histograms = self.durations.iter().flatten().flatten().count();
        self.handshakes.iter().map(|counts| filled(counts)).sum::<usize>()
            + self.closed.iter().map(|counts| filled(counts)).sum::<usize>()
            + filled(&self.syn_retransmits)
            + filled(&[self.bytes_sent, self.bytes_received])
            + histograms * (HANDSHAKE_BOUNDS.upper().len() + 3)
    }
}

/// Live connections by state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gauges {
    pub(super) connections: ByState,
    pub(super) stuck: ByState,
}

impl Gauges {
    pub(super) fn add(&mut self, state: TcpState, stuck: bool) {
        self.connections[state as usize] += 1;
        self.stuck[state as usize] += u32::from(stuck);
    }

    pub(super) fn lines(&self) -> usize {
        self.connections.iter().chain(&self.stuck).filter(|&&count| count > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::metrics::names::ROLES;

    #[test]
    fn discriminants_match_array_indices() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, outcome) in OutcomeLabel::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        for (index, role) in ROLES.into_iter().enumerate() {
            assert_eq!(role_index(role), index);
        }
        assert!(TcpState::ALL.iter().all(|&state| (state as usize) < 12));
    }

    #[test]
    fn a_handshake_without_a_role_is_not_counted() {
        let mut tally = Tally::default();
        tally.handshake(Role::Unknown, OutcomeLabel::Established);
        tally.duration(Role::Unknown, true, Nanos(1));
        tally.retransmits(Role::Unknown, 1);
        assert_eq!(tally.lines(), 0);
        tally.duration(Role::Server, false, Nanos(1));
        assert_eq!(tally.durations[1][1].as_ref().map(|histogram| histogram.count()), Some(1));
    }
}
