//! A listener with its activity, and the order of listeners.

use std::cmp::Reverse;

use crate::{
    analysis::{DurationSketch, ListenerSnapshot},
    event::{AcceptQueue, Process},
};

/// The handshakes at one listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerHandshakes {
    pub(super) established: u64,
    pub(super) abandoned: u64,
    pub(super) durations: DurationSketch,
    pub(super) accept_waits: DurationSketch,
}

impl ListenerHandshakes {
    /// Returns the number of completed handshakes.
    pub fn established(&self) -> u64 {
        self.established
    }

    /// Returns the number of handshakes that this host answered and the client never completed.
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// Returns the known durations of completed handshakes.
    pub fn durations(&self) -> &DurationSketch {
        &self.durations
    }

    /// Returns the known waits of connections in the accept queue.
    pub fn accept_waits(&self) -> &DurationSketch {
        &self.accept_waits
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.established += other.established;
        self.abandoned += other.abandoned;
        self.durations.merge(&other.durations);
        self.accept_waits.merge(&other.accept_waits);
    }
}

/// A listening socket at the time of the last dump, with its activity since the first.
#[derive(Clone, Debug)]
pub struct ListenerReport {
    /// The listener in the last dump.
    pub socket: ListenerSnapshot,
    /// A process that holds the listener.
    pub process: Option<Process>,
    /// The longest accept queue in a dump or event.
    pub accept_queue_peak: Option<u32>,
    /// Half-open handshakes. None if the dump is incomplete, or other listeners share the address.
    pub half_open: Option<u64>,
    /// Drops since the first dump. None if the listener may be older and no earlier dump contained it.
    pub drops_during: Option<u32>,
    /// The handshakes since the first dump. None if other listeners share the address.
    pub handshakes: Option<ListenerHandshakes>,
}

impl ListenerReport {
    /// Returns the order of the reports: the worst listener first.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let ListenerSnapshot { drops, local, netns, cookie, .. } = self.socket;
        let abandoned = self.handshakes.as_ref().map(ListenerHandshakes::abandoned);
        (
            Reverse(self.drops_during),
            Reverse(Fullness(self.socket.accept_queue.unwrap_or(AcceptQueue { length: 0, limit: 0 }))),
            Reverse(drops),
            Reverse(abandoned),
            Reverse(self.half_open),
            local.port,
            local.address,
            netns,
            cookie.0,
        )
    }
}

/// An accept queue, ordered by the used share of its capacity. Linux admits one connection more than the limit.
#[derive(Clone, Copy, Debug)]
struct Fullness(AcceptQueue);

impl Ord for Fullness {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let capacity = |queue: AcceptQueue| u64::from(queue.limit) + 1;
        let own = u64::from(self.0.length).saturating_mul(capacity(other.0));
        own.cmp(&u64::from(other.0.length).saturating_mul(capacity(self.0)))
    }
}

impl PartialOrd for Fullness {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fullness {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Fullness {}
