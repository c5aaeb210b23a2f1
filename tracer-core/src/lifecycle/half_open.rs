//! Handshakes that a listener answered and the client has not completed.
//!
//! The kernel represents them as request sockets, which have no state transitions. They become visible when the
//! kernel retransmits the SYN-ACK, 1, 3, 7, 15 and 31 s after the first one (RFC 6298 doubling, 6.18
//! inet_connection_sock.c `reqsk_timer_handler`). A handshake counts as abandoned when its next retransmission is
//! overdue and it has not completed.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashMap;

use crate::event::{
    AcceptQueue, ConnKey, Endpoint, InitialSequences, Nanos, Netns, SynAckRetransmit, Timestamp, Transition,
};
use crate::lifecycle::backoff;

/// Capacity of the table. A SYN flood exceeds it; further handshakes are only counted.
const MAX_ENTRIES: usize = 65_536;
/// How late a retransmission may be before the handshake counts as abandoned.
const GRACE: Nanos = Nanos::from_secs(2);

/// How much two measurements of the same time may differ.
const SAMPLE_TOLERANCE: Nanos = Nanos::from_millis(5);

/// The result of recording a retransmission.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    /// The handshake is followed. It may replace an earlier request of the same client, which was abandoned.
    Followed(Option<HalfOpen>),
    /// The table is full.
    Full,
}

/// When a SYN-ACK was retransmitted before the client's ACK came: the first eight times. By default the kernel stops after
/// five retransmissions (`net.ipv4.tcp_synack_retries`); its answers to retransmitted SYNs come on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynAckResends {
    times: [Timestamp; 8],
    count: u8,
}

impl SynAckResends {
    /// Adds a time. A ninth is left out.
    fn add(&mut self, time: Timestamp) {
        if let Some(place) = self.times.get_mut(usize::from(self.count)) {
            *place = time;
            self.count += 1;
        }
    }

    /// Iterates over the times, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.times.iter().take(usize::from(self.count)).copied()
    }
}

/// A handshake that this host answered and the client has not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    /// The local endpoint.
    pub local: Endpoint,
    /// The endpoint of the client.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// When the first SYN-ACK was sent.
    pub answered: Timestamp,
    /// True when the kernel reported `answered`; false when it is derived from the retransmission schedule.
    pub answered_exactly: bool,
    /// When the SYN-ACK was last sent.
    pub last_sent: Timestamp,
    /// How often the SYN-ACK was retransmitted.
    pub retransmits: u8,
    /// How many of the retransmissions followed the client's ACK (`TCP_DEFER_ACCEPT`): no SYN-ACK was lost.
    pub acked_retransmits: u8,
    /// The listener's accept queue at the last retransmission.
    pub accept_queue: Option<AcceptQueue>,
    /// The initial sequence numbers; none when unknown.
    pub sequences: Option<InitialSequences>,
    /// When the SYN-ACK was retransmitted.
    pub resends: SynAckResends,
}

impl HalfOpen {
    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }

    /// Returns whether the connection that became ESTABLISHED with `transition` completes this handshake.
    ///
    /// A client may give up and retry from the same port. The kernel counts no retransmission for the new request, and
    /// its sample is shorter than the time since the old request was answered. The count may also be 0 because the ACK
    /// arrived before the kernel counted; the sample then covers that time.
    pub(super) fn belongs_to(&self, transition: &Transition) -> bool {
        let Some(info) = transition.info else { return true };
        if info.retransmits > 0 {
            return true;
        }
        let elapsed = transition.time.since(self.answered);
        let tolerance = SAMPLE_TOLERANCE.saturating_add(Nanos(elapsed.0 / 8));
        info.srtt.is_some_and(|sample| Nanos::from(sample).saturating_add(tolerance) >= elapsed)
    }

    /// Returns whether a retransmission is of another request of the same client.
    fn is_superseded_by(&self, event: &SynAckRetransmit) -> bool {
        match event.first_sent.filter(|_| self.answered_exactly) {
            Some(first_sent) => {
                let apart = first_sent.since(self.answered).max(self.answered.since(first_sent));
                apart > SAMPLE_TOLERANCE
            }
            None => event.attempts < self.retransmits,
        }
    }

    /// Returns when the next retransmission is overdue.
    fn deadline(&self) -> Timestamp {
        let interval = backoff::interval(self.retransmits);
        self.last_sent.saturating_add(interval).saturating_add(GRACE)
    }
}

/// The half-open handshakes whose SYN-ACK was retransmitted.
#[derive(Debug, Default)]
pub(super) struct HalfOpens {
    entries: HashMap<ConnKey, HalfOpen, foldhash::fast::RandomState>,
    /// The deadline of each retransmission. Stale deadlines stay until they pass, or until the heap reaches
    /// `2 * MAX_ENTRIES` and is rebuilt.
    deadlines: BinaryHeap<Reverse<(Timestamp, ConnKey)>>,
}

impl HalfOpens {
    /// Records a SYN-ACK retransmission.
    pub(super) fn retransmitted(&mut self, event: &SynAckRetransmit) -> Recorded {
        let key = event.key();
        let earlier = self.entries.get(&key).copied();
        if earlier.is_none() && self.entries.len() >= MAX_ENTRIES {
            return Recorded::Full;
        }
        let superseded = earlier.filter(|earlier| earlier.is_superseded_by(event));
        let same = earlier.filter(|_| superseded.is_none());
        let known = same.map(|same| (same.answered, same.answered_exactly));
        let elapsed = backoff::offset(event.attempts.max(1));
        let derived = event.time.saturating_sub(elapsed);
        let mut resends = same.map(|same| same.resends).unwrap_or_default();
        if !event.acked {
            resends.add(event.time);
        }
        let reported = event.first_sent.map(|first_sent| (first_sent, true));
        let (answered, answered_exactly) = reported.or(known).unwrap_or((derived, false));
        let half_open = HalfOpen {
            local: event.local,
            remote: event.remote,
            netns: event.netns,
            answered,
            answered_exactly,
            last_sent: event.time,
            retransmits: event.attempts.max(1),
            acked_retransmits: same
                .map_or(0, |same| same.acked_retransmits)
                .saturating_add(u8::from(event.acked)),
            accept_queue: event.accept_queue,
            sequences: event.sequences,
            resends,
        };
        self.entries.insert(key, half_open);
        if self.deadlines.len() < 2 * MAX_ENTRIES {
            self.deadlines.push(Reverse((half_open.deadline(), key)));
        } else {
            let current = self.entries.iter().map(|(key, half_open)| Reverse((half_open.deadline(), *key)));
            self.deadlines = current.collect();
        }
        Recorded::Followed(superseded)
    }

    /// Removes a handshake that completed and returns it.
    pub(super) fn complete(&mut self, key: &ConnKey) -> Option<HalfOpen> {
        if self.entries.is_empty() { None } else { self.entries.remove(key) }
    }

    /// Removes and returns one handshake that is overdue at `now`.
    pub(super) fn pop_overdue(&mut self, now: Timestamp) -> Option<HalfOpen> {
        while self.deadlines.peek().is_some_and(|Reverse((deadline, _))| *deadline <= now) {
            let Reverse((deadline, key)) = self.deadlines.pop()?;
            // The deadline is stale if a later retransmission moved it or the handshake completed.
            if self.entries.get(&key).is_some_and(|half_open| half_open.deadline() == deadline) {
                return self.entries.remove(&key);
            }
        }
        None
    }

    /// Iterates over the half-open handshakes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &HalfOpen> + '_ {
        self.entries.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SocketId;

    const SECOND: u64 = 1_000_000_000;

    fn retransmit(client: u16, at: u64, attempts: u8) -> SynAckRetransmit {
        SynAckRetransmit {
            time: Timestamp(at),
            listener: SocketId(1),
            local: Endpoint { address: "10.0.0.1".parse().unwrap(), port: 80 },
            remote: Endpoint { address: "10.0.0.2".parse().unwrap(), port: client },
            netns: None,
            attempts,
            first_sent: None,
            accept_queue: None,
            acked: false,
            sequences: None,
        }
    }

    #[test]
    fn a_handshake_is_abandoned_when_the_next_retransmission_is_overdue() {
        let mut half_opens = HalfOpens::default();
        assert_eq!(half_opens.retransmitted(&retransmit(1, 101 * SECOND, 1)), Recorded::Followed(None));
        assert_eq!(half_opens.retransmitted(&retransmit(1, 103 * SECOND, 2)), Recorded::Followed(None));
        assert_eq!(half_opens.pop_overdue(Timestamp(108 * SECOND)), None);
        let abandoned = half_opens.pop_overdue(Timestamp(109 * SECOND)).unwrap();
        assert_eq!(abandoned.answered, Timestamp(100 * SECOND));
        assert_eq!((abandoned.retransmits, abandoned.remote.port), (2, 1));
        assert_eq!(half_opens.pop_overdue(Timestamp(1000 * SECOND)), None);
    }

    #[test]
    fn the_times_of_retransmissions_are_kept_until_an_ack_comes() {
        let mut half_opens = HalfOpens::default();
        for attempts in 1..=12 {
            let mut event = retransmit(1, u64::from(attempts), attempts);
            event.acked = attempts == 2;
            half_opens.retransmitted(&event);
        }
        let resends: Vec<u64> = half_opens.iter().next().unwrap().resends.iter().map(|time| time.0).collect();
        assert_eq!(resends, [1, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_completed_handshake_is_not_abandoned() {
        let mut half_opens = HalfOpens::default();
        half_opens.retransmitted(&retransmit(1, SECOND, 1));
        let event = retransmit(1, 0, 1);
        assert!(half_opens.complete(&event.key()).is_some());
        assert_eq!(half_opens.pop_overdue(Timestamp(1000 * SECOND)), None);
    }

    #[test]
    fn a_reported_answer_time_replaces_a_derived_one() {
        let mut half_opens = HalfOpens::default();
        let first_sent = Timestamp(100 * SECOND + 3);
        let mut answered = |first_sent, attempts| {
            let mut event = retransmit(1, 101 * SECOND + u64::from(attempts), attempts);
            event.first_sent = first_sent;
            half_opens.retransmitted(&event);
            let half_open = half_opens.iter().next().unwrap();
            (half_open.answered, half_open.answered_exactly)
        };
        assert_eq!(answered(None, 1), (Timestamp(100 * SECOND + 1), false));
        assert_eq!(answered(None, 2), (Timestamp(100 * SECOND + 1), false));
        // The reported time replaces the derived time and is kept.
        assert_eq!(answered(Some(first_sent), 3), (first_sent, true));
        assert_eq!(answered(None, 4), (first_sent, true));
    }

    #[test]
    fn stale_deadlines_are_bounded() {
        let mut half_opens = HalfOpens::default();
        let stays = retransmit(60_000, SECOND, 1);
        half_opens.retransmitted(&stays);
        for index in 0..300_000_u32 {
            let event = retransmit(u16::try_from(index % 50_000).unwrap() + 1, SECOND, 1);
            half_opens.retransmitted(&event);
            assert!(half_opens.complete(&event.key()).is_some());
            assert!(half_opens.deadlines.len() <= 2 * MAX_ENTRIES);
        }
        assert_eq!(half_opens.pop_overdue(Timestamp(100 * SECOND)).unwrap().remote, stays.remote);
        assert_eq!(half_opens.pop_overdue(Timestamp(100 * SECOND)), None);
    }

    #[test]
    fn a_syn_flood_does_not_exceed_the_capacity() {
        let mut half_opens = HalfOpens::default();
        let mut refused = 0;
        for index in 0..100_000_u32 {
            let mut event = retransmit(u16::try_from(index % 60_000).unwrap() + 1, SECOND, 1);
            event.netns = Some(Netns(index / 60_000));
            refused += u32::from(half_opens.retransmitted(&event) == Recorded::Full);
        }
        assert_eq!(half_opens.iter().count(), MAX_ENTRIES);
        assert_eq!(refused, 100_000 - 65_536);
    }
}
