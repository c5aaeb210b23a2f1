//! The timewait sockets that closed connections left behind, in TIME_WAIT or orphaned FIN_WAIT2.

mod expiry;
mod queue;
#[cfg(test)]
mod tests;

use std::hash::BuildHasher as _;

use hashbrown::{HashMap, HashTable};

use crate::{
    event::{
        ConnKey, ConnectionId, Endpoint, ExistingTimewait, Nanos, Netns, TcpState, Timestamp, TimewaitEnd,
    },
    lifecycle::{
        AfterClose, Age, TimeWaitModel,
        time_wait_table::expiry::{Entry, ExpiryQueue, IndexEntry, Location, QueueId},
    },
};

/// Capacity of the table: the kernel's default limit (`tcp_max_tw_buckets`) on a large host.
pub(super) const MAX_ENTRIES: usize = 262_144;

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
    pub timer_due: Timestamp,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The connection that left it behind; none if a socket dump found it.
    pub connection: Option<ConnectionId>,
}

/// The observed removal of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedTimewait {
    /// The state at removal.
    pub state: TcpState,
    /// The time from the close of the connection to the removal of its timewait socket.
    pub duration: Nanos,
    /// The connection that left it behind.
    pub connection: Option<ConnectionId>,
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

impl TimewaitSocket {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }

    /// Returns the time in the state: exact if the socket began in it, otherwise the least that its timer implies.
    pub(super) fn age(&self, model: TimeWaitModel, now: Timestamp) -> Age {
        let began_in_state = |since: &Timestamp| {
            let lifetime = model.lifetime(self.state).unwrap_or_default();
            self.timer_due.since(*since) <= lifetime.saturating_add(SAME_TIMER)
        };
        match self.since.filter(began_in_state) {
            Some(since) => Age::Observed(now.since(since)),
            None => {
                Age::AtLeast(model.age_at_least(self.state, self.timer_due.since(now)).unwrap_or_default())
            }
        }
    }
}

impl TimeWaitTable {
    /// Adds the timewait socket of a closed connection. Returns false when the table is full.
    pub(super) fn insert(
        &mut self,
        key: ConnKey,
        connection: ConnectionId,
        since: Timestamp,
        after: AfterClose,
    ) -> bool {
        if self.index.len() >= MAX_ENTRIES {
            return false;
        }
        // A new connection with the same key implies that the old socket is gone.
        self.take(&key);
        let longest = if after.state == TcpState::TimeWait { LONGEST_TIME_WAIT } else { LONGEST_FIN_WAIT_2 };
        let timer_due = since.saturating_add(after.duration);
        let expires = since.saturating_add(longest.max(after.duration));
        let ConnKey { netns, local, remote } = key;
        let socket = TimewaitSocket {
            state: after.state,
            since: Some(since),
            timer_due,
            local,
            remote,
            netns,
            connection: Some(connection),
        };
        self.push(QueueId::of(after.state), Entry { socket, expires, removed: false });
        true
    }

    /// Replaces the sockets in the scope of a socket dump that began at `started` with those that the dump found. Returns
    /// the number of sockets dropped because the table is full.
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
        let known: HashMap<ConnKey, TimewaitSocket, foldhash::fast::RandomState> =
            replaced.iter().filter_map(|key| Some((*key, self.take(key)?))).collect();
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
            let ExistingTimewait { state, timer_due, local, remote, netns, .. } = *found;
            let known = known.get(&found.key()).filter(|known| is_same(known, found));
            let since = known.and_then(|known| known.since);
            let connection = known.and_then(|known| known.connection);
            let socket = TimewaitSocket { state, since, timer_due, local, remote, netns, connection };
            let late = if state == TcpState::TimeWait {
                TIMER_SLACK
            } else {
                TIMER_SLACK.saturating_add(LONGEST_TIME_WAIT)
            };
            Entry { socket, expires: timer_due.saturating_add(late), removed: false }
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
            connection: socket.connection,
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

/// How far the modelled and the dumped end of one timewait socket may differ: the model starts from the close, and the
/// kernel reports ticks.
const SAME_TIMER: Nanos = Nanos::from_secs(1);

/// Returns whether a dumped timewait socket is the known one, and not that of a later connection with the same key. If it
/// cannot be told, it is not.
fn is_same(known: &TimewaitSocket, found: &ExistingTimewait) -> bool {
    if known.state == found.state {
        let apart = known.timer_due.since(found.timer_due).max(found.timer_due.since(known.timer_due));
        return apart <= SAME_TIMER;
    }
    // A FIN has moved it to TIME_WAIT, which began after the close and ends after 60 s.
    known.state == TcpState::FinWait2
        && known.since.is_some_and(|since| found.timer_due.since(since) <= LONGEST_FIN_WAIT_2)
}

fn entry(queues: &[ExpiryQueue; 3], location: Location) -> Option<&Entry> {
    let queue = queues.get(location.queue())?;
    queue.entries.get(queue.position(location))
}
