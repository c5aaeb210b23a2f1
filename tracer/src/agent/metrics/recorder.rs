//! Counts events and observations on the tracing thread.

use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{Event, Nanos, SourceCounts, TcpState, Timestamp, Transition},
    lifecycle::{
        AcceptWait, ClosedConnection, Connection, HandshakeCaveat, Observation, Thresholds, Tracker,
    },
};

use crate::{
    agent::metrics::{
        LabelLimits, LabelSources, MetricsSnapshot,
        gauge_scan::GaugeScan,
        histogram::{HANDSHAKE_BOUNDS, Histogram, LIFETIME_BOUNDS},
        label_sources::LabelInputs,
        names::{EVENT_TYPES, OutcomeLabel, role_index},
        owners::Owners,
        queues::ArrivalQueues,
        totals::{ByReason, Totals},
    },
    sources::Coverage,
};

/// Options of a [`Recorder`].
#[derive(Debug, Default)]
pub struct RecorderOptions {
    /// When a connection counts as stuck.
    pub thresholds: Thresholds,
    /// Limits of the opt-in labels.
    pub limits: LabelLimits,
    /// The opt-in labels.
    pub labels: LabelSources,
}

/// Counts the events of a source and the observations of the core.
#[derive(Debug)]
pub struct Recorder {
    thresholds: Thresholds,
    expiry: Nanos,
    totals: Box<Totals>,
    owners: Owners,
    queues: ArrivalQueues,
    gauge_scan: GaugeScan,
}

impl Recorder {
    /// Creates a recorder with all counts at 0.
    pub fn new(options: RecorderOptions) -> Self {
        let lifetime = || Histogram::new(&LIFETIME_BOUNDS);
        Self {
            thresholds: options.thresholds,
            expiry: options.limits.expiry,
            totals: Box::new(Totals {
                transitions: [[0; 12]; 12],
                state_durations: std::array::from_fn(|_| lifetime()),
                rtts: std::array::from_fn(|_| Histogram::new(&HANDSHAKE_BOUNDS)),
                connection_durations: std::array::from_fn(|_| lifetime()),
                events: [0; EVENT_TYPES.len()],
                accept_waits: std::array::from_fn(|_| Histogram::new(&HANDSHAKE_BOUNDS)),
                inbound_refused: ByReason::default(),
                segment_drops: ByReason::default(),
            }),
            owners: Owners::new(options.labels, options.limits),
            queues: ArrivalQueues::default(),
            gauge_scan: GaugeScan::default(),
        }
    }

    /// Counts an event.
    pub fn event(&mut self, event: &Event) {
        let place = match event {
            Event::Transition(transition) => {
                if let Some(queue) = transition.accept_queue {
                    self.queues.see(transition.netns, transition.local.port, queue, transition.time);
                }
                0
            }
            Event::Existing(_) | Event::ExistingTimewait(_) => 1,
            Event::SynAckRetransmit(resent) => {
                if let Some(queue) = resent.accept_queue {
                    self.queues.see(resent.netns, resent.local.port, queue, resent.time);
                }
                2
            }
            Event::FirstRead(_) => 3,
            Event::TimewaitEnd(_) => 4,
            Event::Accepted(_) => 5,
            Event::ResetSent(_) => 6,
            Event::ResetReceived(_) => 7,
            Event::SegmentDropped(_) => 8,
            Event::FirstWrite(_) => 9,
            Event::DumpScope { .. } | Event::DumpEnd { .. } | Event::Translated(_) | Event::Time(_) => return,
        };
        self.totals.events[place] += 1;
    }

    /// Counts an observation.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Transition { transition, duration, connection, .. } => {
                self.transition(transition, *duration, *connection);
            }
            Observation::Closed(closed) => self.closed(closed),
            Observation::TimewaitEnd { end, .. } => self.state(end.state, end.duration),
            Observation::Accepted { wait, .. } => {
                let place = match wait {
                    AcceptWait::Observed(_) => 0,
                    AcceptWait::AtMost(_) => 1,
                };
                self.totals.accept_waits[place].observe(wait.duration());
            }
            Observation::Refused(reset) => self.totals.inbound_refused.count((), reset.reason),
            Observation::SegmentDropped(dropped) => {
                self.totals.segment_drops.count(dropped.segment, Some(dropped.reason));
            }
            Observation::Abandoned { .. } | Observation::Evicted { .. } => {}
        }
        // A SYN to a port on which nobody listens has its own metric: scans would fill the opt-in labels.
        if let Some(attempt) = HandshakeAttempt::ended_by(observation).filter(|attempt| !attempt.unserved) {
            self.attempt(&attempt);
        }
    }

    fn transition(
        &mut self,
        transition: &Transition,
        duration: Option<Nanos>,
        connection: Option<&Connection>,
    ) {
        let (from, to) = (transition.from, transition.to);
        self.totals.transitions[from as usize][to as usize] += 1;
        let handshake = connection.and_then(|connection| connection.handshake);
        // `close()` after `shutdown()` does not leave the state.
        if from != to && from != TcpState::Closed {
            let duration = match handshake {
                Some(handshake) if handshake.replaces(from) => handshake.duration,
                _ => duration,
            };
            // FIN_WAIT2 may continue without a socket, so its duration is counted when the timewait socket ends.
            if let Some(duration) = duration.filter(|_| (from, to) != (TcpState::FinWait2, TcpState::Closed))
            {
                self.state(from, duration);
            }
        }
        let Some(connection) = connection else { return };
        if matches!(from, TcpState::Closed | TcpState::Listen) {
            self.owners.begins(connection, transition.time);
        }
    }

    /// Counts a handshake that ended.
    fn attempt(&mut self, attempt: &HandshakeAttempt) {
        let role = attempt.role;
        let tally = &mut self.owners.slot(LabelInputs::of_attempt(attempt), attempt.ended).tally;
        tally.handshake(role, OutcomeLabel::of(attempt.outcome));
        tally.retransmits(role, attempt.retransmits.unwrap_or(0));
        if attempt.outcome != HandshakeOutcome::Established {
            return;
        }
        // Time that the client may have waited for data would count as a lost SYN above .95 s.
        let is_exact = attempt.caveat != Some(HandshakeCaveat::FirstData);
        if let Some(duration) = attempt.duration.filter(|_| is_exact) {
            tally.duration(role, attempt.local.address.is_ipv4(), duration);
        }
        if let (Some(rtt), Some(rtts)) = (attempt.rtt, self.totals.rtts.get_mut(role_index(role))) {
            rtts.observe(rtt);
        }
    }

    fn closed(&mut self, closed: &ClosedConnection<'_>) {
        let connection = closed.connection;
        let role = connection.role;
        if closed.close_seen && connection.state() == TcpState::FinWait2 {
            let goes_on = closed.after.is_some_and(|after| after.state == TcpState::FinWait2);
            if let Some(since) = connection.history.since().filter(|_| !goes_on) {
                self.state(TcpState::FinWait2, closed.closed.since(since));
            }
        }
        if let Some(duration) = closed.duration() {
            self.totals.connection_durations[role_index(role)].observe(duration);
        }
        let tally = &mut self.owners.slot(LabelInputs::of(connection), closed.closed).tally;
        tally.closed(role, closed.close_cause.reason);
        if let Some(info) = closed.info {
            tally.bytes_sent += info.bytes_sent;
            tally.bytes_received += info.bytes_received;
        }
    }

    fn state(&mut self, state: TcpState, duration: Nanos) {
        self.totals.state_durations[state as usize].observe(duration);
    }

    /// Runs the periodic work: gauge scan and expiry. Call it after each batch of events.
    pub fn advance(&mut self, tracker: &Tracker, now: Timestamp) {
        self.gauge_scan.advance(tracker, &mut self.owners, &self.thresholds, now);
        self.owners.advance(now);
        self.queues.advance(now);
    }

    /// Copies the counts for a page.
    pub fn snapshot(
        &mut self,
        tracker: &Tracker,
        source: SourceCounts,
        bpf_run_time: Option<Nanos>,
        now: Timestamp,
    ) -> MetricsSnapshot {
        self.gauge_scan.refresh(tracker, &mut self.owners, &self.thresholds, now);
        self.owners.fit();
        self.queues.expire(self.expiry, now);
        let mut overflows = self.owners.overflows();
        overflows.push(("port", self.queues.overflow()));
        let (time_wait, fin_wait_2) = tracker.timewait_counts();
        MetricsSnapshot {
            totals: self.totals.clone(),
            owners: self.owners.copy(),
            labelled: self.owners.labelled(),
            thresholds: self.thresholds,
            listeners: tracker.listening(),
            time_wait,
            fin_wait_2,
            queues: self.queues.copy(now),
            overflows,
            source,
            coverage: Coverage::default(),
            tracker: tracker.counts(),
            live: tracker.live(),
            bpf_run_time,
        }
    }
}
