//! Decides when a condition triggers.

use crate::{
    analysis::freeze::{
        condition::{FreezeCondition, FreezeMeasure, FreezeReason, Measured},
        stuck_scan::StuckScan,
        window::FreezeWindow,
    },
    event::{Nanos, SourceCounts, Timestamp},
    lifecycle::{Observation, Thresholds, Tracker},
};

/// Shortest time between two evaluations.
const INTERVAL: Nanos = Nanos::from_millis(200);

/// The options of a [`FreezeTrigger`].
#[derive(Clone, Debug)]
pub struct FreezeTriggerOptions {
    /// The conditions; any of them triggers.
    pub conditions: Vec<FreezeCondition>,
    /// The length of the window that the conditions look at. It slides in steps of a tenth.
    pub window: Nanos,
    /// The shortest time between two triggers.
    pub pause: Nanos,
    /// When a connection counts as stuck.
    pub thresholds: Thresholds,
}

/// A condition and whether it may trigger.
#[derive(Clone, Debug)]
struct Watched {
    condition: FreezeCondition,
    armed: bool,
    /// Since when it has not held; none while it holds.
    calm_since: Option<Timestamp>,
}

/// Evaluates conditions over a sliding window.
///
/// Its memory is bounded: a window has ten sketches of durations, about 3 to 16 KiB each.
#[derive(Clone, Debug)]
pub struct FreezeTrigger {
    watched: Vec<Watched>,
    window: FreezeWindow,
    length: Nanos,
    pause: Nanos,
    thresholds: Thresholds,
    /// Runs only if a condition needs it.
    stuck: Option<StuckScan>,
    evaluated: Option<Timestamp>,
    triggered: Option<Timestamp>,
}

impl FreezeTrigger {
    /// Creates a trigger whose conditions are all armed.
    pub fn new(options: FreezeTriggerOptions) -> Self {
        let FreezeTriggerOptions { conditions, window, pause, thresholds } = options;
        let scans = conditions.iter().any(|condition| condition.measure == FreezeMeasure::Stuck);
        let watch = |condition| Watched { condition, armed: true, calm_since: None };
        Self {
            watched: conditions.into_iter().map(watch).collect(),
            window: FreezeWindow::new(window),
            length: window,
            pause,
            thresholds,
            stuck: scans.then(StuckScan::default),
            evaluated: None,
            triggered: None,
        }
    }

    /// Moves the window to the time of an event. Call it before the event is observed: after a pause, one batch may have
    /// events of many seconds.
    pub fn move_to(&mut self, time: Timestamp) {
        if !self.watched.is_empty() {
            self.window.move_to(time);
        }
    }

    /// Counts an observation.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        if !self.watched.is_empty() {
            self.window.observe(observation);
        }
    }

    /// Moves the window to a time, and returns the condition that triggers. Call it after each batch of events.
    ///
    /// While `ready` is false, nothing triggers: the last file is still being written.
    pub fn advance(
        &mut self,
        tracker: &Tracker,
        source: &SourceCounts,
        now: Timestamp,
        ready: bool,
    ) -> Option<FreezeReason> {
        if self.watched.is_empty() {
            return None;
        }
        self.window.advance(now, source);
        if let Some(scan) = &mut self.stuck {
            scan.advance(tracker, &self.thresholds, now);
        }
        if self.evaluated.is_some_and(|last| now.since(last) < INTERVAL) {
            return None;
        }
        self.evaluated = Some(now);
        let paused = self.triggered.is_some_and(|last| now.since(last) < self.pause);
        let may_trigger = ready && !paused;
        let mut reason = None;
        for index in 0..self.watched.len() {
            let exceeded = self.exceeded(index);
            let length = self.length;
            let Some(watched) = self.watched.get_mut(index) else { break };
            let Some(measured) = exceeded else {
                let since = *watched.calm_since.get_or_insert(now);
                watched.armed |= now.since(since) >= length;
                continue;
            };
            watched.calm_since = None;
            // One file is for all conditions that hold.
            if may_trigger && std::mem::take(&mut watched.armed) && reason.is_none() {
                reason = Some(FreezeReason { condition: watched.condition.clone(), measured });
            }
        }
        if reason.is_some() {
            self.triggered = Some(now);
        }
        reason
    }

    /// Returns the value of a condition's measure if it is above the limit.
    fn exceeded(&self, index: usize) -> Option<Measured> {
        let condition = &self.watched.get(index)?.condition;
        let measured = match (condition.measure, self.stuck) {
            (FreezeMeasure::Stuck, scan) => Measured::Count(scan?.found()),
            (measure, _) => self.window.measure(measure)?,
        };
        (measured.number() > condition.limit).then_some(measured)
    }
}
