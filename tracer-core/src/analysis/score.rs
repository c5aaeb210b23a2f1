//! Which group is to blame: what it costs, and for which faults.

use crate::analysis::{HandshakeOutcome, HandshakeStats};

const MS: u64 = 1_000_000;
/// What a failure costs at least: ten seconds.
const FAILURE_NS: u64 = 10_000 * MS;
/// Handshakes without a fault that every group is given, so that one mishap does not outrank a real trouble.
const BENEFIT_OF_DOUBT: u64 = 10;
/// From this cost on a group is a culprit.
const CULPRIT_NS: u64 = MS;
/// A median that is so many times that of the host, and so much above it, is slow.
const SLOW_TIMES: u64 = 2;
const SLOW_ABOVE_NS: u64 = MS;
/// With more handshakes than this that lost a SYN, percent, the median tells of the loss and not of the network.
const LOSS_DOMINATES_PERCENT: u64 = 40;

/// Something that is wrong with the handshakes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Some failed.
    Failing {
        /// The most frequent way.
        outcome: HandshakeOutcome,
        /// How many failed in that way.
        count: u64,
        /// Of how many in all.
        of: u64,
    },
    /// Some lost a SYN or a SYN-ACK.
    Losing {
        /// How many.
        count: u64,
        /// Of how many that completed and of which it is known.
        of: u64,
        /// What each of them waited for the resends on average, nanoseconds; none when that is not known.
        mean_wait_ns: Option<u64>,
    },
    /// Half of them took far longer than the host's median.
    Slow {
        /// The median, nanoseconds.
        p50_ns: u64,
        /// The host's median, nanoseconds.
        host_ns: u64,
        /// Most of the time is the network's round trip; false when it is not, or not known.
        by_network: bool,
    },
}

/// How much a group is to blame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorstOffender {
    /// The time that a handshake of the group loses on average, nanoseconds: the wait for resends; for a failure
    /// what it took, at least ten seconds; and when the group is slow, the distance of its median from the
    /// host's. Ten handshakes without a fault are counted in.
    pub cost_ns: u64,
    /// What is wrong, the worst kind first.
    pub faults: Vec<Fault>,
}

impl WorstOffender {
    /// Judges a group on a host whose median is `host_ns`.
    pub(super) fn judge(stats: &HandshakeStats, host_ns: Option<u64>) -> Self {
        let mut faults = Vec::new();
        let mut lost_ns = stats.lost_time_ns();
        if let Some((outcome, count)) =
            stats.failures().max_by_key(|&(outcome, count)| (count, std::cmp::Reverse(outcome)))
        {
            faults.push(Fault::Failing { outcome, count, of: stats.count() });
        }
        let (lost, known) = stats.lost_a_syn();
        if lost > 0 {
            faults.push(Fault::Losing { count: lost, of: known, mean_wait_ns: stats.mean_resend_wait_ns() });
        }
        if let (Some(p50_ns), Some(host_ns)) = (stats.durations().quantile_ns(0.5), host_ns) {
            let slow = p50_ns >= host_ns.saturating_mul(SLOW_TIMES) && p50_ns - host_ns >= SLOW_ABOVE_NS;
            if slow && lost * 100 <= known * LOSS_DOMINATES_PERCENT {
                lost_ns += u128::from(p50_ns - host_ns) * u128::from(stats.established());
                let without_resends = stats.durations().sum_ns().saturating_sub(stats.resends_ns());
                let by_network = stats.network_ns() > without_resends / 2;
                faults.push(Fault::Slow { p50_ns, host_ns, by_network });
            }
        }
        let cost = lost_ns / u128::from(stats.count() + BENEFIT_OF_DOUBT);
        Self { cost_ns: u64::try_from(cost).unwrap_or(u64::MAX), faults }
    }

    /// Whether it is worth naming.
    pub fn is_one(&self) -> bool {
        self.cost_ns >= CULPRIT_NS && !self.faults.is_empty()
    }
}

/// What an opening that was not completed has cost, nanoseconds.
pub(super) fn failure_cost_ns(outcome: HandshakeOutcome, duration_ns: Option<u64>) -> u64 {
    let duration = duration_ns.unwrap_or(0);
    match outcome {
        HandshakeOutcome::Established => 0,
        HandshakeOutcome::Failed(reason) if !reason.is_failure() => duration,
        HandshakeOutcome::Failed(_) | HandshakeOutcome::Abandoned => duration.max(FAILURE_NS),
    }
}
