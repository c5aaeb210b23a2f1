//! Which segments of a handshake were lost, and how long the others took.
//!
//! Only what the evidence of both ends proves is stated; the rest is unknown. All times here are on the client's clock.

use crate::{
    analysis::{
        HandshakeOutcome,
        join::{ClockBounds, HandshakeEnd, UtcTime},
    },
    event::{HandshakeSegment, Nanos},
    lifecycle::CloseReason,
};

const MS: i64 = 1_000_000;

/// A segment that has not arrived after this time, although the answer to a later one has, counts as lost: half of the
/// shortest retransmission timeout (`TCP_TIMEOUT_INIT`, 6.18 tcp.h), nanoseconds.
const LOST_AFTER: i64 = 500 * MS;

/// How much before its time a timer of the kernel may fire: a tick of 100 Hz, nanoseconds.
const TICK: i64 = 10 * MS;

/// A span of time that is known within bounds, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanBounds {
    /// The shortest.
    pub least: i64,
    /// The longest.
    pub most: i64,
}

impl SpanBounds {
    /// Returns the middle of the bounds, at least zero.
    pub fn middle(self) -> Nanos {
        Nanos(u64::try_from(self.least.midpoint(self.most)).unwrap_or(0))
    }

    /// Returns how far the true span may be from the middle.
    pub fn uncertainty(self) -> Nanos {
        Nanos(u64::try_from(self.most.saturating_sub(self.least) / 2).unwrap_or(0))
    }

    fn since(self, earlier: Self) -> Self {
        Self { least: self.least.saturating_sub(earlier.most), most: self.most.saturating_sub(earlier.least) }
    }

    fn at(time: UtcTime) -> Self {
        Self { least: time.0, most: time.0 }
    }
}

/// How many of a handshake's segments were lost. None is unknown.
///
/// A number is what is proven: more may have been lost. A segment counts as lost wherever it was dropped: on either host, or
/// between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeFate {
    /// Lost SYNs.
    pub syns: Option<u32>,
    /// Lost SYN-ACKs.
    pub syn_acks: Option<u32>,
    /// Lost ACKs of the SYN-ACK.
    pub acks: Option<u32>,
}

impl HandshakeFate {
    /// Returns the number of lost segments of this kind.
    pub const fn lost(&self, segment: HandshakeSegment) -> Option<u32> {
        match segment {
            HandshakeSegment::Syn => self.syns,
            HandshakeSegment::SynAck => self.syn_acks,
            HandshakeSegment::Ack => self.acks,
        }
    }

    /// Returns whether a segment was certainly lost.
    pub fn is_loss(&self) -> bool {
        HandshakeSegment::ALL.iter().any(|&segment| self.lost(segment).is_some_and(|count| count > 0))
    }

    /// Derives the fate from both ends. `server_ahead`: how far the server's clock is ahead of the client's.
    pub(super) fn new(
        client: &HandshakeEnd,
        server: Option<&HandshakeEnd>,
        server_ahead: Option<ClockBounds>,
    ) -> Self {
        let timed = match server {
            Some(server) => {
                let case = Case { client, server, server_ahead };
                Self { syns: case.lost_syns(), syn_acks: case.lost_syn_acks(), acks: case.lost_acks() }
            }
            None => Self::default(),
        };
        let dropped = |segment| {
            let ends = [Some(client), server].into_iter().flatten();
            ends.map(|end| end.dropped(segment)).fold(0, u32::saturating_add)
        };
        // A drop is a proof of its own.
        let proven = |timed: Option<u32>, segment| match dropped(segment) {
            0 => timed,
            count => Some(timed.unwrap_or(0).max(count)),
        };
        Self {
            syns: proven(timed.syns, HandshakeSegment::Syn),
            syn_acks: proven(timed.syn_acks, HandshakeSegment::SynAck),
            acks: proven(timed.acks, HandshakeSegment::Ack),
        }
    }
}

impl HandshakeEnd {
    /// Returns how many segments of this kind the host dropped.
    pub fn dropped(&self, segment: HandshakeSegment) -> u32 {
        let drops = self.drops.iter().flat_map(|drops| drops.iter());
        drops.filter(|drop| drop.segment == segment).fold(0, |sum, drop| sum.saturating_add(drop.count))
    }
}

/// How long the segments of a handshake took from one host to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneWayTimes {
    /// The SYN; none after a retransmission, whose time is not known exactly.
    pub syn: Option<SpanBounds>,
    /// The SYN-ACK, if it was not retransmitted before it arrived.
    pub syn_ack: Option<SpanBounds>,
    /// The ACK, if none was lost and the server did not wait for data.
    pub ack: Option<SpanBounds>,
}

impl OneWayTimes {
    pub(super) fn new(
        client: &HandshakeEnd,
        server: &HandshakeEnd,
        server_ahead: Option<ClockBounds>,
        fate: &HandshakeFate,
    ) -> Self {
        let case = Case { client, server, server_ahead };
        let answered = case.answered();
        let established = client.is_established().then_some(SpanBounds::at(client.ended));
        let positive = |span: SpanBounds| SpanBounds { least: span.least.max(0), most: span.most.max(0) };
        Self {
            syn: answered
                .zip(client.began.filter(|_| client.retransmits == Some(0) && !client.deferred))
                .map(|(answered, began)| positive(answered.since(SpanBounds::at(began)))),
            syn_ack: answered
                .zip(established)
                .filter(|_| fate.syn_acks == Some(0))
                .map(|(answered, established)| positive(established.since(answered))),
            ack: established
                .zip(case.on_client(server.ended, server.ended))
                .filter(|_| server.is_established() && !server.deferred && fate.acks == Some(0))
                .map(|(sent, arrived)| positive(arrived.since(sent))),
        }
    }
}

/// Both ends of a handshake.
struct Case<'a> {
    client: &'a HandshakeEnd,
    server: &'a HandshakeEnd,
    server_ahead: Option<ClockBounds>,
}

impl Case<'_> {
    /// Converts a time of the server's clock, known within bounds.
    fn on_client(&self, earliest: UtcTime, latest: UtcTime) -> Option<SpanBounds> {
        let ahead = self.server_ahead?;
        Some(SpanBounds {
            least: earliest.0.saturating_sub(ahead.high),
            most: latest.0.saturating_sub(ahead.low),
        })
    }

    /// Returns when the server sent its first SYN-ACK.
    fn answered(&self) -> Option<SpanBounds> {
        let (earliest, latest) = self.server.answered?;
        self.on_client(earliest, latest)
    }

    /// Returns when the server sent each of its SYN-ACKs; none if some of the times are unknown.
    fn syn_acks(&self) -> Option<Vec<SpanBounds>> {
        let resent = self.server.resent.as_deref()?;
        let resent = resent.iter().map(|&time| self.on_client(time, time));
        std::iter::once(self.answered()).chain(resent).collect()
    }

    /// The SYNs before the one that the server answered first.
    fn lost_syns(&self) -> Option<u32> {
        let Self { client, server, .. } = self;
        match client.retransmits? {
            // The server answered the only one, if only by a reset.
            0 => Some(0),
            count => {
                if server.unserved {
                    return None;
                }
                let answered = self.answered()?;
                let began = client.began?.0;
                let mut sent = vec![began];
                match client.schedule {
                    Some(schedule) if schedule.retransmits == count => {
                        let mut next = began;
                        for wait in schedule.intervals() {
                            next = next.saturating_add(i64::try_from(wait.0).unwrap_or(i64::MAX));
                            sent.push(next);
                        }
                    }
                    _ => return None,
                }
                let before = |time: i64| {
                    sent.iter().take_while(|&&sent| sent.saturating_sub(TICK) <= time).count().checked_sub(1)
                };
                let first = before(answered.least.max(began))?;
                if before(answered.most)? != first {
                    return None;
                }
                // Long timers fire up to an eighth late.
                let arrived = sent.get(first)?;
                let late = arrived.saturating_sub(began) / 8;
                if answered.most.saturating_sub(*arrived) >= LOST_AFTER.saturating_add(late) {
                    return None;
                }
                // The timestamp in the answer is the first SYN's, so that one arrived: late, or another answer was lost.
                if first > 0 && client.is_established() && client.lost != Some(true) {
                    return None;
                }
                u32::try_from(first).ok()
            }
        }
    }

    /// The SYN-ACKs before the one that established the client, or before a client failed that none reached.
    fn lost_syn_acks(&self) -> Option<u32> {
        let Self { client, server, .. } = self;
        if server.unserved {
            return Some(0);
        }
        let ended = client.ended.0;
        let long_before = |sent: &SpanBounds| sent.most.saturating_add(LOST_AFTER) < ended;
        match client.outcome {
            HandshakeOutcome::Established if server.retransmits == Some(0) => Some(0),
            HandshakeOutcome::Established => {
                let sent = self.syn_acks()?;
                let lost = sent.iter().filter(|sent| long_before(sent)).count();
                // One of these arrived.
                let may_have_arrived = |sent: &&SpanBounds| !long_before(sent) && sent.least <= ended;
                sent.iter().find(may_have_arrived)?;
                u32::try_from(lost).ok()
            }
            HandshakeOutcome::Failed(CloseReason::TimedOut | CloseReason::Cancelled)
                if server.outcome == HandshakeOutcome::Abandoned =>
            {
                let lost = match self.syn_acks() {
                    Some(sent) => sent.iter().filter(|sent| long_before(sent)).count(),
                    None => usize::from(long_before(&self.answered()?)),
                };
                u32::try_from(lost).ok().filter(|&lost| lost > 0)
            }
            _ => None,
        }
    }

    /// The ACKs for which the server kept sending SYN-ACKs to a client that was established.
    fn lost_acks(&self) -> Option<u32> {
        let Self { client, server, .. } = self;
        if !client.is_established() {
            // The client has sent none.
            return matches!(client.outcome, HandshakeOutcome::Failed(_)).then_some(0);
        }
        // The server waits for data, or ignores the ACK.
        if server.deferred || server.queue_full {
            return None;
        }
        let ended = client.ended.0;
        let long_after = |sent: &SpanBounds| sent.least > ended.saturating_add(LOST_AFTER);
        let resent = server.resent.as_deref().unwrap_or_default();
        if resent.iter().filter_map(|&time| self.on_client(time, time)).any(|sent| long_after(&sent)) {
            return Some(1);
        }
        let established = self.on_client(server.ended, server.ended).filter(|_| server.is_established())?;
        (established.most < ended.saturating_add(LOST_AFTER)).then_some(0)
    }
}
