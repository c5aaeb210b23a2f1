//! What the screen shows, out of what the core reports.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use tracer_core::{
    analysis::{
        Edge, GroupReport, HandshakeAttempt, Handshakes, HandshakesBy, HandshakesOptions, LiveCounts,
        StateGraph,
    },
    escape::escape,
    event::{SocketId, SourceCounts, TcpState, Timestamp},
    lifecycle::{Connection, Observation, Thresholds, Tracker},
};

use crate::{
    report::{
        ConnectionCgroups, Filter, FirstTransitions, Turn, fault_text, group_text, histogram_lines, story,
    },
    top::{ConnectionLine, EdgeLine, HandshakeLine, OwnerLine, Screen, Settings, Sort, StateLine},
};

/// Most lines of a table.
const MAX_LINES: usize = 1000;
/// Most processes that are told apart.
const MAX_OWNERS: usize = 10_000;
/// Most groups of handshakes in the table.
const MAX_GROUPS: usize = 100;
const SECOND: u64 = 1_000_000_000;

/// The figures behind the screen.
#[derive(Debug)]
pub struct Model {
    filter: Filter,
    first: FirstTransitions,
    /// Whose cgroups are asked when the filter asks for one.
    cgroups: ConnectionCgroups,
    graph: StateGraph,
    handshakes: Handshakes,
    thresholds: Thresholds,
    /// The counts of the edges at moments of the last second and a bit, the oldest first.
    past: VecDeque<(Timestamp, BTreeMap<Edge, u64>)>,
}

impl Model {
    /// Nothing seen so far; `filter` chooses what is, and `cgroups` knows the cgroups that it may ask for.
    pub fn new(filter: Filter, cgroups: ConnectionCgroups) -> Self {
        let options = HandshakesOptions { by: HandshakesBy::Service, slowest: 10, max_groups: 10_000 };
        Self {
            first: FirstTransitions::new(&filter),
            filter,
            cgroups,
            graph: StateGraph::default(),
            handshakes: Handshakes::new(options),
            thresholds: Thresholds::default(),
            past: VecDeque::new(),
        }
    }

    /// Takes in what the core reports.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        if self.filter.cgroup.is_some() {
            self.cgroups.observe(observation);
        }
        if let Observation::Transition { transition, connection, .. } = *observation {
            match self.first.turn(transition, connection) {
                Turn::Later => return,
                Turn::Now => {}
                Turn::After(first) => {
                    let duration_ns = None;
                    self.take(&Observation::Transition { transition: &first, duration_ns, connection });
                }
            }
        }
        self.take(observation);
        if let Some(opening) = HandshakeAttempt::ended_by(observation)
            && self.filter.shows_attempt(&opening)
            && self.filter.shows_cgroup_of_attempt(&opening, &mut self.cgroups)
        {
            self.handshakes.add(&opening, None);
        }
    }

    fn take(&mut self, observation: &Observation<'_>) {
        if self.filter.shows_observation(observation)
            && self.filter.shows_cgroup_of(observation, &mut self.cgroups)
        {
            self.graph.observe(observation);
        }
    }

    /// What the screen shows now.
    pub fn screen(
        &mut self,
        tracker: &Tracker,
        source: SourceCounts,
        now: Timestamp,
        settings: &Settings,
    ) -> Screen {
        let edges = self.edges(now);
        let mut live = LiveCounts::default();
        let mut owners = BTreeMap::new();
        let mut connections = Vec::new();
        let mut stuck = Vec::new();
        for (socket, connection) in tracker.connections() {
            if !self.filter.shows_live(connection)
                || !self.filter.shows_cgroup_of_live(connection, &mut self.cgroups, now)
            {
                continue;
            }
            let state = connection.state();
            live.add(state, 1);
            count_owner(&mut owners, connection);
            let age = age_ns(connection, now);
            if self.thresholds.of(state).is_some_and(|limit| age >= limit) {
                stuck.push((socket, connection));
            }
            if settings.state.is_none_or(|wanted| wanted == state) && is_found(connection, &settings.search) {
                connections.push((socket, connection));
            }
        }
        if self.filter.shows_all() {
            let (time_wait, fin_wait_2) = tracker.timewait_counts();
            live.add(TcpState::TimeWait, time_wait as u64);
            live.add(TcpState::FinWait2, fin_wait_2 as u64);
        }
        let matching = connections.len() as u64;
        let report = self.handshakes.report();
        Screen {
            now,
            live: tracker.live() as u64,
            transitions: source.seen,
            per_second: edges.iter().map(|edge| edge.per_second).sum(),
            missing: source.lost + source.skipped.unwrap_or(0),
            states: self.states(&live),
            edges,
            connections: sorted(connections, settings, now),
            matching,
            owners: owner_lines(owners),
            handshakes: report.groups.iter().take(MAX_GROUPS).map(handshake_line).collect(),
            slowest: report.slowest.iter().map(|(key, opening)| (group_text(key), story(opening))).collect(),
            histogram: histogram_lines(report.histogram),
            stuck: sorted(stuck, &Settings::default(), now),
        }
    }

    fn states(&self, live: &LiveCounts) -> Vec<StateLine> {
        let line = |state| {
            let times = self.graph.time_in(state);
            StateLine {
                state,
                live: live.of(state),
                p50_ns: times.quantile_ns(0.5),
                p99_ns: times.quantile_ns(0.99),
            }
        };
        TcpState::ALL.into_iter().map(line).collect()
    }

    fn edges(&mut self, now: Timestamp) -> Vec<EdgeLine> {
        let counts: BTreeMap<Edge, u64> =
            self.graph.edges().map(|(edge, stats)| (edge, stats.count)).collect();
        // The youngest that is a second old is what the last second is counted from.
        while self.past.get(1).is_some_and(|(time, _)| now.since(*time) >= SECOND) {
            self.past.pop_front();
        }
        let (since, before) = match self.past.front() {
            Some((time, counts)) => (now.since(*time).max(SECOND), Some(counts)),
            None => (SECOND, None),
        };
        let edges = counts
            .iter()
            .map(|(&edge, &count)| {
                let known = before.and_then(|before| before.get(&edge)).copied().unwrap_or(0);
                let new = if before.is_some() { count - known } else { 0 };
                EdgeLine { edge, count, per_second: new.saturating_mul(SECOND) / since }
            })
            .collect();
        if self.past.back().is_some_and(|(time, _)| *time == now) {
            self.past.pop_back();
        }
        if now > Timestamp(0) {
            self.past.push_back((now, counts));
        }
        edges
    }
}

fn handshake_line(group: &GroupReport<'_>) -> HandshakeLine {
    let durations = group.stats.durations();
    let why: Vec<String> = group.culprit.faults.iter().map(fault_text).collect();
    HandshakeLine {
        group: group_text(group.key),
        count: group.stats.count(),
        failed: group.stats.not_completed(),
        lost: group.stats.lost_a_syn().0,
        times_ns: [durations.quantile_ns(0.5), durations.quantile_ns(0.99), durations.max_ns()],
        why: why.join("; "),
        culprit: group.culprit.is_one(),
    }
}

type Owners =
    BTreeMap<Option<(u32, [u8; 16])>, (Option<tracer_core::event::Process>, BTreeMap<TcpState, u64>)>;

fn count_owner(owners: &mut Owners, connection: &Connection) {
    let process = connection.owner.process;
    let key = process.map(|process| (process.pid, process.comm));
    if owners.len() < MAX_OWNERS || owners.contains_key(&key) {
        *owners
            .entry(key)
            .or_insert_with(|| (process, BTreeMap::new()))
            .1
            .entry(connection.state())
            .or_default() += 1;
    }
}

fn owner_lines(owners: Owners) -> Vec<OwnerLine> {
    let mut lines: Vec<OwnerLine> = owners
        .into_values()
        .map(|(process, states)| {
            let mut states: Vec<(TcpState, u64)> = states.into_iter().collect();
            states.sort_by_key(|&(state, count)| (Reverse(count), state));
            OwnerLine { process, count: states.iter().map(|(_, count)| count).sum(), states }
        })
        .collect();
    lines.sort_by_key(|line| (Reverse(line.count), line.process.map(|process| process.pid)));
    lines.truncate(MAX_LINES);
    lines
}

/// The time in the state: since it was entered, or since it was certainly there.
fn age_ns(connection: &Connection, now: Timestamp) -> u64 {
    now.since(connection.history.since().unwrap_or(connection.first_seen))
}

/// Whether one of its texts contains what is searched for.
fn is_found(connection: &Connection, search: &str) -> bool {
    if search.is_empty() {
        return true;
    }
    let process = connection
        .owner
        .process
        .map(|process| format!("{} {}", escape(process.name()), process.pid))
        .unwrap_or_default();
    let text = format!(
        "{}:{} {}:{} {} {} {process}",
        connection.local.address,
        connection.local.port,
        connection.remote.address,
        connection.remote.port,
        connection.state().kernel_name(),
        connection.role.name(),
    );
    text.to_lowercase().contains(&search.to_lowercase())
}

/// The first of them in the wanted order.
fn sorted(
    mut found: Vec<(SocketId, &Connection)>,
    settings: &Settings,
    now: Timestamp,
) -> Vec<ConnectionLine> {
    let compare = |a: &(SocketId, &Connection), b: &(SocketId, &Connection)| {
        let ((a_socket, a), (b_socket, b)) = (a, b);
        let age = || age_ns(b, now).cmp(&age_ns(a, now));
        let ordering = match settings.sort {
            Sort::Age => age(),
            Sort::State => a.state().cmp(&b.state()).then_with(age),
            Sort::Process => process_key(a).cmp(&process_key(b)).then_with(age),
            Sort::Remote => a.remote.cmp(&b.remote).then_with(age),
            Sort::Handshake => handshake_ns(b).cmp(&handshake_ns(a)).then_with(age),
        };
        let ordering = if settings.reversed { ordering.reverse() } else { ordering };
        ordering.then_with(|| a_socket.cmp(b_socket))
    };
    if found.len() > MAX_LINES {
        found.select_nth_unstable_by(MAX_LINES, compare);
        found.truncate(MAX_LINES);
    }
    found.sort_unstable_by(compare);
    found.into_iter().map(|(socket, connection)| line(socket, connection, now)).collect()
}

fn process_key(connection: &Connection) -> Option<([u8; 16], u32)> {
    connection.owner.process.map(|process| (process.comm, process.pid))
}

fn handshake_ns(connection: &Connection) -> Option<u64> {
    connection.handshake.and_then(|handshake| handshake.duration_ns)
}

fn line(socket: SocketId, connection: &Connection, now: Timestamp) -> ConnectionLine {
    ConnectionLine {
        socket,
        local: connection.local,
        remote: connection.remote,
        role: connection.role,
        process: connection.owner.process,
        owner_source: connection.owner.source.name(),
        netns: connection.netns,
        state: connection.state(),
        age_ns: Some(age_ns(connection, now)),
        at_least: connection.history.since().is_none(),
        handshake_ns: handshake_ns(connection),
        syn_retransmits: connection.handshake.and_then(|handshake| handshake.retransmits),
        spans: connection.history.spans(now).collect(),
        incomplete: connection.incomplete,
    }
}
