//! Runs events through a tracker and collects its observations.

use tracer_core::{
    event::{Event, Nanos, TcpInfo, TcpState, Timestamp},
    lifecycle::{
        AfterClose, CloseCause, Connection, DurationSource, Handshake, HandshakeCaveat, Observation, Tracker,
        TrackerOptions,
    },
};
use tracer_core_testing::script::START;

/// A state, its duration in microseconds, and the source of the duration.
pub(crate) type Span = (TcpState, Option<u64>, DurationSource);

/// A closed connection with the values of all its methods.
#[derive(Clone, Debug)]
pub(crate) struct ClosedRecord {
    pub(crate) connection: Connection,
    pub(crate) closed: Timestamp,
    pub(crate) close_cause: CloseCause,
    pub(crate) after: Option<AfterClose>,
    pub(crate) info: Option<TcpInfo>,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) duration: Option<Nanos>,
    pub(crate) states: Vec<Span>,
    /// The sum of the durations of all states; none if one is unknown.
    pub(crate) total: Option<Nanos>,
}

impl ClosedRecord {
    /// Returns the microseconds from [`START`] to the start of the connection; negative if it was earlier.
    pub(crate) fn opened_us(&self) -> Option<i64> {
        self.opened.map(|time| (time.0.cast_signed() - START.cast_signed()) / 1000)
    }

    pub(crate) fn closed_us(&self) -> u64 {
        (self.closed.0 - START) / 1000
    }

    pub(crate) fn duration_us(&self) -> Option<u64> {
        self.duration.map(Nanos::as_micros)
    }

    pub(crate) fn handshake(&self) -> Handshake {
        self.connection.handshake.expect("the handshake was seen")
    }

    /// Returns duration in microseconds, source, caveat, retransmissions and round-trip time.
    pub(crate) fn handshake_parts(
        &self,
    ) -> (Option<u64>, DurationSource, Option<HandshakeCaveat>, Option<u8>, Option<u32>) {
        let it = self.handshake();
        (it.duration.map(Nanos::as_micros), it.source, it.caveat, it.retransmits, it.rtt.map(|rtt| rtt.0))
    }
}

/// A reported transition.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) from: TcpState,
    pub(crate) to: TcpState,
    pub(crate) duration_us: Option<u64>,
    pub(crate) connection: Option<Connection>,
}

/// The collected observations by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) steps: Vec<Step>,
    pub(crate) closed: Vec<ClosedRecord>,
    pub(crate) evicted: Vec<Connection>,
    pub(crate) abandoned: usize,
}

impl Observed {
    /// Returns the only closed connection.
    pub(crate) fn only_closed(&self) -> &ClosedRecord {
        assert_eq!(self.closed.len(), 1, "{:#?}", self.closed);
        &self.closed[0]
    }

    pub(crate) fn durations_us(&self) -> Vec<Option<u64>> {
        self.steps.iter().map(|step| step.duration_us).collect()
    }

    fn collect(&mut self, observation: Observation<'_>) {
        if let Observation::Transition { transition, duration, connection, .. } = observation {
            self.steps.push(Step {
                from: transition.from,
                to: transition.to,
                duration_us: duration.map(Nanos::as_micros),
                connection: connection.copied(),
            });
        } else if let Observation::Closed(closed) = observation {
            self.closed.push(ClosedRecord {
                connection: *closed.connection,
                closed: closed.closed,
                close_cause: closed.close_cause,
                after: closed.after,
                info: closed.info.copied(),
                opened: closed.opened(),
                duration: closed.duration(),
                states: closed
                    .states()
                    .map(|span| (span.state, span.duration.map(Nanos::as_micros), span.source))
                    .collect(),
                total: closed
                    .states()
                    .try_fold(Nanos::ZERO, |total, span| Some(total.saturating_add(span.duration?))),
            });
        } else if let Observation::Evicted { connection } = observation {
            self.evicted.push(*connection);
        } else if let Observation::Abandoned { .. } = observation {
            self.abandoned += 1;
        }
    }
}

/// Creates a tracker with a capacity of `max_connections`.
pub(crate) fn tracker(max_connections: usize) -> Tracker {
    Tracker::new(TrackerOptions { max_connections, ..TrackerOptions::default() })
}

/// Processes `events` with `tracker`.
pub(crate) fn track<'a>(tracker: &mut Tracker, events: impl IntoIterator<Item = &'a Event>) -> Observed {
    let mut observed = Observed::default();
    for event in events {
        tracker.observe(event, &mut |observation| observed.collect(observation));
    }
    observed
}

/// Processes `events` with a new tracker.
pub(crate) fn run<'a>(events: impl IntoIterator<Item = &'a Event>) -> Observed {
    track(&mut tracker(1000), events)
}
