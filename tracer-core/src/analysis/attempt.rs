//! One finished handshake attempt.

use crate::{
    analysis::retransmits::{RetransmitSchedule, client_schedule, server_schedule},
    event::{
        CgroupId, Endpoint, InitialSequences, Nanos, Netns, Process, ResetSent, TcpState, ThreadName,
        Timestamp,
    },
    lifecycle::{
        CloseReason, ClosedConnection, Connection, DurationSource, HalfOpen, HandshakeCaveat, Observation,
        Role, SegmentDrops,
    },
};

/// The outcome of a handshake attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeOutcome {
    /// The connection was established.
    Established,
    /// The connection closed before it was established.
    Failed(CloseReason),
    /// This host answered the SYN, and the final ACK did not arrive.
    Abandoned,
}

impl HandshakeOutcome {
    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Failed(reason) => reason.name(),
            Self::Abandoned => "abandoned",
        }
    }
}

/// A finished handshake attempt of a client or at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeAttempt {
    /// When the attempt ended.
    pub ended: Timestamp,
    /// The side that sent the first SYN.
    pub role: Role,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The owning process, if it was known when the attempt ended.
    pub process: Option<Process>,
    /// The thread of the process that made the call, as far as it is known.
    pub thread: Option<ThreadName>,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The cgroup of the socket.
    pub cgroup_id: Option<CgroupId>,
    /// The outcome.
    pub outcome: HandshakeOutcome,
    /// The duration. For a failure this is the time until the close. For an abandoned handshake
    /// it is the time from the first SYN-ACK to the last, a lower bound of the wait.
    pub duration: Option<Nanos>,
    /// How the duration was obtained.
    pub source: DurationSource,
    /// Why the duration is not exact.
    pub caveat: Option<HandshakeCaveat>,
    /// The network round-trip time.
    pub rtt: Option<Nanos>,
    /// Retransmitted SYNs (for a server SYN-ACKs); none when unknown.
    pub retransmits: Option<u8>,
    /// Whether a segment of the handshake was lost; none when unknown.
    pub lost: Option<bool>,
    /// The errno of a failure.
    pub error: Option<u16>,
    /// The segments of the handshake that this host dropped.
    pub drops: SegmentDrops,
    /// Nobody listens on the local port, so this host answered the SYN with a reset.
    pub unserved: bool,
    /// When the socket entered SYN_SENT, or a server's child socket SYN_RECV; none when not seen.
    pub entered: Option<Timestamp>,
    /// The initial sequence numbers; none when unknown, and of a simultaneous open.
    pub sequences: Option<InitialSequences>,
    /// The retransmissions of a server's SYN-ACK; none if none was seen.
    pub half_open: Option<HalfOpen>,
    /// The backend behind the remote address of a client, if this host translated it and the source reports that.
    pub backend: Option<Endpoint>,
}

/// The components of a completed handshake's duration. Time of unknown cause is in neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSplit {
    /// The network round trip.
    pub network: Option<Nanos>,
    /// The wait for the retransmission of a lost SYN or SYN-ACK.
    pub retransmit_wait: Option<Nanos>,
}

impl HandshakeAttempt {
    /// Returns the attempt that `observation` ends; none if it ends none, or if the start of the attempt was
    /// not seen.
    pub fn ended_by(observation: &Observation<'_>) -> Option<Self> {
        match observation {
            Observation::Transition {
                transition,
                connection: Some(connection),
                drops,
                half_open,
                backend,
                ..
            } if transition.to == TcpState::Established && transition.from != TcpState::Established => {
                Self::completed(connection, transition.time).map(|attempt| Self {
                    drops: **drops,
                    sequences: transition.sequences.filter(|_| attempt.role != Role::Simultaneous),
                    half_open: half_open.copied(),
                    backend: *backend,
                    ..attempt
                })
            }
            Observation::Closed(closed) if closed.close_seen && closed.connection.never_established() => {
                Some(Self::failed(closed))
            }
            Observation::Closed(closed) if closed.close_seen && closed.connection.completed_unseen() => {
                Some(Self { backend: closed.backend, ..Self::of(closed.connection, closed.closed) })
            }
            Observation::Abandoned { half_open, drops } => {
                Some(Self { drops: **drops, ..Self::abandoned(half_open) })
            }
            Observation::Refused(reset) => Some(Self::unserved(reset)),
            _ => None,
        }
    }

    fn completed(connection: &Connection, time: Timestamp) -> Option<Self> {
        let handshake = connection.handshake?;
        Some(Self {
            outcome: HandshakeOutcome::Established,
            duration: handshake.duration,
            source: handshake.source,
            caveat: handshake.caveat,
            rtt: handshake.rtt.map(Nanos::from),
            retransmits: handshake.retransmits,
            lost: handshake.lost,
            ..Self::of(connection, time)
        })
    }

    fn failed(closed: &ClosedConnection<'_>) -> Self {
        let connection = closed.connection;
        Self {
            outcome: HandshakeOutcome::Failed(closed.close_cause.reason),
            duration: closed.duration(),
            retransmits: connection.handshake.and_then(|handshake| handshake.retransmits),
            lost: connection.handshake.and_then(|handshake| handshake.lost),
            error: closed.close_cause.error,
            drops: *closed.drops,
            sequences: closed.sequences.filter(|_| connection.role == Role::Client),
            backend: closed.backend,
            ..Self::of(connection, closed.closed)
        }
    }

    /// Returns a completed attempt of a connection, without what only the handshake tells.
    pub(super) fn of(connection: &Connection, ended: Timestamp) -> Self {
        let state = if connection.role == Role::Server { TcpState::SynReceived } else { TcpState::SynSent };
        Self {
            ended,
            role: connection.role,
            local: connection.local,
            remote: connection.remote,
            process: connection.owner.process,
            thread: connection.owner.thread,
            netns: connection.netns,
            cgroup_id: connection.cgroup_id,
            outcome: HandshakeOutcome::Established,
            duration: None,
            source: DurationSource::Observed,
            caveat: None,
            rtt: None,
            retransmits: None,
            lost: None,
            error: None,
            drops: SegmentDrops::NONE,
            unserved: false,
            entered: connection.history.entered(state),
            sequences: None,
            half_open: None,
            backend: None,
        }
    }

    /// Returns the attempt of a client that this host refused.
    fn unserved(reset: &ResetSent) -> Self {
        Self {
            ended: reset.time,
            role: Role::Server,
            local: reset.local,
            remote: reset.remote,
            process: None,
            thread: None,
            netns: reset.netns,
            cgroup_id: None,
            outcome: HandshakeOutcome::Failed(CloseReason::Refused),
            duration: None,
            source: DurationSource::Observed,
            caveat: None,
            rtt: None,
            retransmits: None,
            lost: None,
            error: None,
            drops: SegmentDrops::NONE,
            unserved: true,
            entered: None,
            sequences: None,
            half_open: None,
            backend: None,
        }
    }

    /// Returns the attempt of a client that has not completed its handshake: it was abandoned, or is still half-open.
    pub fn abandoned(half_open: &HalfOpen) -> Self {
        Self {
            ended: half_open.last_sent,
            role: Role::Server,
            local: half_open.local,
            remote: half_open.remote,
            process: None,
            thread: None,
            netns: half_open.netns,
            cgroup_id: None,
            outcome: HandshakeOutcome::Abandoned,
            duration: Some(half_open.last_sent.since(half_open.answered)),
            source: if half_open.answered_exactly {
                DurationSource::Observed
            } else {
                DurationSource::Modelled
            },
            caveat: None,
            rtt: None,
            retransmits: Some(half_open.retransmits),
            // A client that never existed (a spoofed SYN) loses nothing.
            lost: None,
            error: None,
            drops: SegmentDrops::NONE,
            unserved: false,
            entered: None,
            sequences: half_open.sequences,
            half_open: Some(*half_open),
            backend: None,
        }
    }

    /// Returns whether a SYN or a SYN-ACK was retransmitted; none when unknown.
    pub fn was_retransmitted(&self) -> Option<bool> {
        self.retransmits.map(|count| count > 0)
    }

    /// Returns the retransmission schedule, if one of the kernel's schedules explains the duration.
    pub fn schedule(&self) -> Option<RetransmitSchedule> {
        let (retransmits, duration) = (self.retransmits?, self.duration?);
        match self.role {
            Role::Client | Role::Simultaneous => client_schedule(retransmits, duration),
            Role::Server => server_schedule(retransmits, duration),
            Role::Unknown => None,
        }
    }

    /// Splits the duration of a completed handshake into its components.
    ///
    /// A round-trip sample of the kernel is the network component; after a retransmission the rest of the
    /// duration is the wait. Without a sample the retransmission schedule gives the wait. For a client the
    /// rest is then the network component; for a server the rest may include time of the client.
    pub fn split(&self) -> TimeSplit {
        let (HandshakeOutcome::Established, Some(duration)) = (self.outcome, self.duration) else {
            return TimeSplit::default();
        };
        let lost = self.lost;
        match self.rtt.map(|rtt| rtt.min(duration)) {
            Some(network) if lost == Some(true) => {
                TimeSplit { network: Some(network), retransmit_wait: Some(duration.saturating_sub(network)) }
            }
            Some(network) => TimeSplit { network: Some(network), retransmit_wait: lost.map(|_| Nanos::ZERO) },
            None => {
                let retransmit_wait = match lost {
                    Some(true) => self.schedule().map(RetransmitSchedule::wait),
                    Some(false) => Some(Nanos::ZERO),
                    None => None,
                };
                let client = matches!(self.role, Role::Client | Role::Simultaneous);
                let network = retransmit_wait
                    .filter(|&wait| client && wait > Nanos::ZERO)
                    .map(|wait| duration.saturating_sub(wait));
                TimeSplit { network, retransmit_wait }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(
        role: Role,
        duration_ms: u64,
        rtt_ms: Option<u64>,
        retransmits: Option<u8>,
    ) -> HandshakeAttempt {
        let endpoint = |port| Endpoint { address: "192.0.2.1".parse().unwrap(), port };
        HandshakeAttempt {
            ended: Timestamp(0),
            role,
            local: endpoint(1),
            remote: endpoint(2),
            process: None,
            thread: None,
            netns: None,
            cgroup_id: None,
            outcome: HandshakeOutcome::Established,
            duration: Some(Nanos::from_millis(duration_ms)),
            source: DurationSource::Observed,
            caveat: None,
            rtt: rtt_ms.map(Nanos::from_millis),
            retransmits,
            lost: retransmits.map(|count| count > 0),
            error: None,
            drops: SegmentDrops::NONE,
            unserved: false,
            entered: None,
            sequences: None,
            half_open: None,
            backend: None,
        }
    }

    fn split(attempt: &HandshakeAttempt) -> (Option<u64>, Option<u64>) {
        let split = attempt.split();
        (split.network.map(Nanos::as_millis), split.retransmit_wait.map(Nanos::as_millis))
    }

    #[test]
    fn the_round_trip_and_the_wait_add_up_to_the_duration() {
        assert_eq!(split(&attempt(Role::Client, 223, Some(220), Some(0))), (Some(220), Some(0)));
        assert_eq!(split(&attempt(Role::Client, 3_020, Some(20), Some(2))), (Some(20), Some(3_000)));
        assert_eq!(split(&attempt(Role::Client, 3_020, None, Some(2))), (Some(20), Some(3_000)));
        assert_eq!(split(&attempt(Role::Client, 1_200, Some(1_200), Some(1))), (Some(1_200), Some(0)));
        assert_eq!(split(&attempt(Role::Client, 20, Some(25), Some(0))), (Some(20), Some(0)));
    }

    #[test]
    fn unknown_components_are_absent() {
        assert_eq!(split(&attempt(Role::Client, 300, None, None)), (None, None));
        assert_eq!(split(&attempt(Role::Client, 300, None, Some(0))), (None, Some(0)));
        assert_eq!(split(&attempt(Role::Client, 300, None, Some(2))), (None, None));
        assert_eq!(split(&attempt(Role::Server, 1_030, None, Some(1))), (None, Some(1_000)));
        let failed = HandshakeAttempt {
            outcome: HandshakeOutcome::Abandoned,
            ..attempt(Role::Server, 3_000, None, Some(2))
        };
        assert_eq!(split(&failed), (None, None));
    }
}
