//! The handshakes and closes of a period, by group.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::{
    analysis::{GroupKey, HandshakeAttempt, HandshakeOutcome, HandshakesBy},
    event::{Nanos, Timestamp},
    lifecycle::{CloseReason, ClosedConnection},
};

/// Most groups of a period; handshakes and closes of further groups share [`GroupKey::Other`].
pub const MAX_COMPARED_GROUPS: usize = 10_000;
/// Most groups that begin with a SYN to a port on which nobody listens: a port scan must not take the places of services.
const MAX_UNSERVED: usize = 1_000;
/// Most handshakes and closes of a period, each. They take 24 and 16 bytes.
pub const MAX_COMPARED_SAMPLES: usize = 2_000_000;

/// The handshakes and closes of a period.
#[derive(Clone, Debug)]
pub struct ComparePeriod {
    by: HandshakesBy,
    pub(super) groups: HashMap<GroupKey, GroupSamples, foldhash::fast::FixedState>,
    handshakes: usize,
    closes: usize,
    unserved: usize,
    beyond_limit: u64,
}

/// The handshakes and closes of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupSamples {
    pub(super) handshakes: Vec<HandshakeSample>,
    pub(super) closes: Vec<CloseSample>,
}

/// A handshake that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandshakeSample {
    pub(super) ended: Timestamp,
    /// The duration of a completed handshake; [`UNKNOWN`](Self::UNKNOWN) if it failed, or if unknown.
    duration: Nanos,
    pub(super) completed: bool,
    /// A completed handshake retransmitted a SYN or a SYN-ACK; none if it failed, or if unknown.
    pub(super) retransmitted: Option<bool>,
}

impl HandshakeSample {
    const UNKNOWN: Nanos = Nanos(u64::MAX);

    /// Returns the duration of a completed handshake; none if unknown.
    pub(super) fn duration(&self) -> Option<Nanos> {
        (self.duration != Self::UNKNOWN).then_some(self.duration)
    }
}

/// The close of a connection that was established.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloseSample {
    pub(super) closed: Timestamp,
    pub(super) reason: CloseReason,
    /// This host retransmitted data; none when unknown.
    pub(super) retransmitted: Option<bool>,
}

const _: () = assert!(size_of::<HandshakeSample>() == 24 && size_of::<CloseSample>() == 16);

impl ComparePeriod {
    /// Creates a period without handshakes.
    pub fn new(by: HandshakesBy) -> Self {
        Self {
            by,
            // A fixed seed makes runs deterministic. The report sorts the groups.
            groups: HashMap::with_hasher(foldhash::fast::FixedState::with_seed(0x636d)),
            handshakes: 0,
            closes: 0,
            unserved: 0,
            beyond_limit: 0,
        }
    }

    /// Returns the attribute that the groups share.
    pub fn by(&self) -> HandshakesBy {
        self.by
    }

    /// Returns the number of handshakes.
    pub fn handshakes(&self) -> u64 {
        self.handshakes as u64
    }

    /// Returns the number of closed connections that had been established.
    pub fn closes(&self) -> u64 {
        self.closes as u64
    }

    /// Returns the number of handshakes and closes beyond [`MAX_COMPARED_SAMPLES`].
    pub fn beyond_limit(&self) -> u64 {
        self.beyond_limit
    }

    /// Adds a handshake that ended. `owner` is as in [`Handshakes::add`](crate::analysis::Handshakes::add).
    pub fn add_handshake(&mut self, attempt: &HandshakeAttempt, owner: Option<Arc<str>>) {
        if self.handshakes >= MAX_COMPARED_SAMPLES {
            self.beyond_limit += 1;
            return;
        }
        self.handshakes += 1;
        let completed = attempt.outcome == HandshakeOutcome::Established;
        let sample = HandshakeSample {
            ended: attempt.ended,
            duration: attempt.duration.filter(|_| completed).unwrap_or(HandshakeSample::UNKNOWN),
            completed,
            retransmitted: attempt.was_retransmitted().filter(|_| completed),
        };
        self.group(GroupKey::of(attempt, self.by, owner), attempt.unserved).handshakes.push(sample);
    }

    /// Adds a closed connection. One that was never established is ignored, because it counts as a handshake, and so is one
    /// whose close was not seen.
    pub fn add_close(&mut self, closed: &ClosedConnection<'_>, owner: Option<Arc<str>>) {
        if !closed.close_seen || closed.connection.never_established() {
            return;
        }
        if self.closes >= MAX_COMPARED_SAMPLES {
            self.beyond_limit += 1;
            return;
        }
        self.closes += 1;
        let sample = CloseSample {
            closed: closed.closed,
            reason: closed.close_cause.reason,
            retransmitted: closed.info.map(|info| info.retransmits > 0),
        };
        self.group(GroupKey::of_closed(closed, self.by, owner), false).closes.push(sample);
    }

    fn group(&mut self, key: GroupKey, unserved: bool) -> &mut GroupSamples {
        let full = self.groups.len() >= MAX_COMPARED_GROUPS || (unserved && self.unserved >= MAX_UNSERVED);
        let known = self.groups.contains_key(&key);
        self.unserved += usize::from(unserved && !known && !full);
        self.groups.entry(if full && !known { GroupKey::Other } else { key }).or_default()
    }
}
