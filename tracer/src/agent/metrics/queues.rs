//! The accept queues of listening ports, from listener dumps and from the events of arriving connections.

use hashbrown::HashMap;
use tracer_core::event::{AcceptQueue, Nanos, Netns, Timestamp};

/// Most ports in each of the two sets.
const MAX_PORTS: usize = 100;
/// How long the queue length of an event is current.
const FRESH: Nanos = Nanos::from_secs(60);
/// Length of a peak window. The page shows the maximum of the current and the previous window.
const WINDOW: Nanos = Nanos::from_secs(60);

/// Returns whether the first queue is fuller relative to its limit. A limit of 0 admits one connection.
fn is_fuller(queue: AcceptQueue, than: AcceptQueue) -> bool {
    let share = |it: AcceptQueue, other: AcceptQueue| u64::from(it.length) * u64::from(other.limit.max(1));
    share(queue, than) > share(than, queue)
}

/// The accept queues of one network namespace's listeners by port, from a listener dump.
///
/// A dump also covers a full listener whose application hangs and which has no events any more.
#[derive(Clone, Debug, Default)]
pub struct LiveQueues {
    netns: Option<Netns>,
    /// The fullest listener of each port.
    ports: HashMap<u16, AcceptQueue, foldhash::fast::RandomState>,
    overflow: u64,
    failures: u64,
}

impl LiveQueues {
    /// Starts a dump of the namespace with this inode; `None` when no dump is possible.
    pub fn begin(&mut self, netns: Option<Netns>) {
        self.netns = netns;
        self.ports.clear();
    }

    /// Adds a listener.
    pub fn see(&mut self, port: u16, queue: AcceptQueue) {
        if let Some(found) = self.ports.get_mut(&port) {
            if is_fuller(queue, *found) {
                *found = queue;
            }
        } else {
            self.ports.insert(port, queue);
        }
    }

    /// Ends a dump. Drops and counts the emptiest ports beyond the limit.
    pub(crate) fn end(&mut self) {
        let Some(over) = self.ports.len().checked_sub(MAX_PORTS).filter(|over| *over > 0) else { return };
        let mut ports: Vec<_> = self.ports.iter().map(|(port, queue)| (*port, *queue)).collect();
        // Among equals the highest port is dropped, so that the selection is stable.
        ports.sort_unstable_by(|a, b| (is_fuller(a.1, b.1), b.0).cmp(&(is_fuller(b.1, a.1), a.0)));
        for (port, _) in ports.into_iter().take(over) {
            self.ports.remove(&port);
        }
        self.overflow += over as u64;
    }

    /// Counts a dump that failed or is incomplete.
    pub fn fail(&mut self) {
        self.failures += 1;
    }

    /// Returns how many dumps failed or were incomplete.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// Returns how many ports exceeded the limit.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }
}

/// The accept queue of one port in one network namespace, as reported by arriving connections.
#[derive(Clone, Copy, Debug)]
struct Arrivals {
    /// The queue at the last arrival.
    queue: AcceptQueue,
    seen: Timestamp,
    /// The maximum in the current window.
    peak: u32,
    /// The maximum in the previous window.
    peak_before: u32,
}

/// The accept queues reported by arriving connections.
#[derive(Debug, Default)]
pub(super) struct ArrivalQueues {
    ports: HashMap<(Option<Netns>, u16), Arrivals, foldhash::fast::RandomState>,
    overflow: u64,
    window: Timestamp,
}

impl ArrivalQueues {
    /// Records the queue that an arriving connection reported.
    pub(super) fn see(&mut self, netns: Option<Netns>, port: u16, queue: AcceptQueue, now: Timestamp) {
        // After a pause, the arrival belongs to a new window.
        self.advance(now);
        if let Some(arrivals) = self.ports.get_mut(&(netns, port)) {
            (arrivals.queue, arrivals.seen) = (queue, now);
            arrivals.peak = arrivals.peak.max(queue.length);
            return;
        }
        if self.ports.len() >= MAX_PORTS {
            self.overflow += 1;
            let oldest = self.ports.iter().min_by_key(|(key, arrivals)| (arrivals.seen, **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.ports.remove(&oldest);
            }
        }
        let arrivals = Arrivals { queue, seen: now, peak: queue.length, peak_before: 0 };
        self.ports.insert((netns, port), arrivals);
    }

    /// Starts a new window when one is due. A peak lasts for two windows at most.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.window);
        if passed < WINDOW {
            return;
        }
        self.window = now;
        for arrivals in self.ports.values_mut() {
            arrivals.peak_before = if passed < WINDOW.saturating_mul(2) { arrivals.peak } else { 0 };
            arrivals.peak = 0;
        }
    }

    /// Removes ports without an arrival for `expiry`.
    pub(super) fn expire(&mut self, expiry: Nanos, now: Timestamp) {
        self.ports.retain(|_, arrivals| now.since(arrivals.seen) <= expiry);
    }

    /// Returns how many ports exceeded the limit.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Copies the ports in ascending order.
    pub(super) fn copy(&self, now: Timestamp) -> Vec<ArrivedAt> {
        let mut copy: Vec<_> = self
            .ports
            .iter()
            .map(|(&(netns, port), arrivals)| ArrivedAt {
                netns,
                port,
                queue: arrivals.queue,
                fresh: now.since(arrivals.seen) < FRESH,
                peak: arrivals.peak.max(arrivals.peak_before),
            })
            .collect();
        copy.sort_unstable_by_key(|it| (it.port, it.netns));
        copy
    }
}

/// A copy of one port's arrivals.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivedAt {
    netns: Option<Netns>,
    port: u16,
    queue: AcceptQueue,
    /// The last arrival is less than [`FRESH`] old.
    fresh: bool,
    peak: u32,
}

/// The accept queue of a port, as shown on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortQueue {
    pub(crate) port: u16,
    /// Waiting connections; `None` when unknown.
    pub(crate) length: Option<u32>,
    /// The limit of the same listener.
    pub(crate) limit: u32,
    /// The longest queue at an arrival; `None` without arrivals.
    pub(crate) peak: Option<u32>,
}

/// Merges both sets. A dumped queue takes precedence; otherwise the last arrival counts while it is fresh.
pub(super) fn join(live: &LiveQueues, arrived: &[ArrivedAt]) -> Vec<PortQueue> {
    struct Joined {
        now: Option<AcceptQueue>,
        last: AcceptQueue,
        peak: Option<u32>,
    }
    let mut ports: HashMap<u16, Joined, foldhash::fast::RandomState> = live
        .ports
        .iter()
        .map(|(&port, &queue)| (port, Joined { now: Some(queue), last: queue, peak: None }))
        .collect();
    for it in arrived {
        let joined = ports.entry(it.port).or_insert(Joined { now: None, last: it.queue, peak: None });
        joined.peak = joined.peak.max(Some(it.peak));
        // In a dumped namespace the dump is authoritative, even when it found no listener.
        let dumped = it.netns.is_some() && it.netns == live.netns
            || it.netns.is_none() && live.ports.contains_key(&it.port);
        if it.fresh && !dumped && joined.now.is_none_or(|found| is_fuller(it.queue, found)) {
            joined.now = Some(it.queue);
        }
    }
    let mut all: Vec<_> = ports
        .into_iter()
        .map(|(port, Joined { now, last, peak })| PortQueue {
            port,
            length: now.map(|queue| queue.length),
            limit: now.unwrap_or(last).limit,
            peak,
        })
        .collect();
    all.sort_unstable_by_key(|it| it.port);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn queue(length: u32, limit: u32) -> AcceptQueue {
        AcceptQueue { length, limit }
    }

    fn shown(port: u16, length: Option<u32>, limit: u32, peak: Option<u32>) -> PortQueue {
        PortQueue { port, length, limit, peak }
    }

    #[test]
    fn the_fullest_listener_of_a_port_is_shown_with_its_own_limit() {
        let mut live = LiveQueues::default();
        live.begin(Some(Netns(1)));
        for (length, limit) in [(100, 4096), (3, 4), (0, 0)] {
            live.see(80, queue(length, limit));
        }
        live.see(81, queue(0, 0));
        assert_eq!(join(&live, &[]), [shown(80, Some(3), 4, None), shown(81, Some(0), 0, None)]);
        live.see(81, queue(1, 0));
        live.see(81, queue(50, 128));
        assert_eq!(join(&live, &[])[1], shown(81, Some(1), 0, None));
        live.begin(None);
        assert_eq!(join(&live, &[]), []);
    }

    #[test]
    fn arrivals_count_for_a_minute_where_there_is_no_dump() {
        let mut live = LiveQueues::default();
        live.begin(Some(Netns(1)));
        live.see(80, queue(0, 128));
        let mut arrivals = ArrivalQueues::default();
        let now = Timestamp(1000 * SECOND);
        arrivals.advance(now);
        for (netns, port, length) in
            [(Some(1), 80, 120), (Some(1), 81, 120), (Some(2), 82, 60), (Some(2), 80, 1), (None, 80, 128)]
        {
            arrivals.see(netns.map(Netns), port, queue(length, 128), now);
        }
        let join_at =
            |arrivals: &ArrivalQueues, seconds: u64| join(&live, &arrivals.copy(Timestamp(seconds * SECOND)));
        assert_eq!(
            join_at(&arrivals, 1059),
            [
                shown(80, Some(1), 128, Some(128)),
                // The dump found no listener.
                shown(81, None, 128, Some(120)),
                shown(82, Some(60), 128, Some(60)),
            ]
        );
        assert_eq!(join_at(&arrivals, 1060)[2], shown(82, None, 128, Some(60)));
        assert_eq!(join_at(&arrivals, 1060)[0], shown(80, Some(0), 128, Some(128)));
    }

    #[test]
    fn a_peak_outlasts_calm_arrivals_and_ends_after_two_windows() {
        let mut arrivals = ArrivalQueues::default();
        let peak = |arrivals: &ArrivalQueues| arrivals.copy(Timestamp(0))[0].peak;
        arrivals.advance(Timestamp(100 * SECOND));
        arrivals.see(None, 80, queue(128, 128), Timestamp(100 * SECOND));
        arrivals.see(None, 80, queue(0, 128), Timestamp(101 * SECOND));
        assert_eq!(peak(&arrivals), 128);
        arrivals.advance(Timestamp(160 * SECOND));
        arrivals.see(None, 80, queue(5, 128), Timestamp(161 * SECOND));
        assert_eq!(peak(&arrivals), 128);
        arrivals.advance(Timestamp(220 * SECOND));
        assert_eq!(peak(&arrivals), 5);
        arrivals.see(None, 80, queue(7, 128), Timestamp(221 * SECOND));
        arrivals.advance(Timestamp(500 * SECOND));
        assert_eq!(peak(&arrivals), 0);
    }

    #[test]
    fn ports_beyond_the_limit_are_counted() {
        let (mut live, mut arrivals) = (LiveQueues::default(), ArrivalQueues::default());
        for port in 1..=150 {
            live.see(port, queue(u32::from(port == 150), 128));
            arrivals.see(None, port, queue(0, 128), Timestamp(u64::from(port)));
        }
        live.end();
        let ports: Vec<u16> = join(&live, &[]).iter().map(|it| it.port).collect();
        assert_eq!(ports, (1..100).chain([150]).collect::<Vec<_>>());
        assert_eq!((live.overflow(), arrivals.overflow()), (50, 50));
        assert_eq!(arrivals.copy(Timestamp(0))[0].port, 51);
        arrivals.expire(Nanos(10), Timestamp(150));
        assert_eq!(arrivals.copy(Timestamp(0)).len(), 11);
    }
}
