//! Aggregates handshakes: statistics by group, the slowest attempts, and the distribution of durations.

use std::{cmp::Reverse, sync::Arc};

use hashbrown::HashMap;

use crate::{
    analysis::{
        DurationSketch, GroupKey, GroupScore, HandshakeAttempt, HandshakeOutcome, HandshakesBy, Histogram,
        score::failure_cost, sketch::saturate,
    },
    event::Nanos,
    lifecycle::{CloseReason, SegmentDrops},
};

/// Most groups that begin with a SYN to a port on which nobody listens: a port scan must not take the places of services.
const MAX_UNSERVED: usize = 1_000;

/// The options of a [`Handshakes`] analysis.
#[derive(Clone, Copy, Debug)]
pub struct HandshakesOptions {
    /// The attribute to group by.
    pub by: HandshakesBy,
    /// The number of slowest attempts to keep.
    pub slowest: usize,
    /// The maximum number of groups. Handshakes of further groups share [`GroupKey::Other`]. A group takes 3
    /// to 20 KiB.
    pub max_groups: usize,
}

/// The statistics of a group of handshakes.
#[derive(Clone, Debug, Default)]
pub struct HandshakeStats {
    count: u64,
    established: u64,
    failed: [u64; CloseReason::ALL.len()],
    abandoned: u64,
    unserved: u64,
    durations: DurationSketch,
    retransmitted: u64,
    known_retransmits: u64,
    known_waits: u64,
    network_ns: u128,
    retransmit_wait_ns: u128,
    lost_time_ns: u128,
    drops: SegmentDrops,
}

impl HandshakeStats {
    /// Adds a finished attempt.
    fn add(&mut self, attempt: &HandshakeAttempt) {
        self.count += 1;
        self.drops.merge(&attempt.drops);
        match attempt.outcome {
            HandshakeOutcome::Established => self.add_established(attempt),
            HandshakeOutcome::Failed(reason) => self.failed[reason as usize] += 1,
            HandshakeOutcome::Abandoned => self.abandoned += 1,
        }
        // A client that asks for nothing this host offers costs it nothing.
        if attempt.unserved {
            self.unserved += 1;
        } else {
            self.lost_time_ns += u128::from(failure_cost(attempt.outcome, attempt.duration).0);
        }
    }

    fn add_established(&mut self, attempt: &HandshakeAttempt) {
        self.established += 1;
        if let Some(duration) = attempt.duration {
            self.durations.add(duration);
        }
        let resent = attempt.was_retransmitted();
        self.known_retransmits += u64::from(resent.is_some());
        self.retransmitted += u64::from(resent == Some(true));
        let split = attempt.split();
        self.network_ns += u128::from(split.network.unwrap_or_default().0);
        if let Some(wait) = split.retransmit_wait.filter(|_| resent == Some(true)) {
            self.known_waits += 1;
            self.retransmit_wait_ns += u128::from(wait.0);
            self.lost_time_ns += u128::from(wait.0);
        }
    }

    /// Adds the statistics of another group.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.established += other.established;
        for (own, other) in self.failed.iter_mut().zip(other.failed) {
            *own += other;
        }
        self.abandoned += other.abandoned;
        self.unserved += other.unserved;
        self.durations.merge(&other.durations);
        self.retransmitted += other.retransmitted;
        self.known_retransmits += other.known_retransmits;
        self.known_waits += other.known_waits;
        self.network_ns += other.network_ns;
        self.retransmit_wait_ns += other.retransmit_wait_ns;
        self.lost_time_ns += other.lost_time_ns;
        self.drops.merge(&other.drops);
    }

    /// Returns the segments of the handshakes that this host dropped.
    pub fn drops(&self) -> &SegmentDrops {
        &self.drops
    }

    /// Returns the number of attempts.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the number of completed handshakes.
    pub fn established(&self) -> u64 {
        self.established
    }

    /// Returns the number of failed or abandoned attempts.
    pub fn not_completed(&self) -> u64 {
        self.count - self.established
    }

    /// Returns the number of SYNs that this host refused because nobody listens. They are failed attempts, too.
    pub fn unserved(&self) -> u64 {
        self.unserved
    }

    /// Iterates over the failed and abandoned attempts by outcome; outcomes without attempts are omitted.
    pub fn failures(&self) -> impl Iterator<Item = (HandshakeOutcome, u64)> + '_ {
        CloseReason::ALL
            .into_iter()
            .map(|reason| (HandshakeOutcome::Failed(reason), self.failed[reason as usize]))
            .chain([(HandshakeOutcome::Abandoned, self.abandoned)])
            .filter(|&(_, count)| count > 0)
    }

    /// Returns the known durations of completed handshakes.
    pub fn durations(&self) -> &DurationSketch {
        &self.durations
    }

    /// Returns the number of completed handshakes with a retransmitted SYN or SYN-ACK, and the number for which this
    /// is known.
    pub fn retransmitted(&self) -> (u64, u64) {
        (self.retransmitted, self.known_retransmits)
    }

    /// Returns the sum of the network components of the durations.
    pub fn network(&self) -> Nanos {
        saturate(self.network_ns)
    }

    /// Returns the sum of the waits for retransmissions.
    pub fn retransmit_wait(&self) -> Nanos {
        saturate(self.retransmit_wait_ns)
    }

    /// Returns the mean wait of the handshakes with a retransmission; none when no wait is known.
    pub(super) fn mean_retransmit_wait(&self) -> Option<Nanos> {
        self.retransmit_wait_ns.checked_div(u128::from(self.known_waits)).map(saturate)
    }

    /// Returns the time lost to retransmissions and failures, nanoseconds.
    pub(super) fn lost_time_ns(&self) -> u128 {
        self.lost_time_ns
    }
}

/// Aggregates the handshakes of a run.
///
/// See [the crate page](crate#aggregate-handshakes) for an example.
#[derive(Clone, Debug)]
pub struct Handshakes {
    options: HandshakesOptions,
    groups: HashMap<GroupKey, HandshakeStats, foldhash::fast::FixedState>,
    other: HandshakeStats,
    total: HandshakeStats,
    histogram: Histogram,
    slowest: Vec<(GroupKey, HandshakeAttempt)>,
    /// Groups that began with a SYN to a port on which nobody listens.
    unserved: usize,
}

/// The statistics and the score of a group.
#[derive(Clone, Debug)]
pub struct GroupReport<'a> {
    /// The key of the group.
    pub key: &'a GroupKey,
    /// The statistics of its handshakes.
    pub stats: &'a HandshakeStats,
    /// The time the group loses, and its faults.
    pub score: GroupScore,
}

/// The results of a [`Handshakes`] analysis.
#[derive(Clone, Debug)]
pub struct HandshakeReport<'a> {
    /// The statistics of all handshakes.
    pub total: &'a HandshakeStats,
    /// The groups, the highest cost first; [`GroupKey::Other`] is last.
    pub groups: Vec<GroupReport<'a>>,
    /// The host's median: the median of the medians of all groups.
    pub host_median: Option<Nanos>,
    /// The slowest attempts including failures, the slowest first.
    pub slowest: &'a [(GroupKey, HandshakeAttempt)],
    /// The distribution of the durations of completed handshakes.
    pub histogram: &'a Histogram,
}

impl Handshakes {
    /// Creates an analysis without handshakes.
    pub fn new(options: HandshakesOptions) -> Self {
        Self {
            options,
            // A fixed seed makes runs deterministic. The report sorts the groups.
            groups: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(0x6873)),
            other: HandshakeStats::default(),
            total: HandshakeStats::default(),
            histogram: Histogram::default(),
            slowest: Vec::new(),
            unserved: 0,
        }
    }

    /// Returns the attribute that the handshakes are grouped by.
    pub fn by(&self) -> HandshakesBy {
        self.options.by
    }

    /// Returns the number of attempts.
    pub fn count(&self) -> u64 {
        self.total.count
    }

    /// Adds a finished attempt. `owner` is the container, pod, namespace or workload of its socket, if the groups are
    /// [by](Self::by) one of these.
    pub fn add(&mut self, attempt: &HandshakeAttempt, owner: Option<Arc<str>>) {
        let key = GroupKey::of(attempt, self.options.by, owner);
        self.total.add(attempt);
        let full = self.groups.len() >= self.options.max_groups
            || (attempt.unserved && self.unserved >= MAX_UNSERVED);
        match self.groups.get_mut(&key) {
            Some(group) => group.add(attempt),
            None if full => self.other.add(attempt),
            None => {
                self.unserved += usize::from(attempt.unserved);
                self.groups.entry(key.clone()).or_default().add(attempt);
            }
        }
        if let (HandshakeOutcome::Established, Some(duration)) = (attempt.outcome, attempt.duration) {
            self.histogram.add(duration, attempt.was_retransmitted() == Some(true));
        }
        self.keep_if_slow(key, attempt);
    }

    /// Adds the handshakes of another analysis that groups by the same attribute, such as that of the next minutes.
    pub fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        self.other.merge(&other.other);
        self.histogram.merge(&other.histogram);
        // The report of two runs must not depend on the order of a hash table at the limit.
        let mut groups: Vec<_> = other.groups.iter().collect();
        groups.sort_by(|a, b| (Reverse(a.1.count), a.0).cmp(&(Reverse(b.1.count), b.0)));
        for (key, stats) in groups {
            let full = self.groups.len() >= self.options.max_groups;
            match self.groups.get_mut(key) {
                Some(group) => group.merge(stats),
                None if full => self.other.merge(stats),
                None => {
                    self.unserved += usize::from(stats.unserved > 0);
                    self.groups.insert(key.clone(), stats.clone());
                }
            }
        }
        for (key, attempt) in &other.slowest {
            self.keep_if_slow(key.clone(), attempt);
        }
    }

    fn keep_if_slow(&mut self, key: GroupKey, attempt: &HandshakeAttempt) {
        let Some(duration) = attempt.duration else { return };
        let position = self.slowest.partition_point(|(_, slower)| slower.duration >= Some(duration));
        if position < self.options.slowest {
            self.slowest.truncate(self.options.slowest - 1);
            self.slowest.insert(position, (key, *attempt));
        }
    }

    /// Returns the results so far.
    pub fn report(&self) -> HandshakeReport<'_> {
        let mut medians: Vec<Nanos> =
            self.groups.values().filter_map(|stats| stats.durations.quantile(0.5)).collect();
        medians.sort_unstable();
        // The lower one of an even number: of two groups, the faster one defines the median.
        let host_median = medians.get(medians.len().saturating_sub(1) / 2).copied();
        let mut groups: Vec<GroupReport<'_>> = self
            .groups
            .iter()
            .map(|(key, stats)| GroupReport { key, stats, score: GroupScore::compute(stats, host_median) })
            .collect();
        groups.sort_by(|a, b| {
            (Reverse(a.score.cost), Reverse(a.stats.count), a.key).cmp(&(
                Reverse(b.score.cost),
                Reverse(b.stats.count),
                b.key,
            ))
        });
        if self.other.count > 0 {
            let score = GroupScore::compute(&self.other, host_median);
            groups.push(GroupReport { key: &GroupKey::Other, stats: &self.other, score });
        }
        HandshakeReport {
            total: &self.total,
            groups,
            host_median,
            slowest: &self.slowest,
            histogram: &self.histogram,
        }
    }
}
