//! The counts that belong to somebody: one set in all, or one for each combination of opt-in labels.

use tracer_core::{
    event::TcpState,
    lifecycle::{CloseReason, Role},
};

use crate::agent::metrics::{
    Histogram, OutcomeLabel,
    histogram::HANDSHAKE_BOUNDS,
    names::{NETWORK_TYPES, role_index},
};

/// Openings have three roles: client, server, simultaneous.
pub(super) const HANDSHAKE_ROLES: usize = 3;

/// Counts by state, at the place of the kernel's number.
pub(super) type ByState = [u32; 12];

/// What was counted for one owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) handshakes: [[u64; OutcomeLabel::ALL.len()]; HANDSHAKE_ROLES],
    /// By role and network type; made when the first is observed.
    pub(super) durations: [[Option<Box<Histogram>>; NETWORK_TYPES.len()]; HANDSHAKE_ROLES],
    pub(super) syn_retransmits: [u64; HANDSHAKE_ROLES],
    pub(super) closed: [[u64; CloseReason::ALL.len()]; 4],
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Tally {
    /// An opening came to an end.
    pub(super) fn handshake(&mut self, role: Role, outcome: OutcomeLabel) {
        if let Some(counts) = self.handshakes.get_mut(role_index(role)) {
            counts[outcome as usize] += 1;
        }
    }

    /// How long a successful one took, nanoseconds.
    pub(super) fn duration(&mut self, role: Role, ipv4: bool, nanoseconds: u64) {
        if let Some(histograms) = self.durations.get_mut(role_index(role)) {
            histograms[usize::from(!ipv4)]
                .get_or_insert_with(|| Box::new(Histogram::new(HANDSHAKE_BOUNDS)))
                .observe(nanoseconds);
        }
    }

    /// SYNs were sent again.
    pub(super) fn retransmits(&mut self, role: Role, count: u8) {
        if let Some(total) = self.syn_retransmits.get_mut(role_index(role)) {
            *total += u64::from(count);
        }
    }

    /// A connection ended.
    pub(super) fn closed(&mut self, role: Role, reason: CloseReason) {
        self.closed[role_index(role)][reason as usize] += 1;
    }

    /// About how many lines it takes on the page.
    pub(super) fn lines(&self) -> usize {
        let filled = |counts: &[u64]| counts.iter().filter(|&&count| count > 0).count();
        let histograms = self.durations.iter().flatten().flatten().count();
        self.handshakes.iter().map(|counts| filled(counts)).sum::<usize>()
            + self.closed.iter().map(|counts| filled(counts)).sum::<usize>()
            + filled(&self.syn_retransmits)
            + filled(&[self.bytes_sent, self.bytes_received])
            + histograms * (HANDSHAKE_BOUNDS.len() + 3)
    }
}

/// Who is there now, by state.
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
    fn enumerations_stand_at_their_places() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, outcome) in OutcomeLabel::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
        for (place, role) in ROLES.into_iter().enumerate() {
            assert_eq!(role_index(role), place);
        }
        assert!(TcpState::ALL.iter().all(|&state| (state as usize) < 12));
    }

    #[test]
    fn an_opening_without_a_role_is_none() {
        let mut tally = Tally::default();
        tally.handshake(Role::Unknown, OutcomeLabel::Established);
        tally.duration(Role::Unknown, true, 1);
        tally.retransmits(Role::Unknown, 1);
        assert_eq!(tally.lines(), 0);
        tally.duration(Role::Server, false, 1);
        assert_eq!(tally.durations[1][1].as_ref().map(|histogram| histogram.count()), Some(1));
    }
}
