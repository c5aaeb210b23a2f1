//! One end of a handshake, on the wall clock of its host.

use crate::{
    analysis::{HandshakeAttempt, HandshakeOutcome, RetransmitSchedule},
    event::{ClockOffset, Endpoint, InitialSequences, Nanos, Netns, Process, Timestamp},
    lifecycle::{DurationSource, HandshakeCaveat, ObservedDrops, Role, SegmentDrops},
};

/// Two clocks are compared between the years 1824 and 2115, so that no difference overflows.
const LIMIT: i64 = i64::MAX / 2;

/// The kernel's sample and its time of the first SYN-ACK are whole microseconds, nanoseconds.
const GRAIN: i64 = 1_000;

/// A time on the wall clock of a host, nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(pub(super) i64);

impl UtcTime {
    /// Converts a monotonic time. A time far outside of the present, which only a damaged recording has, is moved to the end
    /// of the range.
    pub fn new(time: Timestamp, clock: ClockOffset) -> Self {
        let limit = i128::from(LIMIT);
        let utc = i128::from(time.0).saturating_add(clock.to_utc_ns).clamp(-limit, limit);
        Self(i64::try_from(utc).unwrap_or(LIMIT))
    }

    /// Returns the nanoseconds since 1970-01-01T00:00:00Z.
    pub const fn nanoseconds(self) -> i64 {
        self.0
    }
}

/// One end of a handshake that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct HandshakeEnd {
    /// [`Role::Client`] or [`Role::Server`].
    pub role: Role,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The owning process, if it was known when the handshake ended.
    pub process: Option<Process>,
    /// The outcome on this host.
    pub outcome: HandshakeOutcome,
    /// The duration on this host: see [`HandshakeAttempt::duration`].
    pub duration: Option<Nanos>,
    /// Retransmitted SYNs (for a server SYN-ACKs); none when unknown.
    pub retransmits: Option<u8>,
    /// The segments of the handshake that this host dropped.
    pub drops: Option<Box<SegmentDrops>>,
    /// Which drops the recording observes.
    pub observed_drops: ObservedDrops,
    /// When it ended; for an abandoned handshake, when the last SYN-ACK was sent.
    pub ended: UtcTime,
    /// The initial sequence numbers.
    pub sequences: Option<InitialSequences>,
    /// Nobody listens on the local port, so this host answered the SYN with a reset.
    pub unserved: bool,
    /// It passes the filters of the report.
    pub shown: bool,
    /// A client's SYN left at its first write (Fast Open), or a server waited for the client's data
    /// (`TCP_DEFER_ACCEPT`).
    pub deferred: bool,
    /// The server's accept queue was full when it last sent its SYN-ACK again.
    pub queue_full: bool,
    /// A client's SYN_SENT.
    pub(super) began: Option<UtcTime>,
    /// The earliest and the latest time at which a server sent its first SYN-ACK.
    pub(super) answered: Option<(UtcTime, UtcTime)>,
    /// When a server sent its SYN-ACK again before the client's ACK came; none if some of the times are unknown.
    pub(super) resent: Option<Box<[UtcTime]>>,
    /// The schedule of a client's retransmissions.
    pub(super) schedule: Option<RetransmitSchedule>,
    /// Whether a segment was lost, as far as this end can tell.
    pub(super) lost: Option<bool>,
}

impl HandshakeEnd {
    /// Returns the end of an attempt; none if the role is unknown, or if both ends opened the connection.
    pub fn new(attempt: &HandshakeAttempt, clock: ClockOffset) -> Option<Self> {
        if !matches!(attempt.role, Role::Client | Role::Server) {
            return None;
        }
        let wall = |time| UtcTime::new(time, clock);
        let half_open = attempt.half_open.as_ref();
        let is_client = attempt.role == Role::Client;
        Some(Self {
            role: attempt.role,
            local: attempt.local,
            remote: attempt.remote,
            netns: attempt.netns,
            process: attempt.process,
            outcome: attempt.outcome,
            duration: attempt.duration,
            retransmits: attempt.retransmits,
            drops: (!attempt.drops.is_empty()).then(|| Box::new(attempt.drops)),
            observed_drops: attempt.drops.observed,
            ended: wall(attempt.ended),
            sequences: attempt.sequences,
            unserved: attempt.unserved,
            shown: true,
            began: attempt.entered.filter(|_| is_client).map(wall),
            answered: if is_client { None } else { answered(attempt, clock) },
            resent: resent(attempt, clock),
            schedule: attempt.schedule(),
            lost: attempt.lost,
            deferred: match attempt.caveat {
                Some(HandshakeCaveat::FastOpenDeferred | HandshakeCaveat::FirstData) => true,
                _ => half_open.is_some_and(|half_open| half_open.acked_retransmits > 0),
            },
            queue_full: half_open
                .and_then(|half_open| half_open.accept_queue)
                .is_some_and(|queue| queue.length > queue.limit),
        })
    }

    /// Returns the client's and the server's initial sequence number.
    pub(super) fn numbers(&self) -> Option<(Option<u32>, Option<u32>)> {
        let InitialSequences { local, remote } = self.sequences?;
        Some(if self.role == Role::Client { (Some(local), remote) } else { (remote, Some(local)) })
    }

    pub(super) fn is_established(&self) -> bool {
        self.outcome == HandshakeOutcome::Established
    }
}

/// Returns the earliest and the latest time at which a server sent its first SYN-ACK.
///
/// The kernel's sample ends between the creation of the child socket and its ESTABLISHED (`tcp_synack_rtt_meas` in
/// `tcp_rcv_state_process`, 6.18 tcp_input.c), and both are events. A sample of whole milliseconds may be from a SYN cookie's
/// timestamp, which is not exact.
fn answered(attempt: &HandshakeAttempt, clock: ClockOffset) -> Option<(UtcTime, UtcTime)> {
    if let Some(half_open) = attempt.half_open.filter(|half_open| half_open.answered_exactly) {
        let UtcTime(sent) = UtcTime::new(half_open.answered, clock);
        return Some((UtcTime(sent), UtcTime(sent + GRAIN)));
    }
    let sample = attempt.duration?;
    let is_sample = attempt.source == DurationSource::Measured
        && attempt.retransmits == Some(0)
        && attempt.outcome == HandshakeOutcome::Established
        && sample.0 % 1_000_000 != 0;
    if !is_sample {
        return None;
    }
    let UtcTime(earliest) = UtcTime::new(attempt.entered?.saturating_sub(sample), clock);
    let UtcTime(latest) = UtcTime::new(attempt.ended.saturating_sub(sample), clock);
    Some((UtcTime(earliest - GRAIN), UtcTime(latest + GRAIN)))
}

/// Returns when a server sent its SYN-ACK again; none if some of the times are unknown.
fn resent(attempt: &HandshakeAttempt, clock: ClockOffset) -> Option<Box<[UtcTime]>> {
    if attempt.role == Role::Client {
        return None;
    }
    let Some(half_open) = &attempt.half_open else {
        return (attempt.retransmits == Some(0)).then(Box::default);
    };
    let times: Box<[UtcTime]> = half_open.resends.iter().map(|time| UtcTime::new(time, clock)).collect();
    let seen = times.len() + usize::from(half_open.acked_retransmits);
    let all = attempt.retransmits.unwrap_or(0).max(half_open.retransmits);
    (seen == usize::from(all)).then_some(times)
}
