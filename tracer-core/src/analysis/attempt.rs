//! One handshake that is over, completed or not.

use crate::{
    analysis::resends::{ResendSchedule, client_schedule, server_schedule},
    event::{Endpoint, Process, TcpState, Timestamp},
    lifecycle::{
        CloseReason, ClosedConnection, Connection, DurationSource, HalfOpen, HandshakeCaveat, Observation,
        Role,
    },
};

/// How an opening ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeOutcome {
    /// The connection was established.
    Established,
    /// It ended before it was established.
    Failed(CloseReason),
    /// This host answered a SYN, and the final ACK did not come.
    Abandoned,
}

impl HandshakeOutcome {
    /// The name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Failed(reason) => reason.name(),
            Self::Abandoned => "abandoned",
        }
    }
}

/// An opening that is over, as the application or the listener had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeAttempt {
    /// When it was over.
    pub ended: Timestamp,
    /// Which side sent the first SYN.
    pub role: Role,
    /// The local end.
    pub local: Endpoint,
    /// The remote end.
    pub remote: Endpoint,
    /// The process, as far as it was known then.
    pub process: Option<Process>,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// Id of the cgroup.
    pub cgroup_id: Option<u64>,
    /// How it ended.
    pub outcome: HandshakeOutcome,
    /// How long it took, nanoseconds: of a completed handshake its duration, of a failure the time until it failed,
    /// of an abandoned one the time from the first SYN-ACK to the last, which is less than what was waited.
    pub duration_ns: Option<u64>,
    /// How the duration was obtained.
    pub source: DurationSource,
    /// Why the duration is less than exact.
    pub caveat: Option<HandshakeCaveat>,
    /// The network's round trip, nanoseconds.
    pub rtt_ns: Option<u64>,
    /// SYNs, of a server SYN-ACKs, that were sent again.
    pub retransmits: Option<u8>,
    /// The errno of a failure.
    pub error: Option<u16>,
}

/// Where the time of a completed handshake went, nanoseconds; what is not known is in neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSplit {
    /// The round trip.
    pub network: Option<u64>,
    /// Waiting until a lost SYN or SYN-ACK was sent again.
    pub resends: Option<u64>,
}

impl HandshakeAttempt {
    /// The opening that an observation ends; none when it ends none, or one whose beginning was not seen.
    pub fn ended_by(observation: &Observation<'_>) -> Option<Self> {
        match observation {
            Observation::Transition { transition, connection: Some(connection), .. }
                if transition.to == TcpState::Established && transition.from != TcpState::Established =>
            {
                Self::completed(connection, transition.time)
            }
            Observation::Closed(closed) if closed.connection.never_established() => {
                Some(Self::failed(closed))
            }
            Observation::Abandoned(half_open) => Some(Self::abandoned(half_open)),
            _ => None,
        }
    }

    fn completed(connection: &Connection, time: Timestamp) -> Option<Self> {
        let handshake = connection.handshake?;
        Some(Self {
            outcome: HandshakeOutcome::Established,
            duration_ns: handshake.duration_ns,
            source: handshake.source,
            caveat: handshake.caveat,
            rtt_ns: handshake.rtt_us.map(|us| u64::from(us) * 1000),
            retransmits: handshake.retransmits,
            ..Self::of(connection, time)
        })
    }

    fn failed(closed: &ClosedConnection<'_>) -> Self {
        let connection = closed.connection;
        Self {
            outcome: HandshakeOutcome::Failed(closed.close_cause.reason),
            duration_ns: closed.duration_ns(),
            retransmits: connection.handshake.and_then(|handshake| handshake.retransmits),
            error: closed.close_cause.error,
            ..Self::of(connection, closed.closed)
        }
    }

    fn of(connection: &Connection, ended: Timestamp) -> Self {
        Self {
            ended,
            role: connection.role,
            local: connection.local,
            remote: connection.remote,
            process: connection.owner.process,
            netns: connection.netns,
            cgroup_id: connection.cgroup_id,
            outcome: HandshakeOutcome::Established,
            duration_ns: None,
            source: DurationSource::Observed,
            caveat: None,
            rtt_ns: None,
            retransmits: None,
            error: None,
        }
    }

    fn abandoned(half_open: &HalfOpen) -> Self {
        Self {
            ended: half_open.last_sent,
            role: Role::Server,
            local: half_open.local,
            remote: half_open.remote,
            process: None,
            netns: half_open.netns,
            cgroup_id: None,
            outcome: HandshakeOutcome::Abandoned,
            duration_ns: Some(half_open.last_sent.since(half_open.answered)),
            source: if half_open.answered_exactly {
                DurationSource::Observed
            } else {
                DurationSource::Modelled
            },
            caveat: None,
            rtt_ns: None,
            retransmits: Some(half_open.retransmits),
            error: None,
        }
    }

    /// Whether a SYN or a SYN-ACK was sent again; none when the kernel did not say.
    pub fn lost_a_syn(&self) -> Option<bool> {
        self.retransmits.map(|count| count > 0)
    }

    /// The waits before the resends, where the kernel's schedules explain the duration.
    pub fn schedule(&self) -> Option<ResendSchedule> {
        let (resends, duration) = (self.retransmits?, self.duration_ns?);
        match self.role {
            Role::Client | Role::Simultaneous => client_schedule(resends, duration),
            Role::Server => server_schedule(resends, duration),
            Role::Unknown => None,
        }
    }

    /// Where the time of a completed handshake went.
    ///
    /// What is known best comes first: a round trip that the kernel sampled is the network's part, and what is
    /// beyond it, after a resend, was waiting. Without a sample the schedule of resends gives the wait; for a
    /// client the rest is the network's, for a server's it may have been the client's.
    pub fn split(&self) -> TimeSplit {
        let (HandshakeOutcome::Established, Some(duration)) = (self.outcome, self.duration_ns) else {
            return TimeSplit::default();
        };
        let lost = self.lost_a_syn();
        match self.rtt_ns.map(|rtt| rtt.min(duration)) {
            Some(network) if lost == Some(true) => {
                TimeSplit { network: Some(network), resends: Some(duration - network) }
            }
            Some(network) => TimeSplit { network: Some(network), resends: lost.map(|_| 0) },
            None => {
                let resends = match lost {
                    Some(true) => self.schedule().map(ResendSchedule::wait_ns),
                    Some(false) => Some(0),
                    None => None,
                };
                let client = matches!(self.role, Role::Client | Role::Simultaneous);
                let network =
                    resends.filter(|&wait| client && wait > 0).map(|wait| duration.saturating_sub(wait));
                TimeSplit { network, resends }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn opening(
        role: Role,
        duration_ms: u64,
        rtt_ms: Option<u64>,
        retransmits: Option<u8>,
    ) -> HandshakeAttempt {
        let end = |port| Endpoint { address: "192.0.2.1".parse().unwrap(), port };
        HandshakeAttempt {
            ended: Timestamp(0),
            role,
            local: end(1),
            remote: end(2),
            process: None,
            netns: None,
            cgroup_id: None,
            outcome: HandshakeOutcome::Established,
            duration_ns: Some(duration_ms * MS),
            source: DurationSource::Observed,
            caveat: None,
            rtt_ns: rtt_ms.map(|ms| ms * MS),
            retransmits,
            error: None,
        }
    }

    fn split(opening: HandshakeAttempt) -> (Option<u64>, Option<u64>) {
        let split = opening.split();
        (split.network.map(|ns| ns / MS), split.resends.map(|ns| ns / MS))
    }

    #[test]
    fn the_round_trip_and_the_waits_fill_the_time() {
        assert_eq!(split(opening(Role::Client, 223, Some(220), Some(0))), (Some(220), Some(0)));
        assert_eq!(split(opening(Role::Client, 3_020, Some(20), Some(2))), (Some(20), Some(3_000)));
        assert_eq!(split(opening(Role::Client, 3_020, None, Some(2))), (Some(20), Some(3_000)));
        assert_eq!(split(opening(Role::Client, 1_200, Some(1_200), Some(1))), (Some(1_200), Some(0)));
        assert_eq!(split(opening(Role::Client, 20, Some(25), Some(0))), (Some(20), Some(0)));
    }

    #[test]
    fn what_is_not_known_is_in_neither() {
        assert_eq!(split(opening(Role::Client, 300, None, None)), (None, None));
        assert_eq!(split(opening(Role::Client, 300, None, Some(0))), (None, Some(0)));
        assert_eq!(split(opening(Role::Client, 300, None, Some(2))), (None, None));
        assert_eq!(split(opening(Role::Server, 1_030, None, Some(1))), (None, Some(1_000)));
        let failed = HandshakeAttempt {
            outcome: HandshakeOutcome::Abandoned,
            ..opening(Role::Server, 3_000, None, Some(2))
        };
        assert_eq!(split(failed), (None, None));
    }
}
