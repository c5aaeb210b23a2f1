//! The mini-sockets that closed connections have left: TIME_WAIT, and FIN_WAIT2 without an application.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashMap;

use super::{AfterClose, DurationSource, TcpState, half_open::EndpointPair};
use crate::event::{Endpoint, MiniSocketEnd, Timestamp};

/// Most mini-sockets followed: the kernel's own default limit (`tcp_max_tw_buckets`) on a large host.
const MAX_FOLLOWED: usize = 262_144;

/// Longer than any mini-socket lives. One in TIME_WAIT has the kernel's minute (`TCP_TIMEWAIT_LEN`); one in
/// FIN_WAIT2 has another when a FIN comes at the end of its own, which is a minute at most. A timer wheel is
/// late by up to an eighth of what it was set to (kernel/time/timer.c).
const LONGEST_TIME_WAIT_NS: u64 = 60_000_000_000 / 8 * 9 + 1_000_000_000;
const LONGEST_FIN_WAIT_2_NS: u64 = 2 * LONGEST_TIME_WAIT_NS;

/// A mini-socket that is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remain {
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

/// A mini-socket as it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Followed {
    state: TcpState,
    since: Timestamp,
    /// When the model lets it end.
    deadline: Timestamp,
    /// When the kernel can have it no more, whether its end was seen or not.
    forgotten: Timestamp,
}

/// The end of a mini-socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemainEnd {
    /// The state that ended.
    pub state: TcpState,
    /// Nanoseconds from the connection's end to the mini-socket's.
    pub duration_ns: u64,
    /// Whether the end was observed or derived from the kernel's timers.
    pub source: DurationSource,
}

/// The mini-sockets by their ends.
#[derive(Debug, Default)]
pub(super) struct Remains {
    followed: HashMap<EndpointPair, Followed, foldhash::fast::RandomState>,
    forgotten: BinaryHeap<Reverse<(Timestamp, EndpointPair)>>,
    time_wait: usize,
}

impl Remains {
    /// A connection has ended and left a mini-socket. False when there are too many to follow it.
    pub(super) fn insert(&mut self, key: EndpointPair, since: Timestamp, after: AfterClose) -> bool {
        if self.followed.len() >= MAX_FOLLOWED {
            return false;
        }
        let deadline = Timestamp(since.0.saturating_add(after.duration_ns));
        let longest =
            if after.state == TcpState::TimeWait { LONGEST_TIME_WAIT_NS } else { LONGEST_FIN_WAIT_2_NS };
        let forgotten = Timestamp(since.0.saturating_add(longest.max(after.duration_ns)));
        let remain = Followed { state: after.state, since, deadline, forgotten };
        if let Some(old) = self.followed.insert(key, remain) {
            self.time_wait -= usize::from(old.state == TcpState::TimeWait);
        }
        self.time_wait += usize::from(after.state == TcpState::TimeWait);
        self.forgotten.push(Reverse((forgotten, key)));
        true
    }

    /// Those that are there now.
    pub(super) fn iter(&self) -> impl Iterator<Item = Remain> + '_ {
        self.followed.iter().map(|(&(netns, local, remote), followed)| {
            let Followed { state, since, deadline, forgotten: _ } = *followed;
            Remain { state, since, deadline, local, remote, netns }
        })
    }

    /// The kernel told that a mini-socket ended.
    pub(super) fn ended(&mut self, event: &MiniSocketEnd) -> Option<RemainEnd> {
        let remain = self.take(&(event.netns, event.local, event.remote))?;
        Some(RemainEnd {
            // A FIN that came meanwhile has turned FIN_WAIT2 into TIME_WAIT.
            state: event.state,
            duration_ns: event.time.since(remain.since),
            source: DurationSource::Observed,
        })
    }

    /// A new connection has the same ends: the mini-socket made way for it before its time.
    pub(super) fn reused(&mut self, key: &EndpointPair) -> bool {
        !self.followed.is_empty() && self.take(key).is_some()
    }

    /// Takes out one whose end must have been missed at `now`; it is the model's. Not before: the kernel's
    /// own end comes after the model's, as its timers are late.
    pub(super) fn expired(&mut self, now: Timestamp) -> Option<RemainEnd> {
        while let Some(Reverse((forgotten, key))) = self.forgotten.peek().copied() {
            if forgotten > now {
                return None;
            }
            self.forgotten.pop();
            if self.followed.get(&key).is_some_and(|remain| remain.forgotten == forgotten) {
                let remain = self.take(&key)?;
                return Some(RemainEnd {
                    state: remain.state,
                    duration_ns: remain.deadline.since(remain.since),
                    source: DurationSource::Modelled,
                });
            }
        }
        None
    }

    /// How many are in TIME_WAIT and in FIN_WAIT2.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.time_wait, self.followed.len() - self.time_wait)
    }

    fn take(&mut self, key: &EndpointPair) -> Option<Followed> {
        let remain = self.followed.remove(key)?;
        self.time_wait -= usize::from(remain.state == TcpState::TimeWait);
        Some(remain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Endpoint;

    const SECOND: u64 = 1_000_000_000;

    fn key(port: u16) -> EndpointPair {
        let address = "10.0.0.1".parse().unwrap();
        (Some(1), Endpoint { address, port }, Endpoint { address, port: 80 })
    }

    fn time_wait() -> AfterClose {
        AfterClose { state: TcpState::TimeWait, duration_ns: 60 * SECOND, source: DurationSource::Modelled }
    }

    #[test]
    fn ends_when_the_kernel_says_so() {
        let mut remains = Remains::default();
        remains.insert(key(1), Timestamp(SECOND), time_wait());
        assert_eq!(remains.counts(), (1, 0));
        let (netns, local, remote) = key(1);
        let time = Timestamp(62 * SECOND);
        let end = MiniSocketEnd { time, state: TcpState::TimeWait, local, remote, netns };
        let ended = remains.ended(&end).unwrap();
        assert_eq!((ended.duration_ns, ended.source), (61 * SECOND, DurationSource::Observed));
        assert_eq!(remains.counts(), (0, 0));
        assert_eq!(remains.ended(&end), None);
    }

    #[test]
    fn ends_by_the_model_otherwise() {
        let mut remains = Remains::default();
        remains.insert(key(1), Timestamp(SECOND), time_wait());
        assert_eq!(remains.expired(Timestamp(69 * SECOND)), None);
        let ended = remains.expired(Timestamp(70 * SECOND)).unwrap();
        assert_eq!((ended.duration_ns, ended.source), (60 * SECOND, DurationSource::Modelled));
    }

    /// The kernel's timers are late, and a FIN at the end of FIN_WAIT2 begins a whole TIME_WAIT.
    #[test]
    fn waits_for_the_kernels_word_beyond_the_model() {
        for (state, seconds) in [(TcpState::TimeWait, 67), (TcpState::FinWait2, 134)] {
            let mut remains = Remains::default();
            remains.insert(key(1), Timestamp(SECOND), AfterClose { state, ..time_wait() });
            let time = Timestamp((1 + seconds) * SECOND);
            assert_eq!(remains.expired(time), None);
            let (netns, local, remote) = key(1);
            let end = MiniSocketEnd { time, state: TcpState::TimeWait, local, remote, netns };
            assert_eq!(remains.ended(&end).unwrap().duration_ns, seconds * SECOND);
        }
    }

    #[test]
    fn early_reuse_is_recognised_once() {
        let mut remains = Remains::default();
        remains.insert(key(1), Timestamp(SECOND), time_wait());
        assert!(remains.reused(&key(1)));
        assert!(!remains.reused(&key(1)));
        assert_eq!(remains.expired(Timestamp(1000 * SECOND)), None);
    }
}
