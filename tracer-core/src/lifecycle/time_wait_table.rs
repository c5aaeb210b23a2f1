//! The mini-sockets that closed connections have left: TIME_WAIT, and FIN_WAIT2 without an application.

mod queue;

use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use crate::{
    event::{Endpoint, TcpState, Timestamp, TimewaitEnd},
    lifecycle::{AfterClose, DurationSource, half_open::ConnKey, time_wait_table::queue::Queue},
};

/// Most mini-sockets followed: the kernel's own default limit (`tcp_max_tw_buckets`) on a large host.
const MAX_FOLLOWED: usize = 262_144;

/// Longer than any mini-socket lives. One in TIME_WAIT has the kernel's minute (`TCP_TIMEWAIT_LEN`); one in
/// FIN_WAIT2 has another when a FIN comes at the end of its own, which is a minute at most. A timer wheel is
/// late by up to an eighth of what it was set to (kernel/time/timer.c).
const LONGEST_TIME_WAIT_NS: u64 = 60_000_000_000 / 8 * 9 + 1_000_000_000;
const LONGEST_FIN_WAIT_2_NS: u64 = 2 * LONGEST_TIME_WAIT_NS;

/// A mini-socket that is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimewaitSocket {
    /// Its state: TIME_WAIT or FIN_WAIT2.
    pub state: TcpState,
    /// When the connection ended and left it.
    pub since: Timestamp,
    /// When the kernel's timers let it end.
    pub deadline: Timestamp,
    /// The local end.
    pub local: Endpoint,
    /// The remote end.
    pub remote: Endpoint,
    /// Inode of its network namespace.
    pub netns: Option<u32>,
}

/// The end of a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedTimewait {
    /// The state that ended.
    pub state: TcpState,
    /// Nanoseconds from the connection's end to the mini-socket's.
    pub duration_ns: u64,
    /// Whether the end was observed or derived from the kernel's timers.
    pub source: DurationSource,
}

/// The mini-sockets, and where each is by its ends.
///
/// On a host that closes thousands of connections a second there are hundreds of thousands, and two questions for
/// each connection, nearly always answered by no. So they lie one behind the other in the order in which they came,
/// and what is asked is a table of places and hashes, a fifth of their size.
#[derive(Debug, Default)]
pub(super) struct TimeWaitTable {
    index: HashTable<Indexed>,
    hasher: foldhash::fast::RandomState,
    time_waits: Numbered,
    fin_waits: Numbered,
    time_wait: usize,
}

/// Mini-sockets of one state in the order in which they are forgotten: all have the same time, so that is the order
/// in which they came. Those that ended early are still among them.
#[derive(Debug, Default)]
struct Numbered {
    entries: Queue<Followed>,
    /// The number of the first; numbers wrap around.
    first: u32,
}

/// A mini-socket as it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Followed {
    remain: TimewaitSocket,
    /// When the kernel can have it no more, whether its end was seen or not.
    forgotten: Timestamp,
    /// It has ended early.
    ended: bool,
}

/// Where one is, and the hash of its ends: one that is not there is nearly always told by that alone, and a table that
/// grows does not have to look at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Indexed {
    hash: u32,
    place: Place,
}

impl Indexed {
    /// Half of a hash, twice: the table takes its place from the one end and its tag from the other.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// Which queue one is in, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32);

impl Place {
    const FIN_WAIT: u32 = 1 << 31;

    fn new(state: TcpState, number: u32) -> Self {
        let queue = if state == TcpState::TimeWait { 0 } else { Self::FIN_WAIT };
        Self(number & !Self::FIN_WAIT | queue)
    }
}

impl Numbered {
    /// The number of the next.
    fn next(&self) -> u32 {
        // No queue is as long as that.
        self.first.wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX))
    }

    fn position(&self, place: Place) -> usize {
        (place.0.wrapping_sub(self.first) & !Place::FIN_WAIT) as usize
    }

    fn pop(&mut self) -> Option<Followed> {
        let followed = self.entries.pop()?;
        self.first = self.first.wrapping_add(1);
        Some(followed)
    }
}

impl TimewaitSocket {
    fn ends(&self) -> ConnKey {
        (self.netns, self.local, self.remote)
    }
}

impl TimeWaitTable {
    /// A connection has ended and left a mini-socket. False when there are too many to follow it.
    pub(super) fn insert(&mut self, key: ConnKey, since: Timestamp, after: AfterClose) -> bool {
        if self.index.len() >= MAX_FOLLOWED {
            return false;
        }
        // One with the same ends is gone.
        self.take(&key);
        let longest =
            if after.state == TcpState::TimeWait { LONGEST_TIME_WAIT_NS } else { LONGEST_FIN_WAIT_2_NS };
        let deadline = Timestamp(since.0.saturating_add(after.duration_ns));
        let forgotten = Timestamp(since.0.saturating_add(longest.max(after.duration_ns)));
        let (netns, local, remote) = key;
        let remain = TimewaitSocket { state: after.state, since, deadline, local, remote, netns };
        if self.queue_of(after.state).entries.len() >= 2 * MAX_FOLLOWED {
            self.pack();
        }
        let queue = self.queue_of(after.state);
        // Keeps the order where a damaged recording goes back in time.
        let forgotten = queue.entries.last().map_or(forgotten, |last| forgotten.max(last.forgotten));
        let place = Place::new(after.state, queue.next());
        queue.entries.push(Followed { remain, forgotten, ended: false });
        self.time_wait += usize::from(after.state == TcpState::TimeWait);
        self.put(&key, place);
        true
    }

    /// Those that are there now.
    pub(super) fn iter(&self) -> impl Iterator<Item = TimewaitSocket> + '_ {
        let all = self.time_waits.entries.iter().chain(self.fin_waits.entries.iter());
        all.filter(|followed| !followed.ended).map(|followed| followed.remain)
    }

    /// The kernel told that a mini-socket ended.
    pub(super) fn ended(&mut self, event: &TimewaitEnd) -> Option<EndedTimewait> {
        let remain = self.take(&(event.netns, event.local, event.remote))?;
        Some(EndedTimewait {
            // A FIN that came meanwhile has turned FIN_WAIT2 into TIME_WAIT.
            state: event.state,
            duration_ns: event.time.since(remain.since),
            source: DurationSource::Observed,
        })
    }

    /// A new connection has the same ends: the mini-socket made way for it before its time.
    pub(super) fn reused(&mut self, key: &ConnKey) -> bool {
        self.take(key).is_some()
    }

    /// Takes out one whose end must have been missed at `now`; it is the model's. Not before: the kernel's
    /// own end comes after the model's, as its timers are late.
    pub(super) fn expired(&mut self, now: Timestamp) -> Option<EndedTimewait> {
        for state in [TcpState::TimeWait, TcpState::FinWait2] {
            let due =
                |queue: &Numbered| queue.entries.first().is_some_and(|followed| followed.forgotten <= now);
            while due(self.queue_of(state)) {
                let followed = *self.queue_of(state).entries.first()?;
                let remain = followed.remain;
                if !followed.ended {
                    self.take(&remain.ends());
                }
                self.queue_of(state).pop();
                if !followed.ended {
                    return Some(EndedTimewait {
                        state: remain.state,
                        duration_ns: remain.deadline.since(remain.since),
                        source: DurationSource::Modelled,
                    });
                }
            }
        }
        None
    }

    /// How many are in TIME_WAIT and in FIN_WAIT2.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.time_wait, self.index.len() - self.time_wait)
    }

    fn queue_of(&mut self, state: TcpState) -> &mut Numbered {
        if state == TcpState::TimeWait { &mut self.time_waits } else { &mut self.fin_waits }
    }

    /// Takes out the one with these ends.
    fn take(&mut self, key: &ConnKey) -> Option<TimewaitSocket> {
        if self.index.is_empty() {
            return None;
        }
        let hash = self.hash(key);
        let Self { index, time_waits, fin_waits, .. } = self;
        let found = index.find_entry(Indexed::spread(hash), |indexed| {
            indexed.hash == hash
                && followed(time_waits, fin_waits, indexed.place).is_some_and(|it| it.remain.ends() == *key)
        });
        let (Indexed { place, .. }, _) = found.ok()?.remove();
        let queue = if place.0 & Place::FIN_WAIT == 0 { time_waits } else { fin_waits };
        let position = queue.position(place);
        let followed = queue.entries.get_mut(position)?;
        followed.ended = true;
        self.time_wait -= usize::from(followed.remain.state == TcpState::TimeWait);
        Some(followed.remain)
    }

    fn put(&mut self, key: &ConnKey, place: Place) {
        let hash = self.hash(key);
        self.index.insert_unique(Indexed::spread(hash), Indexed { hash, place }, |indexed| {
            Indexed::spread(indexed.hash)
        });
    }

    fn hash(&self, key: &ConnKey) -> u32 {
        let hash = self.hasher.hash_one(key);
        // Half of it is as good as any.
        u32::try_from(hash >> 32).unwrap_or_default()
    }

    /// Drops those that have ended early from the queues.
    fn pack(&mut self) {
        self.index.clear();
        for state in [TcpState::TimeWait, TcpState::FinWait2] {
            let queue = self.queue_of(state);
            queue.entries.retain(|followed| !followed.ended);
            let first = queue.first;
            let ends: Vec<_> = queue.entries.iter().map(|followed| followed.remain.ends()).collect();
            for (number, ends) in (0..).zip(&ends) {
                self.put(ends, Place::new(state, first.wrapping_add(number)));
            }
        }
    }
}

fn followed<'a>(time_waits: &'a Numbered, fin_waits: &'a Numbered, place: Place) -> Option<&'a Followed> {
    let queue = if place.0 & Place::FIN_WAIT == 0 { time_waits } else { fin_waits };
    queue.entries.get(queue.position(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Endpoint;

    const SECOND: u64 = 1_000_000_000;

    fn key(port: u16) -> ConnKey {
        let address = "10.0.0.1".parse().unwrap();
        (Some(1), Endpoint { address, port }, Endpoint { address, port: 80 })
    }

    fn time_wait() -> AfterClose {
        AfterClose { state: TcpState::TimeWait, duration_ns: 60 * SECOND, source: DurationSource::Modelled }
    }

    #[test]
    fn ends_when_the_kernel_says_so() {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), Timestamp(SECOND), time_wait());
        assert_eq!(time_wait_table.counts(), (1, 0));
        let (netns, local, remote) = key(1);
        let time = Timestamp(62 * SECOND);
        let end = TimewaitEnd { time, state: TcpState::TimeWait, local, remote, netns };
        let ended = time_wait_table.ended(&end).unwrap();
        assert_eq!((ended.duration_ns, ended.source), (61 * SECOND, DurationSource::Observed));
        assert_eq!(time_wait_table.counts(), (0, 0));
        assert_eq!(time_wait_table.ended(&end), None);
    }

    #[test]
    fn ends_by_the_model_otherwise() {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), Timestamp(SECOND), time_wait());
        assert_eq!(time_wait_table.expired(Timestamp(69 * SECOND)), None);
        let ended = time_wait_table.expired(Timestamp(70 * SECOND)).unwrap();
        assert_eq!((ended.duration_ns, ended.source), (60 * SECOND, DurationSource::Modelled));
    }

    /// The kernel's timers are late, and a FIN at the end of FIN_WAIT2 begins a whole TIME_WAIT.
    #[test]
    fn waits_for_the_kernels_word_beyond_the_model() {
        for (state, seconds) in [(TcpState::TimeWait, 67), (TcpState::FinWait2, 134)] {
            let mut time_wait_table = TimeWaitTable::default();
            time_wait_table.insert(key(1), Timestamp(SECOND), AfterClose { state, ..time_wait() });
            let time = Timestamp((1 + seconds) * SECOND);
            assert_eq!(time_wait_table.expired(time), None);
            let (netns, local, remote) = key(1);
            let end = TimewaitEnd { time, state: TcpState::TimeWait, local, remote, netns };
            assert_eq!(time_wait_table.ended(&end).unwrap().duration_ns, seconds * SECOND);
        }
    }

    #[test]
    fn each_kind_is_forgotten_after_its_own_time() {
        let mut time_wait_table = TimeWaitTable::default();
        let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
        time_wait_table.insert(key(1), Timestamp(SECOND), fin_wait);
        time_wait_table.insert(key(2), Timestamp(2 * SECOND), time_wait());
        // Time went back: it is kept as long as the one before.
        time_wait_table.insert(key(3), Timestamp(0), time_wait());
        let now = Timestamp(71 * SECOND);
        let ended =
            std::iter::from_fn(|| time_wait_table.expired(now)).map(|end| end.state).collect::<Vec<_>>();
        assert_eq!(ended, [TcpState::TimeWait; 2]);
        assert_eq!(time_wait_table.counts(), (0, 1));
        assert_eq!(
            time_wait_table.expired(Timestamp(140 * SECOND)).map(|end| end.state),
            Some(TcpState::FinWait2)
        );
    }

    #[test]
    fn ends_that_are_reused_forever_take_no_more_than_their_limit() {
        let mut time_wait_table = TimeWaitTable::default();
        for time in 0..3 * MAX_FOLLOWED as u64 {
            assert!(time_wait_table.insert(key(1), Timestamp(time), time_wait()));
            time_wait_table.reused(&key(1));
        }
        assert!(time_wait_table.time_waits.entries.len() <= 2 * MAX_FOLLOWED);
    }

    #[test]
    fn those_that_stay_are_found_after_packing() {
        let mut time_wait_table = TimeWaitTable::default();
        let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
        time_wait_table.insert(key(2), Timestamp(0), time_wait());
        time_wait_table.insert(key(3), Timestamp(0), fin_wait);
        for time in 0..2 * MAX_FOLLOWED as u64 {
            time_wait_table.insert(key(1), Timestamp(time), time_wait());
        }
        assert_eq!(time_wait_table.counts(), (2, 1));
        assert!(time_wait_table.time_waits.entries.len() < MAX_FOLLOWED, "it was packed");
        let mut ports: Vec<_> = time_wait_table.iter().map(|remain| remain.local.port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3]);
        assert!([1, 2, 3].map(key).iter().all(|key| time_wait_table.reused(key)));
        assert_eq!(time_wait_table.counts(), (0, 0));
    }

    #[test]
    fn early_reuse_is_recognised_once() {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), Timestamp(SECOND), time_wait());
        assert!(time_wait_table.reused(&key(1)));
        assert!(!time_wait_table.reused(&key(1)));
        assert_eq!(time_wait_table.expired(Timestamp(1000 * SECOND)), None);
    }
}
