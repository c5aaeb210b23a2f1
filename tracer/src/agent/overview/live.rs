//! Counts the open connections by facet and collects the stuck ones, by scanning the connection table in parts.

use std::sync::Arc;

use tracer_core::{
    event::{Nanos, TcpState, Timestamp},
    lifecycle::{Age, Connection, StuckConnection, Thresholds, Tracker},
};

use crate::agent::overview::facet::{Facet, FacetLimits, FacetTable};

/// Table slots scanned per batch of events; takes about a millisecond.
const PART: usize = 4096;
/// Shortest time between the starts of two scans.
const INTERVAL: Nanos = Nanos::from_secs(1);
/// Scans end this long after the last request.
const IDLE: Nanos = Nanos::from_secs(10);
/// Most processes, remote addresses and ports that are counted separately.
const LIMITS: FacetLimits = FacetLimits([512, 2048, 512]);
/// Most stuck connections that are collected.
const MAX_STUCK: usize = 1000;

/// Open connections by state.
pub(super) type ByState = [u32; 12];

/// The result of a scan.
#[derive(Clone, Debug)]
pub(super) struct LiveTable {
    pub(super) facets: FacetTable<ByState>,
    pub(super) stuck: Vec<StuckConnection>,
    /// Stuck connections beyond [`MAX_STUCK`].
    pub(super) more_stuck: u64,
    /// The ports on which sockets listened at the start of the scan, in any network namespace, in order.
    listening: Vec<u16>,
}

impl LiveTable {
    fn new(listening: Vec<u16>) -> Self {
        Self { facets: FacetTable::new(LIMITS), stuck: Vec::new(), more_stuck: 0, listening }
    }

    fn add(&mut self, connection: &Connection, thresholds: &Thresholds, now: Timestamp) {
        let state = connection.state();
        let listens = |port| self.listening.binary_search(&port).is_ok();
        for facet in Facet::of_open(connection, listens).into_iter().flatten() {
            if let Some(counts) = self.facets.slot(facet) {
                counts[state as usize] += 1;
            }
        }
        let age = Age::of(connection, now);
        if !thresholds.is_exceeded(state, age) {
            return;
        }
        if self.stuck.len() >= MAX_STUCK {
            self.more_stuck += 1;
            return;
        }
        self.stuck.push(stuck(connection, state, age));
    }
}

fn stuck(connection: &Connection, state: TcpState, age: Age) -> StuckConnection {
    StuckConnection {
        state,
        age,
        local: connection.local,
        remote: connection.remote,
        netns: connection.netns,
        cgroup_id: connection.cgroup_id,
        process: connection.owner.process,
        interface: connection.interface.map(Into::into),
        unread_bytes: None,
        unacked_bytes: None,
        ends_in: None,
        not_accepted: None,
    }
}

/// The progress of the scan.
#[derive(Debug)]
pub(super) struct LiveScan {
    next: Option<usize>,
    begun: Timestamp,
    wanted_until: Timestamp,
    table: LiveTable,
    /// The result of the last whole scan.
    done: Option<Arc<LiveTable>>,
}

impl LiveScan {
    pub(super) fn new() -> Self {
        Self {
            next: None,
            begun: Timestamp(0),
            wanted_until: Timestamp(0),
            table: LiveTable::new(Vec::new()),
            done: None,
        }
    }

    /// Scans the next part, or starts a scan when one is due and somebody has asked.
    pub(super) fn advance(&mut self, tracker: &Tracker, thresholds: &Thresholds, now: Timestamp) {
        if self.next.is_none() {
            if now > self.wanted_until {
                self.done = None;
                return;
            }
            if now.since(self.begun) < INTERVAL {
                return;
            }
            self.begin(tracker, now);
        }
        self.part(tracker, thresholds, now);
    }

    /// Returns the last result. Rescans a table that fits into one part, so that its counts are current.
    pub(super) fn request(
        &mut self,
        tracker: &Tracker,
        thresholds: &Thresholds,
        now: Timestamp,
    ) -> Option<Arc<LiveTable>> {
        self.wanted_until = Timestamp(now.0.saturating_add(IDLE.0));
        if tracker.slots() <= PART {
            self.begin(tracker, now);
            self.part(tracker, thresholds, now);
        }
        self.done.clone()
    }

    fn begin(&mut self, tracker: &Tracker, now: Timestamp) {
        let mut listening: Vec<_> = tracker.listeners().map(|(_, local, _)| local.port).collect();
        listening.sort_unstable();
        listening.dedup();
        (self.begun, self.next, self.table) = (now, Some(0), LiveTable::new(listening));
    }

    fn part(&mut self, tracker: &Tracker, thresholds: &Thresholds, now: Timestamp) {
        let Some(from) = self.next else { return };
        let table = &mut self.table;
        self.next = tracker.walk(from, PART, &mut |connection| table.add(connection, thresholds, now));
        if self.next.is_none() {
            self.done = Some(Arc::new(std::mem::replace(&mut self.table, LiveTable::new(Vec::new()))));
        }
    }
}
