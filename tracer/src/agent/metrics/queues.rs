//! The accept queues of listening ports: as a look at the kernel's sockets finds them now, and as arriving
//! connections found them.

use hashbrown::HashMap;
use tracer_core::event::{AcceptQueue, Timestamp};

/// Most listening ports of a network namespace whose accept queue is shown.
const MOST_PORTS: usize = 100;
/// How long what a connection found stands for what is there, nanoseconds.
const FRESH_NS: u64 = 60_000_000_000;
/// How long a peak is collected, nanoseconds; the larger of two such windows is shown.
const WINDOW_NS: u64 = 60_000_000_000;

/// Whether the first queue is fuller, as a share of its limit. A limit of 0 lets one in.
fn is_fuller(queue: AcceptQueue, than: AcceptQueue) -> bool {
    let share = |it: AcceptQueue, other: AcceptQueue| u64::from(it.length) * u64::from(other.limit.max(1));
    share(queue, than) > share(than, queue)
}

/// What a look at the listening sockets of one network namespace found, by port.
///
/// It also works where nothing arrives any more: a full listener, whose application hangs, has no events.
#[derive(Clone, Debug, Default)]
pub struct LiveQueues {
    netns: Option<u32>,
    /// Of several listeners on one port, the fullest.
    ports: HashMap<u16, AcceptQueue, foldhash::fast::RandomState>,
    overflow: u64,
}

impl LiveQueues {
    /// Begins a look at the namespace with this inode; none when nobody can look.
    pub fn begin(&mut self, netns: Option<u32>) {
        self.netns = netns;
        self.ports.clear();
    }

    /// Takes in a listener.
    pub fn see(&mut self, port: u16, queue: AcceptQueue) {
        if let Some(found) = self.ports.get_mut(&port) {
            if is_fuller(queue, *found) {
                *found = queue;
            }
        } else {
            self.ports.insert(port, queue);
        }
    }

    /// Ends a look: beyond the limit of ports the emptiest are left out, and counted.
    pub fn end(&mut self) {
        let Some(over) = self.ports.len().checked_sub(MOST_PORTS).filter(|over| *over > 0) else { return };
        let mut ports: Vec<_> = self.ports.iter().map(|(port, queue)| (*port, *queue)).collect();
        // Of equals the highest port goes, so that the same ones stay.
        ports.sort_unstable_by(|a, b| (is_fuller(a.1, b.1), b.0).cmp(&(is_fuller(b.1, a.1), a.0)));
        for (port, _) in ports.into_iter().take(over) {
            self.ports.remove(&port);
        }
        self.overflow += over as u64;
    }

    /// How often a port was one too many.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }
}

/// What arriving connections found at the listeners of one port in one network namespace.
#[derive(Clone, Copy, Debug)]
struct Arrivals {
    /// At the last arrival.
    queue: AcceptQueue,
    seen: Timestamp,
    /// The most in the window that goes on, and in the one before.
    peak: u32,
    peak_before: u32,
}

/// What arriving connections found.
#[derive(Debug, Default)]
pub(super) struct ArrivalQueues {
    ports: HashMap<(Option<u32>, u16), Arrivals, foldhash::fast::RandomState>,
    overflow: u64,
    window: Timestamp,
}

impl ArrivalQueues {
    /// A connection arrived and found this.
    pub(super) fn see(&mut self, netns: Option<u32>, port: u16, queue: AcceptQueue, now: Timestamp) {
        // Its own window, not that of before a pause.
        self.advance(now);
        if let Some(arrivals) = self.ports.get_mut(&(netns, port)) {
            (arrivals.queue, arrivals.seen) = (queue, now);
            arrivals.peak = arrivals.peak.max(queue.length);
            return;
        }
        if self.ports.len() >= MOST_PORTS {
            self.overflow += 1;
            let oldest = self.ports.iter().min_by_key(|(key, arrivals)| (arrivals.seen, **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.ports.remove(&oldest);
            }
        }
        let arrivals = Arrivals { queue, seen: now, peak: queue.length, peak_before: 0 };
        self.ports.insert((netns, port), arrivals);
    }

    /// Lets time pass: what was a peak is one for two windows at most.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.window);
        if passed < WINDOW_NS {
            return;
        }
        self.window = now;
        for arrivals in self.ports.values_mut() {
            arrivals.peak_before = if passed < 2 * WINDOW_NS { arrivals.peak } else { 0 };
            arrivals.peak = 0;
        }
    }

    /// Forgets ports where nothing has arrived for so long.
    pub(super) fn expire(&mut self, expiry_ns: u64, now: Timestamp) {
        self.ports.retain(|_, arrivals| now.since(arrivals.seen) <= expiry_ns);
    }

    /// How often a port was one too many.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }

    /// A copy, in the order of ports.
    pub(super) fn copy(&self, now: Timestamp) -> Vec<ArrivedAt> {
        let mut copy: Vec<_> = self
            .ports
            .iter()
            .map(|(&(netns, port), arrivals)| ArrivedAt {
                netns,
                port,
                queue: arrivals.queue,
                fresh: now.since(arrivals.seen) < FRESH_NS,
                peak: arrivals.peak.max(arrivals.peak_before),
            })
            .collect();
        copy.sort_unstable_by_key(|it| (it.port, it.netns));
        copy
    }
}

/// What arriving connections found at a port, copied out.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrivedAt {
    netns: Option<u32>,
    port: u16,
    queue: AcceptQueue,
    /// The last arrival was a moment ago.
    fresh: bool,
    peak: u32,
}

/// What is shown of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortQueue {
    pub(super) port: u16,
    /// Connections that wait; none when that is unknown.
    pub(super) length: Option<u32>,
    /// The limit of the same listener.
    pub(super) limit: u32,
    /// The most that an arrival found; none when nothing has arrived.
    pub(super) peak: Option<u32>,
}

/// Joins both: what is there, else what the last arrival found, and that only while it is fresh.
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
        // Where one has looked, the look is right, also when it found no listener.
        let looked_at = it.netns.is_some() && it.netns == live.netns
            || it.netns.is_none() && live.ports.contains_key(&it.port);
        if it.fresh && !looked_at && joined.now.is_none_or(|found| is_fuller(it.queue, found)) {
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
    fn of_several_listeners_the_fullest_is_shown_with_its_own_limit() {
        let mut live = LiveQueues::default();
        live.begin(Some(1));
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
    fn what_arrivals_found_counts_where_nobody_has_looked_and_for_a_minute() {
        let mut live = LiveQueues::default();
        live.begin(Some(1));
        live.see(80, queue(0, 128));
        let mut arrivals = ArrivalQueues::default();
        let now = Timestamp(1000 * SECOND);
        arrivals.advance(now);
        for (netns, port, length) in
            [(Some(1), 80, 120), (Some(1), 81, 120), (Some(2), 82, 60), (Some(2), 80, 1), (None, 80, 128)]
        {
            arrivals.see(netns, port, queue(length, 128), now);
        }
        let join_at =
            |arrivals: &ArrivalQueues, seconds: u64| join(&live, &arrivals.copy(Timestamp(seconds * SECOND)));
        assert_eq!(
            join_at(&arrivals, 1059),
            [
                shown(80, Some(1), 128, Some(128)),
                // Nobody listens there any more.
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
    fn ports_have_a_limit_that_is_counted() {
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
        arrivals.expire(10, Timestamp(150));
        assert_eq!(arrivals.copy(Timestamp(0)).len(), 11);
    }
}
