//! The mini-sockets that closed connections have left: TIME_WAIT, and FIN_WAIT2 without an application.

use std::collections::VecDeque;

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
    followed: ByEnds,
    time_waits: Queue,
    fin_waits: Queue,
    time_wait: usize,
}

type ByEnds = HashMap<EndpointPair, Followed, foldhash::fast::RandomState>;

/// Mini-sockets of one state in the order in which they are forgotten: all have the same time, so that is the order
/// in which they came. Those that ended early are still among them.
type Queue = VecDeque<(Timestamp, EndpointPair)>;

impl Remains {
    /// A connection has ended and left a mini-socket. False when there are too many to follow it.
    pub(super) fn insert(&mut self, key: EndpointPair, since: Timestamp, after: AfterClose) -> bool {
        if self.followed.len() >= MAX_FOLLOWED {
            return false;
        }
        let (queue, longest) = match after.state {
            TcpState::TimeWait => (&mut self.time_waits, LONGEST_TIME_WAIT_NS),
            _ => (&mut self.fin_waits, LONGEST_FIN_WAIT_2_NS),
        };
        let deadline = Timestamp(since.0.saturating_add(after.duration_ns));
        let forgotten = Timestamp(since.0.saturating_add(longest.max(after.duration_ns)));
        // Keeps the order where a damaged recording goes back in time.
        let forgotten = queue.back().map_or(forgotten, |(last, _)| forgotten.max(*last));
        let remain = Followed { state: after.state, since, deadline, forgotten };
        if let Some(old) = self.followed.insert(key, remain) {
            self.time_wait -= usize::from(old.state == TcpState::TimeWait);
        }
        self.time_wait += usize::from(after.state == TcpState::TimeWait);
        if queue.len() >= 2 * MAX_FOLLOWED {
            queue.retain(|(forgotten, key)| is_followed(&self.followed, key, *forgotten));
        }
        queue.push_back((forgotten, key));
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
        for queue in [&mut self.time_waits, &mut self.fin_waits] {
            while queue.front().is_some_and(|(forgotten, _)| *forgotten <= now) {
                let (forgotten, key) = queue.pop_front()?;
                if is_followed(&self.followed, &key, forgotten) {
                    let remain = self.followed.remove(&key)?;
                    self.time_wait -= usize::from(remain.state == TcpState::TimeWait);
                    return Some(RemainEnd {
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
        (self.time_wait, self.followed.len() - self.time_wait)
    }

    fn take(&mut self, key: &EndpointPair) -> Option<Followed> {
        let remain = self.followed.remove(key)?;
        self.time_wait -= usize::from(remain.state == TcpState::TimeWait);
        Some(remain)
    }
}

/// Whether it is still there, and not another one with the same ends.
fn is_followed(followed: &ByEnds, key: &EndpointPair, forgotten: Timestamp) -> bool {
    followed.get(key).is_some_and(|remain| remain.forgotten == forgotten)
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
    fn each_kind_is_forgotten_after_its_own_time() {
        let mut remains = Remains::default();
        let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
        remains.insert(key(1), Timestamp(SECOND), fin_wait);
        remains.insert(key(2), Timestamp(2 * SECOND), time_wait());
        // Time went back: it is kept as long as the one before.
        remains.insert(key(3), Timestamp(0), time_wait());
        let now = Timestamp(71 * SECOND);
        let ended = std::iter::from_fn(|| remains.expired(now)).map(|end| end.state).collect::<Vec<_>>();
        assert_eq!(ended, [TcpState::TimeWait; 2]);
        assert_eq!(remains.counts(), (0, 1));
        assert_eq!(remains.expired(Timestamp(140 * SECOND)).map(|end| end.state), Some(TcpState::FinWait2));
    }

    #[test]
    fn ends_that_are_reused_forever_take_no_more_than_their_limit() {
        let mut remains = Remains::default();
        for time in 0..3 * MAX_FOLLOWED as u64 {
            assert!(remains.insert(key(1), Timestamp(time), time_wait()));
            remains.reused(&key(1));
        }
        assert!(remains.time_waits.len() <= 2 * MAX_FOLLOWED);
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
