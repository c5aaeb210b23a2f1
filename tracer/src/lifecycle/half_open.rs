//! Handshakes that a listener answered and nobody has completed.
//!
//! The kernel keeps them as request sockets, which have no transitions; what shows is that it sends
//! the SYN-ACK again, at 1, 3, 7, 15 and 31 s after the first (RFC 6298 doubling, 6.18
//! inet_connection_sock.c `reqsk_timer_handler`). One that is not sent again when it is due, and not
//! completed either, is abandoned.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::HashMap;

use crate::event::{AcceptQueue, Endpoint, SynAckRetransmit, Timestamp};

/// The ends of a connection in its network namespace, which no two live connections share.
pub(super) type EndpointPair = (Option<u32>, Endpoint, Endpoint);

/// Most half-open connections followed at once. A flood brings more; those beyond are counted only.
const MAX_FOLLOWED: usize = 65_536;
/// How late a resend may be before the handshake counts as abandoned.
const GRACE_NS: u64 = 2_000_000_000;

/// A handshake that was answered and never completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    /// The listener's end.
    pub local: Endpoint,
    /// The client.
    pub remote: Endpoint,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// When the first SYN-ACK was sent.
    pub answered: Timestamp,
    /// The kernel told when; else it is derived from its schedule of resends.
    pub answered_exactly: bool,
    /// When the SYN-ACK was last sent.
    pub last_sent: Timestamp,
    /// How often it was sent again.
    pub retransmits: u8,
    /// The listener's accept queue at the last resend.
    pub accept_queue: Option<AcceptQueue>,
}

impl HalfOpen {
    /// When the next resend, or the kernel's giving up, is overdue.
    fn deadline(&self) -> Timestamp {
        let interval = 1_000_000_000_u64 << self.retransmits.min(7);
        Timestamp(self.last_sent.0.saturating_add(interval).saturating_add(GRACE_NS))
    }
}

/// The half-open connections that have had a resend.
#[derive(Debug, Default)]
pub(super) struct HalfOpens {
    followed: HashMap<EndpointPair, HalfOpen, foldhash::fast::RandomState>,
    /// Each has the deadline of its last resend here; deadlines that do not hold any more are left until they pass,
    /// or until there are as many of them.
    deadlines: BinaryHeap<Reverse<(Timestamp, EndpointPair)>>,
}

impl HalfOpens {
    /// Takes in a resend. False when there are too many to follow it.
    pub(super) fn resent(&mut self, event: &SynAckRetransmit) -> bool {
        let key = (event.netns, event.local, event.remote);
        let known = self.followed.get(&key).map(|known| (known.answered, known.answered_exactly));
        if known.is_none() && self.followed.len() >= MAX_FOLLOWED {
            return false;
        }
        // The k-th resend comes 2^k - 1 seconds after the first SYN-ACK.
        let elapsed = ((1_u64 << event.attempts.clamp(1, 7)) - 1) * 1_000_000_000;
        let derived = Timestamp(event.time.0.saturating_sub(elapsed));
        let told = event.first_sent.map(|first_sent| (first_sent, true));
        let (answered, answered_exactly) = told.or(known).unwrap_or((derived, false));
        let half_open = HalfOpen {
            local: event.local,
            remote: event.remote,
            netns: event.netns,
            answered,
            answered_exactly,
            last_sent: event.time,
            retransmits: event.attempts.max(1),
            accept_queue: event.accept_queue,
        };
        self.followed.insert(key, half_open);
        if self.deadlines.len() < 2 * MAX_FOLLOWED {
            self.deadlines.push(Reverse((half_open.deadline(), key)));
        } else {
            let current = self.followed.iter().map(|(key, half_open)| Reverse((half_open.deadline(), *key)));
            self.deadlines = current.collect();
        }
        true
    }

    /// The handshake was completed after all.
    pub(super) fn completed(&mut self, key: &EndpointPair) -> Option<HalfOpen> {
        if self.followed.is_empty() { None } else { self.followed.remove(key) }
    }

    /// Takes out one that is overdue at `now`.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Option<HalfOpen> {
        while self.deadlines.peek().is_some_and(|Reverse((deadline, _))| *deadline <= now) {
            let Reverse((deadline, key)) = self.deadlines.pop()?;
            // A later resend has moved the deadline, or the handshake was completed.
            if self.followed.get(&key).is_some_and(|half_open| half_open.deadline() == deadline) {
                return self.followed.remove(&key);
            }
        }
        None
    }

    /// Those that are followed.
    pub(super) fn iter(&self) -> impl Iterator<Item = &HalfOpen> + '_ {
        self.followed.values()
    }

    pub(super) fn len(&self) -> usize {
        self.followed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SocketId;

    const SECOND: u64 = 1_000_000_000;

    fn resend(client: u16, at: u64, attempts: u8) -> SynAckRetransmit {
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
        }
    }

    #[test]
    fn abandoned_when_the_next_resend_does_not_come() {
        let mut half_opens = HalfOpens::default();
        assert!(half_opens.resent(&resend(1, 101 * SECOND, 1)));
        assert!(half_opens.resent(&resend(1, 103 * SECOND, 2)));
        assert_eq!(half_opens.overdue(Timestamp(108 * SECOND)), None);
        let abandoned = half_opens.overdue(Timestamp(109 * SECOND)).unwrap();
        assert_eq!(abandoned.answered, Timestamp(100 * SECOND));
        assert_eq!((abandoned.retransmits, abandoned.remote.port), (2, 1));
        assert_eq!(half_opens.overdue(Timestamp(1000 * SECOND)), None);
    }

    #[test]
    fn completed_is_not_abandoned() {
        let mut half_opens = HalfOpens::default();
        half_opens.resent(&resend(1, SECOND, 1));
        let event = resend(1, 0, 1);
        assert!(half_opens.completed(&(event.netns, event.local, event.remote)).is_some());
        assert_eq!(half_opens.overdue(Timestamp(1000 * SECOND)), None);
    }

    #[test]
    fn when_it_was_answered_stays_exact() {
        let mut half_opens = HalfOpens::default();
        let first_sent = Timestamp(100 * SECOND + 3);
        let mut answered = |first_sent, attempts| {
            let mut event = resend(1, 101 * SECOND + u64::from(attempts), attempts);
            event.first_sent = first_sent;
            half_opens.resent(&event);
            let half_open = half_opens.iter().next().unwrap();
            (half_open.answered, half_open.answered_exactly)
        };
        assert_eq!(answered(None, 1), (Timestamp(100 * SECOND + 1), false));
        assert_eq!(answered(None, 2), (Timestamp(100 * SECOND + 1), false));
        // The kernel's word is better than what was derived, and stays.
        assert_eq!(answered(Some(first_sent), 3), (first_sent, true));
        assert_eq!(answered(None, 4), (first_sent, true));
    }

    #[test]
    fn deadlines_that_do_not_hold_any_more_are_bounded() {
        let mut half_opens = HalfOpens::default();
        let stays = resend(60_000, SECOND, 1);
        half_opens.resent(&stays);
        for index in 0..300_000_u32 {
            let event = resend(u16::try_from(index % 50_000).unwrap() + 1, SECOND, 1);
            half_opens.resent(&event);
            assert!(half_opens.completed(&(event.netns, event.local, event.remote)).is_some());
            assert!(half_opens.deadlines.len() <= 2 * MAX_FOLLOWED);
        }
        assert_eq!(half_opens.overdue(Timestamp(100 * SECOND)).unwrap().remote, stays.remote);
        assert_eq!(half_opens.overdue(Timestamp(100 * SECOND)), None);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut half_opens = HalfOpens::default();
        let mut refused = 0;
        for index in 0..100_000_u32 {
            let mut event = resend(u16::try_from(index % 60_000).unwrap() + 1, SECOND, 1);
            event.netns = Some(index / 60_000);
            refused += u32::from(!half_opens.resent(&event));
        }
        assert_eq!(half_opens.len(), MAX_FOLLOWED);
        assert_eq!(refused, 100_000 - 65_536);
    }
}
