//! Handshakes in groups, with the slowest of all and how they are distributed.

use std::{cmp::Reverse, sync::Arc};

use hashbrown::HashMap;

use crate::{
    analysis::{
        DurationSketch, GroupKey, HandshakeAttempt, HandshakeOutcome, HandshakesBy, Histogram, WorstOffender,
        score::failure_cost_ns,
    },
    lifecycle::CloseReason,
};

/// How handshakes are summed up.
#[derive(Clone, Copy, Debug)]
pub struct HandshakesOptions {
    /// What they are grouped by.
    pub by: HandshakesBy,
    /// How many of the slowest are kept.
    pub slowest: usize,
    /// Most groups; the handshakes of further ones are summed up together. Each takes 3 to 20 KiB.
    pub max_groups: usize,
}

/// The figures of a group.
#[derive(Clone, Debug, Default)]
pub struct HandshakeStats {
    count: u64,
    established: u64,
    failed: [u64; CloseReason::ALL.len()],
    abandoned: u64,
    durations: DurationSketch,
    lost: u64,
    loss_known: u64,
    waits_known: u64,
    network_ns: u128,
    resends_ns: u128,
    lost_time_ns: u128,
}

impl HandshakeStats {
    /// Takes in a handshake that is over.
    fn add(&mut self, opening: &HandshakeAttempt) {
        self.count += 1;
        match opening.outcome {
            HandshakeOutcome::Established => self.add_established(opening),
            HandshakeOutcome::Failed(reason) => self.failed[reason as usize] += 1,
            HandshakeOutcome::Abandoned => self.abandoned += 1,
        }
        self.lost_time_ns += u128::from(failure_cost_ns(opening.outcome, opening.duration_ns));
    }

    fn add_established(&mut self, opening: &HandshakeAttempt) {
        self.established += 1;
        if let Some(duration) = opening.duration_ns {
            self.durations.add(duration);
        }
        let lost = opening.lost_a_syn();
        self.loss_known += u64::from(lost.is_some());
        self.lost += u64::from(lost == Some(true));
        let split = opening.split();
        self.network_ns += u128::from(split.network.unwrap_or(0));
        if let Some(wait) = split.resends.filter(|_| lost == Some(true)) {
            self.waits_known += 1;
            self.resends_ns += u128::from(wait);
            self.lost_time_ns += u128::from(wait);
        }
    }

    /// Takes in all of another group.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.established += other.established;
        for (own, other) in self.failed.iter_mut().zip(other.failed) {
            *own += other;
        }
        self.abandoned += other.abandoned;
        self.durations.merge(&other.durations);
        self.lost += other.lost;
        self.loss_known += other.loss_known;
        self.waits_known += other.waits_known;
        self.network_ns += other.network_ns;
        self.resends_ns += other.resends_ns;
        self.lost_time_ns += other.lost_time_ns;
    }

    /// Openings that are over, completed or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Openings that were completed.
    pub fn established(&self) -> u64 {
        self.established
    }

    /// Openings that were not completed.
    pub fn not_completed(&self) -> u64 {
        self.count - self.established
    }

    /// How many were not completed, by how they ended; those that did not occur are left out.
    pub fn failures(&self) -> impl Iterator<Item = (HandshakeOutcome, u64)> + '_ {
        CloseReason::ALL
            .into_iter()
            .map(|reason| (HandshakeOutcome::Failed(reason), self.failed[reason as usize]))
            .chain([(HandshakeOutcome::Abandoned, self.abandoned)])
            .filter(|&(_, count)| count > 0)
    }

    /// The durations of the completed ones, as far as they are known.
    pub fn durations(&self) -> &DurationSketch {
        &self.durations
    }

    /// How many of the completed ones lost a SYN or a SYN-ACK, and of how many that is known.
    pub fn lost_a_syn(&self) -> (u64, u64) {
        (self.lost, self.loss_known)
    }

    /// The network's part of the durations, nanoseconds.
    pub fn network_ns(&self) -> u64 {
        u64::try_from(self.network_ns).unwrap_or(u64::MAX)
    }

    /// The part of the durations that was waiting for resends, nanoseconds.
    pub fn resends_ns(&self) -> u64 {
        u64::try_from(self.resends_ns).unwrap_or(u64::MAX)
    }

    /// What a handshake with a resend waited for it on average, nanoseconds; none when no wait is known.
    pub fn mean_resend_wait_ns(&self) -> Option<u64> {
        self.resends_ns.checked_div(u128::from(self.waits_known)).and_then(|mean| u64::try_from(mean).ok())
    }

    /// What resends and failures have cost, nanoseconds.
    pub(super) fn lost_time_ns(&self) -> u128 {
        self.lost_time_ns
    }
}

/// All handshakes of a run, in groups.
#[derive(Clone, Debug)]
pub struct Handshakes {
    options: HandshakesOptions,
    groups: HashMap<GroupKey, HandshakeStats, foldhash::fast::FixedState>,
    other: HandshakeStats,
    total: HandshakeStats,
    histogram: Histogram,
    slowest: Vec<(GroupKey, HandshakeAttempt)>,
}

/// A group with its figures and what is wrong with it.
#[derive(Clone, Debug)]
pub struct GroupReport<'a> {
    /// What its handshakes share.
    pub key: &'a GroupKey,
    /// Their figures.
    pub stats: &'a HandshakeStats,
    /// How much it is to blame.
    pub culprit: WorstOffender,
}

/// What the handshakes of a run come to.
#[derive(Clone, Debug)]
pub struct HandshakeReport<'a> {
    /// All of them.
    pub total: &'a HandshakeStats,
    /// The groups, those that cost the most first.
    pub groups: Vec<GroupReport<'a>>,
    /// The median of the groups' medians, nanoseconds: what is usual on this host.
    pub host_ns: Option<u64>,
    /// The slowest, the slowest first, failures among them.
    pub slowest: &'a [(GroupKey, HandshakeAttempt)],
    /// The durations of those that were completed.
    pub histogram: &'a Histogram,
}

impl Handshakes {
    /// None so far.
    pub fn new(options: HandshakesOptions) -> Self {
        Self {
            options,
            // Fixed, so that nothing depends on the run; the order of groups is made when they are reported.
            groups: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(0x6873)),
            other: HandshakeStats::default(),
            total: HandshakeStats::default(),
            histogram: Histogram::default(),
            slowest: Vec::new(),
        }
    }

    /// What they are grouped by.
    pub fn by(&self) -> HandshakesBy {
        self.options.by
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.total.count
    }

    /// Takes in an opening that is over; `container` is its socket's, where they are grouped by it.
    pub fn add(&mut self, opening: &HandshakeAttempt, container: Option<Arc<str>>) {
        let key = GroupKey::of(opening, self.options.by, container);
        self.total.add(opening);
        let full = self.groups.len() >= self.options.max_groups;
        match self.groups.get_mut(&key) {
            Some(group) => group.add(opening),
            None if full => self.other.add(opening),
            None => self.groups.entry(key.clone()).or_default().add(opening),
        }
        if let (HandshakeOutcome::Established, Some(duration)) = (opening.outcome, opening.duration_ns) {
            self.histogram.add(duration, opening.lost_a_syn() == Some(true));
        }
        self.keep_if_slow(key, opening);
    }

    fn keep_if_slow(&mut self, key: GroupKey, opening: &HandshakeAttempt) {
        let Some(duration) = opening.duration_ns else { return };
        let place = self.slowest.partition_point(|(_, slower)| slower.duration_ns >= Some(duration));
        if place < self.options.slowest {
            self.slowest.truncate(self.options.slowest - 1);
            self.slowest.insert(place, (key, *opening));
        }
    }

    /// What they come to.
    pub fn report(&self) -> HandshakeReport<'_> {
        let mut medians: Vec<u64> =
            self.groups.values().filter_map(|stats| stats.durations.quantile_ns(0.5)).collect();
        medians.sort_unstable();
        // Of an even number the lower one: of two groups the slow one is not usual.
        let host_ns = medians.get(medians.len().saturating_sub(1) / 2).copied();
        let mut groups: Vec<GroupReport<'_>> = self
            .groups
            .iter()
            .map(|(key, stats)| GroupReport { key, stats, culprit: WorstOffender::judge(stats, host_ns) })
            .collect();
        groups.sort_by(|a, b| {
            (Reverse(a.culprit.cost_ns), Reverse(a.stats.count), a.key).cmp(&(
                Reverse(b.culprit.cost_ns),
                Reverse(b.stats.count),
                b.key,
            ))
        });
        if self.other.count > 0 {
            let culprit = WorstOffender::judge(&self.other, host_ns);
            groups.push(GroupReport { key: &GroupKey::Other, stats: &self.other, culprit });
        }
        HandshakeReport {
            total: &self.total,
            groups,
            host_ns,
            slowest: &self.slowest,
            histogram: &self.histogram,
        }
    }
}
