//! The minutes and the handshake groups of the last hour.

use std::{collections::VecDeque, sync::Arc};

use tracer_core::{
    analysis::{HandshakeAttempt, Handshakes, HandshakesBy, HandshakesOptions},
    event::{Nanos, Timestamp},
    lifecycle::Observation,
};

use crate::agent::overview::{facet::Facet, minute::Minute};

/// Minutes that are kept, the current one included.
pub(super) const MINUTES: u64 = 60;
/// Length of a minute.
const MINUTE: Nanos = Nanos::from_secs(60);
/// Minutes that share the handshake groups.
const PERIOD: u64 = 10;
/// Most groups of a period, of each kind.
const MAX_GROUPS: usize = 64;

/// The handshakes of a period by service, remote address and process.
#[derive(Clone, Debug)]
struct Period {
    number: u64,
    groups: [Handshakes; 3],
}

fn analysis(by: HandshakesBy) -> Handshakes {
    Handshakes::new(HandshakesOptions { by, slowest: 0, max_groups: MAX_GROUPS })
}

impl Period {
    fn new(number: u64) -> Self {
        let kinds = [HandshakesBy::Service, HandshakesBy::Remote, HandshakesBy::Process];
        Self { number, groups: kinds.map(analysis) }
    }
}

/// The last hour.
#[derive(Clone, Debug)]
pub(super) struct History {
    minutes: VecDeque<Arc<Minute>>,
    minute: Minute,
    periods: VecDeque<Arc<Period>>,
    period: Period,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            minutes: VecDeque::new(),
            minute: Minute::new(0),
            periods: VecDeque::new(),
            period: Period::new(0),
        }
    }

    /// Counts an observation.
    pub(super) fn observe(&mut self, observation: &Observation<'_>) {
        if let Observation::Transition { transition, connection, .. } = observation {
            self.minute.transition(transition.from, transition.to, *connection);
        }
        if let Some(attempt) = HandshakeAttempt::ended_by(observation) {
            self.minute.handshake(&attempt);
            for groups in &mut self.period.groups {
                groups.add(&attempt, None);
            }
        }
    }

    /// Begins a new minute when the current one has ended, and drops what is older than an hour.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let number = now.0 / MINUTE.0;
        if number <= self.minute.number {
            return;
        }
        // The first batch is counted before its time is known.
        if self.minute.number == 0 {
            (self.minute.number, self.period.number) = (number, number / PERIOD);
            return;
        }
        let ended = std::mem::replace(&mut self.minute, Minute::new(number));
        self.minutes.push_back(Arc::new(ended));
        while self.minutes.front().is_some_and(|oldest| oldest.number + MINUTES <= number) {
            self.minutes.pop_front();
        }
        let period = number / PERIOD;
        if period > self.period.number {
            let ended = std::mem::replace(&mut self.period, Period::new(period));
            self.periods.push_back(Arc::new(ended));
            while self.periods.front().is_some_and(|oldest| oldest.number + MINUTES / PERIOD <= period) {
                self.periods.pop_front();
            }
        }
    }

    /// Iterates over the minutes with counts, the oldest first.
    pub(super) fn minutes(&self) -> impl DoubleEndedIterator<Item = &Minute> {
        self.minutes.iter().map(AsRef::as_ref).chain([&self.minute])
    }

    /// Returns the number of the current minute.
    pub(super) fn current(&self) -> u64 {
        self.minute.number
    }

    /// Returns the time at which a minute begins.
    pub(super) fn start_of(minute: u64) -> Timestamp {
        Timestamp(minute.saturating_mul(MINUTE.0))
    }

    /// Returns the handshakes of the last 50 to 60 minutes, in the groups that the facet can select.
    pub(super) fn groups(&self, facet: Option<Facet>) -> Handshakes {
        let (place, by) = match facet {
            None | Some(Facet::Port(_)) => (0, HandshakesBy::Service),
            Some(Facet::Remote(_)) => (1, HandshakesBy::Remote),
            Some(Facet::Process(_)) => (2, HandshakesBy::Process),
        };
        let mut all = analysis(by);
        for period in self.periods.iter().map(AsRef::as_ref).chain([&self.period]) {
            all.merge(&period.groups[place]);
        }
        all
    }
}
