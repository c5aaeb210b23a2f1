//! The timewait sockets that closed connections left behind, in TIME_WAIT or orphaned FIN_WAIT2.

mod queue;

use std::hash::BuildHasher as _;

use hashbrown::{HashMap, HashTable};

use crate::{
    event::{ConnKey, Endpoint, ExistingTimewait, Nanos, Netns, TcpState, Timestamp, TimewaitEnd},
    lifecycle::{AfterClose, time_wait_table::queue::Queue},
};

/// Capacity of the table: the kernel's default limit (`tcp_max_tw_buckets`) on a large host.
const MAX_ENTRIES: usize = 262_144;

/// How late the timer of 60 s may fire: up to an eighth of the timeout (kernel/time/timer.c), and a second for the
/// removal.
const TIMER_SLACK: Nanos = Nanos::from_millis(60_000 / 8 + 1_000);
/// Upper bound of the time a timewait socket spends in TIME_WAIT, which lasts 60 s (`TCP_TIMEWAIT_LEN`).
const LONGEST_TIME_WAIT: Nanos = Nanos::from_millis(60_000).saturating_add(TIMER_SLACK);
/// Upper bound for a timewait socket that starts in FIN_WAIT2: FIN_WAIT2 lasts at most 60 s, and a
/// FIN that arrives at its end starts a full TIME_WAIT.
const LONGEST_FIN_WAIT_2: Nanos = LONGEST_TIME_WAIT.saturating_mul(2);

/// A timewait socket that exists now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimewaitSocket {
    /// TIME_WAIT or FIN_WAIT2.
    pub state: TcpState,
    /// When the connection closed and the kernel created the timewait socket; none if a socket dump found it.
    pub since: Option<Timestamp>,
    /// When the kernel's timer is due to remove it.
    pub deadline: Timestamp,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
}

/// The observed removal of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedTimewait {
    /// The state at removal.
    pub state: TcpState,
    /// The time from the close of the connection to the removal of its timewait socket.
    pub duration: Nanos,
}

/// The timewait sockets, indexed by connection key.
///
/// A host that closes thousands of connections a second has hundreds of thousands of timewait sockets. The table
/// answers two lookups for each connection, and nearly all of them miss. The sockets are therefore stored in FIFO
/// queues, and the index holds only hashes and locations, a fifth of their size.
#[derive(Debug, Default)]
pub(super) struct TimeWaitTable {
    index: HashTable<IndexEntry>,
    hasher: foldhash::fast::RandomState,
    queues: [ExpiryQueue; 3],
    /// Sockets in TIME_WAIT.
    time_wait: usize,
}

/// The queues of [`TimeWaitTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueId {
    /// Sockets that started in TIME_WAIT.
    TimeWait = 0,
    /// Sockets that started in FIN_WAIT2.
    FinWait2 = 1,
    /// Sockets that the last socket dump found.
    Dumped = 2,
}

impl QueueId {
    const ALL: [Self; 3] = [Self::TimeWait, Self::FinWait2, Self::Dumped];

    fn of(state: TcpState) -> Self {
        if state == TcpState::TimeWait { Self::TimeWait } else { Self::FinWait2 }
    }
}

/// Timewait sockets in order of expiry.
///
/// All sockets that started in one state have the same timeout, so their order of expiry is the order of insertion; those
/// of a dump are sorted. Sockets that were removed early stay in the queue, marked as removed.
#[derive(Debug, Default)]
struct ExpiryQueue {
    entries: Queue<Entry>,
    /// The sequence number of the first entry; sequence numbers wrap around.
    first: u32,
}

/// A timewait socket with its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    socket: TimewaitSocket,
    /// When the kernel has certainly removed the socket, whether or not its removal was seen.
    expires: Timestamp,
    /// Removed before `expires`.
    removed: bool,
}

/// The hash of a connection key and the location of its entry.
///
/// The stored hash rejects nearly all misses without reading the entry, and growing the index reads no entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexEntry {
    hash: u32,
    location: Location,
}

impl IndexEntry {
    /// Expands a half hash to 64 bits: the hash table takes its bucket from the low bits and its tag from the
    /// high ones.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// The queue of an entry (the top two bits) and its sequence number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Location(u32);

impl Location {
    const QUEUE_SHIFT: u32 = 30;
    const SEQUENCE: u32 = (1 << Self::QUEUE_SHIFT) - 1;

    fn new(queue: QueueId, sequence: u32) -> Self {
        Self(sequence & Self::SEQUENCE | (queue as u32) << Self::QUEUE_SHIFT)
    }

    fn queue(self) -> usize {
        (self.0 >> Self::QUEUE_SHIFT) as usize
    }
}

impl ExpiryQueue {
    /// Returns the sequence number of the next entry.
    fn next(&self) -> u32 {
        // The queue is limited to 2 * MAX_ENTRIES.
        self.first.wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }

    fn position(&self, location: Location) -> usize {
        (location.0.wrapping_sub(self.first) & Location::SEQUENCE) as usize
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop()?;
        self.first = self.first.wrapping_add(1);
        Some(entry)
    }
}

impl TimewaitSocket {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }
}

impl TimeWaitTable {
    /// Adds the timewait socket of a closed connection. Returns false when the table is full.
    pub(super) fn insert(&mut self, key: ConnKey, since: Timestamp, after: AfterClose) -> bool {
        if self.index.len() >= MAX_ENTRIES {
            return false;
        }
        // A new connection with the same key implies that the old socket is gone.
        self.take(&key);
        let longest = if after.state == TcpState::TimeWait { LONGEST_TIME_WAIT } else { LONGEST_FIN_WAIT_2 };
        let deadline = since.saturating_add(after.duration);
        let expires = since.saturating_add(longest.max(after.duration));
        let ConnKey { netns, local, remote } = key;
        let socket =
            TimewaitSocket { state: after.state, since: Some(since), deadline, local, remote, netns };
        self.push(QueueId::of(after.state), Entry { socket, expires, removed: false });
        true
    }

    /// Replaces the sockets in the scope of a socket dump that began at `started` with those that the dump found. Returns
    /// the number of sockets that the table has no room for.
    ///
    /// Sockets that were created after the start of the dump stay.
    pub(super) fn resync(
        &mut self,
        started: Timestamp,
        in_scope: impl Fn(Option<Netns>) -> bool,
        found: &[ExistingTimewait],
    ) -> u64 {
        let is_replaced = |entry: &&Entry| {
            !entry.removed
                && in_scope(entry.socket.netns)
                && entry.socket.since.is_none_or(|since| since < started)
        };
        let replaced: Vec<ConnKey> =
            self.entries().filter(is_replaced).map(|entry| entry.socket.key()).collect();
        let known: HashMap<ConnKey, Timestamp, foldhash::fast::FixedState> =
            replaced.iter().filter_map(|key| Some((*key, self.take(key)?.since?))).collect();
        // The queue of dumped sockets must be sorted, so the sockets outside the scope are added again, too.
        let mut dumped: Vec<Entry> = self.queues[QueueId::Dumped as usize]
            .entries
            .iter()
            .filter(|entry| !entry.removed)
            .copied()
            .collect();
        for entry in &dumped {
            self.take(&entry.socket.key());
        }
        while self.queues[QueueId::Dumped as usize].pop().is_some() {}
        dumped.extend(found.iter().map(|found| {
            let ExistingTimewait { state, due, local, remote, netns, .. } = *found;
            let since = known.get(&found.key()).copied();
            let socket = TimewaitSocket { state, since, deadline: due, local, remote, netns };
            let late = if state == TcpState::TimeWait { TIMER_SLACK } else { LONGEST_TIME_WAIT };
            Entry { socket, expires: due.saturating_add(late), removed: false }
        }));
        dumped.sort_by_key(|entry| entry.expires);
        let mut refused = 0;
        for entry in dumped {
            // A socket that was created after the start of the dump is newer than the dump.
            if self.contains(&entry.socket.key()) {
                continue;
            }
            if self.index.len() >= MAX_ENTRIES {
                refused += 1;
            } else {
                self.push(QueueId::Dumped, entry);
            }
        }
        refused
    }

    fn push(&mut self, queue: QueueId, mut entry: Entry) {
        if self.queues[queue as usize].entries.len() >= 2 * MAX_ENTRIES {
            self.compact();
        }
        let ExpiryQueue { entries, .. } = &self.queues[queue as usize];
        // Keeps the queue sorted when the timestamps of a damaged recording go backwards.
        entry.expires = entries.last().map_or(entry.expires, |last| entry.expires.max(last.expires));
        let location = Location::new(queue, self.queues[queue as usize].next());
        self.queues[queue as usize].entries.push(entry);
        self.time_wait += usize::from(entry.socket.state == TcpState::TimeWait);
        self.add_to_index(&entry.socket.key(), location);
    }

    /// Iterates over all entries, including those that were removed early.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.queues.iter().flat_map(|queue| queue.entries.iter())
    }

    /// Iterates over the timewait sockets that exist now.
    pub(super) fn iter(&self) -> impl Iterator<Item = TimewaitSocket> + '_ {
        self.entries().filter(|entry| !entry.removed).map(|entry| entry.socket)
    }

    /// Removes the socket that `event` reports as gone, and returns its lifetime, if its beginning was seen.
    pub(super) fn end(&mut self, event: &TimewaitEnd) -> Option<EndedTimewait> {
        let socket = self.take(&event.key())?;
        Some(EndedTimewait {
            // A FIN moves the socket from FIN_WAIT2 to TIME_WAIT.
            state: event.state,
            duration: event.time.since(socket.since?),
        })
    }

    /// Removes the socket whose key a new connection reuses. Returns whether there was one.
    pub(super) fn reuse(&mut self, key: &ConnKey) -> bool {
        self.take(key).is_some()
    }

    /// Removes one socket that has expired by `now` and returns its state.
    ///
    /// Expiry is later than the modelled deadline, because the kernel's timers fire late and an observed removal
    /// takes precedence.
    pub(super) fn pop_expired(&mut self, now: Timestamp) -> Option<TcpState> {
        for queue in QueueId::ALL.map(|queue| queue as usize) {
            while let Some(entry) =
                self.queues[queue].entries.first().filter(|entry| entry.expires <= now).copied()
            {
                if !entry.removed {
                    self.take(&entry.socket.key());
                }
                self.queues[queue].pop();
                if !entry.removed {
                    return Some(entry.socket.state);
                }
            }
        }
        None
    }

    /// Returns the number of sockets in TIME_WAIT and in FIN_WAIT2.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.time_wait, self.index.len() - self.time_wait)
    }

    fn contains(&self, key: &ConnKey) -> bool {
        let hash = self.hash(key);
        self.index
            .find(IndexEntry::spread(hash), |indexed| {
                indexed.hash == hash
                    && entry(&self.queues, indexed.location).is_some_and(|it| it.socket.key() == *key)
            })
            .is_some()
    }

    /// Removes the socket with this key and returns it.
    fn take(&mut self, key: &ConnKey) -> Option<TimewaitSocket> {
        if self.index.is_empty() {
            return None;
        }
        let hash = self.hash(key);
        let Self { index, queues, .. } = self;
        let occupied = index.find_entry(IndexEntry::spread(hash), |indexed| {
            indexed.hash == hash && entry(queues, indexed.location).is_some_and(|it| it.socket.key() == *key)
        });
        let (IndexEntry { location, .. }, _) = occupied.ok()?.remove();
        let queue = queues.get_mut(location.queue())?;
        let position = queue.position(location);
        let entry = queue.entries.get_mut(position)?;
        entry.removed = true;
        self.time_wait -= usize::from(entry.socket.state == TcpState::TimeWait);
        Some(entry.socket)
    }

    fn add_to_index(&mut self, key: &ConnKey, location: Location) {
        let hash = self.hash(key);
        self.index.insert_unique(IndexEntry::spread(hash), IndexEntry { hash, location }, |indexed| {
            IndexEntry::spread(indexed.hash)
        });
    }

    fn hash(&self, key: &ConnKey) -> u32 {
        let hash = self.hasher.hash_one(key);
        u32::try_from(hash >> 32).unwrap_or_default()
    }

    /// Drops the entries marked as removed from the queues and rebuilds the index.
    fn compact(&mut self) {
        self.index.clear();
        for id in QueueId::ALL {
            let queue = &mut self.queues[id as usize];
            queue.entries.retain(|entry| !entry.removed);
            let first = queue.first;
            let keys: Vec<_> = queue.entries.iter().map(|entry| entry.socket.key()).collect();
            for (sequence, key) in (0..).zip(&keys) {
                self.add_to_index(key, Location::new(id, first.wrapping_add(sequence)));
            }
        }
    }
}

fn entry(queues: &[ExpiryQueue; 3], location: Location) -> Option<&Entry> {
    let queue = queues.get(location.queue())?;
    queue.entries.get(queue.position(location))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Endpoint;
    use crate::lifecycle::DurationSource;

    const SECOND: u64 = 1_000_000_000;

    fn key(port: u16) -> ConnKey {
        let address = "10.0.0.1".parse().unwrap();
        ConnKey {
            netns: Some(Netns(1)),
            local: Endpoint { address, port },
            remote: Endpoint { address, port: 80 },
        }
    }

    fn time_wait() -> AfterClose {
        AfterClose {
            state: TcpState::TimeWait,
            duration: Nanos::from_secs(60),
            source: DurationSource::Modelled,
        }
    }

    #[test]
    fn an_observed_removal_gives_the_observed_lifetime() {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), Timestamp(SECOND), time_wait());
        assert_eq!(time_wait_table.counts(), (1, 0));
        let ConnKey { netns, local, remote } = key(1);
        let time = Timestamp(62 * SECOND);
        let end = TimewaitEnd { time, state: TcpState::TimeWait, local, remote, netns };
        let removed = time_wait_table.end(&end).unwrap();
        assert_eq!(removed.duration, Nanos::from_secs(61));
        assert_eq!(time_wait_table.counts(), (0, 0));
        assert_eq!(time_wait_table.end(&end), None);
    }

    #[test]
    fn a_socket_whose_removal_was_missed_expires_after_the_longest_lifetime() {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), Timestamp(SECOND), time_wait());
        assert_eq!(time_wait_table.pop_expired(Timestamp(69 * SECOND)), None);
        assert_eq!(time_wait_table.pop_expired(Timestamp(70 * SECOND)), Some(TcpState::TimeWait));
    }

    /// The kernel's timers fire late, and a FIN at the end of FIN_WAIT2 starts a full TIME_WAIT.
    #[test]
    fn entries_outlive_the_modelled_deadline_by_the_timer_slack() {
        for (state, seconds) in [(TcpState::TimeWait, 67), (TcpState::FinWait2, 134)] {
            let mut time_wait_table = TimeWaitTable::default();
            time_wait_table.insert(key(1), Timestamp(SECOND), AfterClose { state, ..time_wait() });
            let time = Timestamp((1 + seconds) * SECOND);
            assert_eq!(time_wait_table.pop_expired(time), None);
            let ConnKey { netns, local, remote } = key(1);
            let end = TimewaitEnd { time, state: TcpState::TimeWait, local, remote, netns };
            assert_eq!(time_wait_table.end(&end).unwrap().duration, Nanos::from_secs(seconds));
        }
    }

    #[test]
    fn each_state_expires_after_its_own_timeout() {
        let mut time_wait_table = TimeWaitTable::default();
        let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
        time_wait_table.insert(key(1), Timestamp(SECOND), fin_wait);
        time_wait_table.insert(key(2), Timestamp(2 * SECOND), time_wait());
        // A timestamp that goes backwards expires with the previous entry.
        time_wait_table.insert(key(3), Timestamp(0), time_wait());
        let now = Timestamp(71 * SECOND);
        let removed: Vec<_> = std::iter::from_fn(|| time_wait_table.pop_expired(now)).collect();
        assert_eq!(removed, [TcpState::TimeWait; 2]);
        assert_eq!(time_wait_table.counts(), (0, 1));
        assert_eq!(time_wait_table.pop_expired(Timestamp(140 * SECOND)), Some(TcpState::FinWait2));
    }

    #[test]
    fn a_key_reused_forever_keeps_the_queue_bounded() {
        let mut time_wait_table = TimeWaitTable::default();
        for time in 0..3 * MAX_ENTRIES as u64 {
            assert!(time_wait_table.insert(key(1), Timestamp(time), time_wait()));
            time_wait_table.reuse(&key(1));
        }
        assert!(time_wait_table.queues[0].entries.len() <= 2 * MAX_ENTRIES);
    }

    #[test]
    fn live_entries_survive_compaction() {
        let mut time_wait_table = TimeWaitTable::default();
        let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
        time_wait_table.insert(key(2), Timestamp(0), time_wait());
        time_wait_table.insert(key(3), Timestamp(0), fin_wait);
        for time in 0..2 * MAX_ENTRIES as u64 {
            time_wait_table.insert(key(1), Timestamp(time), time_wait());
        }
        assert_eq!(time_wait_table.counts(), (2, 1));
        assert!(time_wait_table.queues[0].entries.len() < MAX_ENTRIES, "the queue was compacted");
        let mut ports: Vec<_> = time_wait_table.iter().map(|socket| socket.local.port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3]);
        assert!([1, 2, 3].map(key).iter().all(|key| time_wait_table.reuse(key)));
        assert_eq!(time_wait_table.counts(), (0, 0));
    }

    #[test]
    fn early_reuse_is_reported_once() {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), Timestamp(SECOND), time_wait());
        assert!(time_wait_table.reuse(&key(1)));
        assert!(!time_wait_table.reuse(&key(1)));
        assert_eq!(time_wait_table.pop_expired(Timestamp(1000 * SECOND)), None);
    }

    fn found(port: u16, state: TcpState, due: u64) -> ExistingTimewait {
        let ConnKey { netns, local, remote } = key(port);
        ExistingTimewait {
            time: Timestamp(10 * SECOND),
            state,
            due: Timestamp(due * SECOND),
            local,
            remote,
            netns,
        }
    }

    #[test]
    fn a_resync_replaces_the_sockets_in_its_scope() {
        let mut table = TimeWaitTable::default();
        let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
        table.insert(key(1), Timestamp(SECOND), fin_wait);
        table.insert(key(2), Timestamp(2 * SECOND), time_wait());
        table.insert(key(3), Timestamp(11 * SECOND), time_wait());
        let elsewhere = ConnKey { netns: Some(Netns(2)), ..key(4) };
        table.insert(elsewhere, Timestamp(3 * SECOND), time_wait());
        let refused = table.resync(
            Timestamp(10 * SECOND),
            |netns| netns == Some(Netns(1)),
            &[
                found(1, TcpState::TimeWait, 70),
                found(3, TcpState::FinWait2, 60),
                found(5, TcpState::FinWait2, 40),
            ],
        );
        assert_eq!(refused, 0);
        let mut sockets: Vec<_> = table
            .iter()
            .map(|it| (it.local.port, it.state, it.since.map(|since| since.0 / SECOND)))
            .collect();
        sockets.sort_unstable_by_key(|socket| socket.0);
        assert_eq!(
            sockets,
            [
                (1, TcpState::TimeWait, Some(1)),
                // Newer than the dump.
                (3, TcpState::TimeWait, Some(11)),
                (4, TcpState::TimeWait, Some(3)),
                (5, TcpState::FinWait2, None),
            ]
        );
        assert_eq!(table.counts(), (3, 1));
    }

    #[test]
    fn dumped_sockets_expire_after_their_own_timers() {
        let mut table = TimeWaitTable::default();
        let sockets = [found(1, TcpState::TimeWait, 60), found(2, TcpState::TimeWait, 12)];
        table.resync(Timestamp(10 * SECOND), |_| true, &sockets);
        assert_eq!(table.pop_expired(Timestamp(20 * SECOND)), None);
        assert_eq!(table.pop_expired(Timestamp(21 * SECOND)), Some(TcpState::TimeWait));
        assert_eq!(table.iter().map(|it| it.local.port).collect::<Vec<_>>(), [1]);
        // The next dump finds the other one again.
        table.resync(Timestamp(30 * SECOND), |_| true, &sockets[..1]);
        assert_eq!((table.counts(), table.pop_expired(Timestamp(60 * SECOND))), ((1, 0), None));
        assert_eq!(table.pop_expired(Timestamp(69 * SECOND)), Some(TcpState::TimeWait));
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn a_dump_beyond_the_capacity_is_counted() {
        let mut table = TimeWaitTable::default();
        for time in 0..MAX_ENTRIES as u64 {
            let elsewhere = Endpoint { port: u16::try_from(time % 65_536).unwrap(), ..key(0).local };
            let remote = Endpoint { port: u16::try_from(time / 65_536).unwrap(), ..key(0).remote };
            let key = ConnKey { netns: Some(Netns(2)), local: elsewhere, remote };
            assert!(table.insert(key, Timestamp(time), time_wait()));
        }
        let scope = |netns| netns == Some(Netns(1));
        assert_eq!(table.resync(Timestamp(10 * SECOND), scope, &[found(1, TcpState::TimeWait, 60)]), 1);
    }
}
