//! Runs events through a tracker and keeps what it reports.

use tracer_core::{
    event::{Event, TcpState, Timestamp},
    lifecycle::{
        AfterClose, CloseCause, Connection, DurationSource, Handshake, HandshakeCaveat, Observation, Tracker,
        TrackerOptions,
    },
};
use tracer_core_testing::script::START;

/// A state with its microseconds.
pub(crate) type Span = (TcpState, Option<u64>, DurationSource);

/// A connection that ended, with everything that can be asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) connection: Connection,
    pub(crate) closed: Timestamp,
    pub(crate) close_cause: CloseCause,
    pub(crate) after: Option<AfterClose>,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) duration_ns: Option<u64>,
    pub(crate) states: Vec<Span>,
    /// The sum of the durations of all states, when all are known, nanoseconds.
    pub(crate) total_ns: Option<u64>,
}

impl Ended {
    /// Microseconds from [`START`] to the opening; negative when it is counted back to before.
    pub(crate) fn opened_us(&self) -> Option<i64> {
        self.opened.map(|time| (time.0.cast_signed() - START.cast_signed()) / 1000)
    }

    pub(crate) fn closed_us(&self) -> u64 {
        (self.closed.0 - START) / 1000
    }

    pub(crate) fn duration_us(&self) -> Option<u64> {
        self.duration_ns.map(|duration| duration / 1000)
    }

    pub(crate) fn handshake(&self) -> Handshake {
        self.connection.handshake.expect("the opening was seen")
    }

    /// Duration in microseconds, source, caveat, resends, round-trip time.
    pub(crate) fn handshake_parts(
        &self,
    ) -> (Option<u64>, DurationSource, Option<HandshakeCaveat>, Option<u8>, Option<u32>) {
        let it = self.handshake();
        (it.duration_ns.map(|duration| duration / 1000), it.source, it.caveat, it.retransmits, it.rtt_us)
    }
}

/// A transition as it was reported.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) from: TcpState,
    pub(crate) to: TcpState,
    pub(crate) duration_us: Option<u64>,
    pub(crate) connection: Option<Connection>,
}

/// Everything that was reported, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) steps: Vec<Step>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) evicted: Vec<Connection>,
}

impl Observed {
    /// The only connection that ended.
    pub(crate) fn only(&self) -> &Ended {
        assert_eq!(self.ended.len(), 1, "{:#?}", self.ended);
        &self.ended[0]
    }

    pub(crate) fn durations_us(&self) -> Vec<Option<u64>> {
        self.steps.iter().map(|step| step.duration_us).collect()
    }

    fn keep(&mut self, observation: Observation<'_>) {
        if let Observation::Transition { transition, duration_ns, connection } = observation {
            self.steps.push(Step {
                from: transition.from,
                to: transition.to,
                duration_us: duration_ns.map(|duration| duration / 1000),
                connection: connection.copied(),
            });
        } else if let Observation::Closed(closed) = observation {
            self.ended.push(Ended {
                connection: *closed.connection,
                closed: closed.closed,
                close_cause: closed.close_cause,
                after: closed.after,
                opened: closed.opened(),
                duration_ns: closed.duration_ns(),
                states: closed
                    .states()
                    .map(|span| (span.state, span.duration_ns.map(|duration| duration / 1000), span.source))
                    .collect(),
                total_ns: closed
                    .states()
                    .try_fold(0_u64, |total, span| Some(total.saturating_add(span.duration_ns?))),
            });
        } else if let Observation::Evicted { connection } = observation {
            self.evicted.push(*connection);
        }
    }
}

/// A tracker with room for `max_connections`.
pub(crate) fn tracker(max_connections: usize) -> Tracker {
    Tracker::new(TrackerOptions { max_connections, ..TrackerOptions::default() })
}

/// Feeds `events` to `tracker`.
pub(crate) fn feed<'a>(tracker: &mut Tracker, events: impl IntoIterator<Item = &'a Event>) -> Observed {
    let mut observed = Observed::default();
    for event in events {
        tracker.observe(event, &mut |observation| observed.keep(observation));
    }
    observed
}

/// Feeds `events` to a new tracker.
pub(crate) fn run<'a>(events: impl IntoIterator<Item = &'a Event>) -> Observed {
    feed(&mut tracker(1000), events)
}
