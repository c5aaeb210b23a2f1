//! Scores groups of handshakes by the time that they lose, and names their faults.

use crate::{
    analysis::{HandshakeOutcome, HandshakeStats, sketch::saturate},
    event::Nanos,
    lifecycle::SegmentDrop,
};

/// The minimum cost of a failure: 10 s.
const MIN_FAILURE_COST: Nanos = Nanos::from_secs(10);
/// Faultless handshakes added to every group, so that a single failure does not outrank a persistent fault.
const PRIOR_GOOD_HANDSHAKES: u64 = 10;
/// The minimum cost of an offender.
const MIN_OFFENDER_COST: Nanos = Nanos::from_millis(1);
/// A group is slow if its median exceeds the host's median by this factor and by [`SLOW_EXCESS`].
const SLOW_FACTOR: u64 = 2;
const SLOW_EXCESS: Nanos = Nanos::from_millis(1);
/// With a larger share of handshakes with a retransmission, percent, the median reflects the wait and not the network.
const LOSS_DOMINATES_PERCENT: u64 = 40;

/// A fault of the handshakes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Some handshakes failed.
    Failing {
        /// The most frequent outcome of the failures.
        outcome: HandshakeOutcome,
        /// The number of failures with that outcome.
        count: u64,
        /// The number of all handshakes of the group.
        of: u64,
    },
    /// Some handshakes needed a retransmitted SYN or SYN-ACK.
    Resending {
        /// The number of handshakes with a loss.
        count: u64,
        /// The number of completed handshakes with a known number of retransmissions.
        of: u64,
        /// The mean wait for the retransmissions; none when unknown.
        mean_wait: Option<Nanos>,
    },
    /// This host dropped segments of some handshakes.
    Dropping {
        /// The most frequent drop.
        drop: SegmentDrop,
    },
    /// The median is far above the host's median.
    Slow {
        /// The median of the group.
        p50: Nanos,
        /// The host's median.
        host_median: Nanos,
        /// The network round trip is most of the duration; false if it is not, or if unknown.
        by_network: bool,
    },
}

/// The score of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupScore {
    /// The mean time that a handshake of the group loses.
    ///
    /// A handshake loses the wait for its retransmissions. A failure loses its duration, at least 10 s. In a
    /// slow group every handshake also loses the difference between the group's and the host's median. The
    /// mean includes ten additional faultless handshakes.
    pub cost: Nanos,
    /// The faults, the most serious kind first.
    pub faults: Vec<Fault>,
}

impl GroupScore {
    /// Computes the score of a group on a host with the median `host_median`.
    pub(super) fn compute(stats: &HandshakeStats, host_median: Option<Nanos>) -> Self {
        let mut faults = Vec::new();
        let mut lost_time = stats.lost_time_ns();
        if let Some((outcome, count)) =
            stats.failures().max_by_key(|&(outcome, count)| (count, std::cmp::Reverse(outcome)))
        {
            faults.push(Fault::Failing { outcome, count, of: stats.count() });
        }
        let (lost, known) = stats.retransmitted();
        if lost > 0 {
            faults.push(Fault::Resending { count: lost, of: known, mean_wait: stats.mean_retransmit_wait() });
        }
        // Of equally frequent ones, the earliest.
        if let Some(drop) = stats.drops().iter().rev().max_by_key(|drop| drop.count) {
            faults.push(Fault::Dropping { drop: *drop });
        }
        if let (Some(p50), Some(host_median)) = (stats.durations().quantile(0.5), host_median) {
            let excess = p50.saturating_sub(host_median);
            let slow = p50 >= host_median.saturating_mul(SLOW_FACTOR) && excess >= SLOW_EXCESS;
            if slow && lost * 100 <= known * LOSS_DOMINATES_PERCENT {
                lost_time += u128::from(excess.0) * u128::from(stats.established());
                let without_waits = stats.durations().sum().saturating_sub(stats.retransmit_wait());
                let by_network = stats.network().0 > without_waits.0 / 2;
                faults.push(Fault::Slow { p50, host_median, by_network });
            }
        }
        let cost = lost_time / u128::from(stats.count() + PRIOR_GOOD_HANDSHAKES);
        Self { cost: saturate(cost), faults }
    }

    /// Returns whether the group is an offender: it has a fault and costs at least 1 ms per handshake, or this host
    /// dropped segments. What a drop costs is often unknown here: the client of a dropped final ACK sees no delay until
    /// it reads.
    pub fn is_offender(&self) -> bool {
        let drops = self.faults.iter().any(|fault| matches!(fault, Fault::Dropping { .. }));
        drops || (self.cost >= MIN_OFFENDER_COST && !self.faults.is_empty())
    }
}

/// Returns the cost of an attempt that was not completed.
pub(super) fn failure_cost(outcome: HandshakeOutcome, duration: Option<Nanos>) -> Nanos {
    let duration = duration.unwrap_or_default();
    match outcome {
        HandshakeOutcome::Established => Nanos::ZERO,
        HandshakeOutcome::Failed(reason) if !reason.is_failure() => duration,
        HandshakeOutcome::Failed(_) | HandshakeOutcome::Abandoned => duration.max(MIN_FAILURE_COST),
    }
}
