//! Builds the screen from the observations of the core.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use tracer_core::{
    analysis::{
        Edge, GroupReport, HandshakeAttempt, Handshakes, HandshakesBy, HandshakesOptions, ListenerActivity,
        ListenerDump, ListenerHandshakes, ListenerProcesses, ListenerReport, LiveCounts, StateGraph,
    },
    escape::escape,
    event::{Event, Nanos, SocketId, SourceCounts, TcpState, Timestamp},
    lifecycle::{Age, Connection, Observation, Thresholds, Tracker},
};

use crate::{
    report::{
        ConnectionCgroups, Filter, FirstTransitions, TableStyle, fault_text, group_text, histogram_lines,
        story,
    },
    top::{
        ConnectionLine, EdgeLine, HandshakeLine, ListenerLine, OwnerLine, Screen, Settings, Sort, StateLine,
    },
};

/// Most lines of a table.
const MAX_LINES: usize = 1000;
/// Most processes that are counted separately.
const MAX_OWNERS: usize = 10_000;
/// Most groups of handshakes in the table.
const MAX_GROUPS: usize = 100;
const SECOND: Nanos = Nanos::from_secs(1);

/// The figures behind the screen.
#[derive(Debug)]
pub struct Model {
    filter: Filter,
    first: FirstTransitions,
    /// Resolves cgroups when the filter needs them.
    cgroups: ConnectionCgroups,
    graph: StateGraph,
    handshakes: Handshakes,
    thresholds: Thresholds,
    /// From the first dump on.
    listeners: Option<ListenerActivity>,
    /// The edge counts of at least the last second with their times, oldest first.
    past: VecDeque<(Timestamp, BTreeMap<Edge, u64>)>,
}

impl Model {
    /// Creates an empty model. `filter` selects what is shown; `cgroups` resolves the cgroups that it may need.
    pub fn new(filter: Filter, cgroups: ConnectionCgroups) -> Self {
        let options = HandshakesOptions { by: HandshakesBy::Service, slowest: 10, max_groups: 10_000 };
        Self {
            first: FirstTransitions::new(&filter),
            filter,
            cgroups,
            graph: StateGraph::default(),
            handshakes: Handshakes::new(options),
            thresholds: Thresholds::default(),
            listeners: None,
            past: VecDeque::new(),
        }
    }

    /// Consumes a dump of the listeners.
    pub fn dumped(&mut self, dump: ListenerDump) {
        match &mut self.listeners {
            None => self.listeners = Some(ListenerActivity::new(dump)),
            Some(listeners) => listeners.dumped(dump),
        }
    }

    /// Consumes an event, before the core's observations of it.
    pub fn event(&mut self, event: &Event) {
        if let Some(listeners) = &mut self.listeners {
            listeners.event(event);
        }
    }

    /// Consumes an observation of the core.
    pub fn observe(&mut self, observation: &Observation<'_>) {
        let attempt = HandshakeAttempt::ended_by(observation);
        if let Some(listeners) = &mut self.listeners {
            listeners.observe(observation, attempt.as_ref());
        }
        if self.filter.needs_cgroup() {
            self.cgroups.observe(observation);
        }
        let released = self.first.release(observation);
        for observation in released.then(*observation) {
            self.take(&observation);
        }
        if let Some(attempt) = attempt
            && self.filter.shows_attempt(&attempt)
            && self.filter.shows_cgroup_of_attempt(&attempt, &mut self.cgroups)
        {
            self.handshakes.add(&attempt, None);
        }
    }

    fn take(&mut self, observation: &Observation<'_>) {
        if self.filter.shows_observation(observation)
            && self.filter.shows_cgroup_of(observation, &mut self.cgroups)
        {
            self.graph.observe(observation);
        }
    }

    /// Builds the current screen.
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
                || !self.filter.shows_duration(Some(now.since(connection.first_seen)))
                || !self.filter.shows_cgroup_of_live(connection, &mut self.cgroups, now)
            {
                continue;
            }
            let state = connection.state();
            live.add(state, 1);
            count_owner(&mut owners, connection);
            if self.thresholds.is_exceeded(state, Age::of(connection, now)) {
                stuck.push((socket, connection));
            }
            if settings.state.is_none_or(|wanted| wanted == state)
                && matches_search(connection, &settings.search)
            {
                connections.push((socket, connection));
            }
        }
        let half_open = self.listeners.as_ref().map_or(0, ListenerActivity::half_open);
        if self.filter.shows_all() {
            live.add(TcpState::SynReceived, half_open);
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
            slowest: report.slowest.iter().map(|(key, attempt)| (group_text(key), story(attempt))).collect(),
            histogram: histogram_lines(report.histogram, TableStyle::default()),
            stuck: sorted(stuck, &Settings::default(), now),
            listeners: self.listener_lines(tracker, now),
            half_open,
        }
    }

    fn listener_lines(&mut self, tracker: &Tracker, now: Timestamp) -> Option<Vec<ListenerLine>> {
        let reports = self.listeners.as_ref()?.report(&ListenerProcesses::of(tracker));
        let mut lines = Vec::new();
        for report in &reports {
            if lines.len() < MAX_LINES
                && self.filter.shows_listener(report)
                && self.filter.shows_cgroup_of_listener(report, &mut self.cgroups, now)
            {
                lines.push(listener_line(report));
            }
        }
        Some(lines)
    }

    fn states(&self, live: &LiveCounts) -> Vec<StateLine> {
        let line = |state| {
            let times = self.graph.time_in(state);
            StateLine { state, live: live.of(state), p50: times.quantile(0.5), p99: times.quantile(0.99) }
        };
        TcpState::ALL.into_iter().map(line).collect()
    }

    fn edges(&mut self, now: Timestamp) -> Vec<EdgeLine> {
        let counts: BTreeMap<Edge, u64> =
            self.graph.edges().map(|(edge, stats)| (edge, stats.count)).collect();
        // The rate counts from the latest entry that is at least a second old.
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
                EdgeLine { edge, count, per_second: new.saturating_mul(SECOND.0) / since.0 }
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

fn listener_line(report: &ListenerReport) -> ListenerLine {
    let handshakes = report.handshakes.as_ref();
    ListenerLine {
        local: report.socket.local,
        netns: report.socket.netns,
        process: report.process,
        queue: report.socket.accept_queue,
        half_open: report.half_open,
        drops: report.drops_during,
        established: handshakes.map(ListenerHandshakes::established),
        abandoned: handshakes.map(ListenerHandshakes::abandoned),
        handshake_p99: handshakes.and_then(|handshakes| handshakes.durations().quantile(0.99)),
        accept_wait_p99: handshakes.and_then(|handshakes| handshakes.accept_waits().quantile(0.99)),
    }
}

fn handshake_line(group: &GroupReport<'_>) -> HandshakeLine {
    let durations = group.stats.durations();
    let why: Vec<String> = group.score.faults.iter().map(fault_text).collect();
    HandshakeLine {
        group: group_text(group.key),
        count: group.stats.count(),
        failed: group.stats.not_completed(),
        resent: group.stats.retransmitted().0,
        times: [durations.quantile(0.5), durations.quantile(0.99), durations.max()],
        why: why.join("; "),
        is_offender: group.score.is_offender(),
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

/// Returns whether the connection matches the search text.
fn matches_search(connection: &Connection, search: &str) -> bool {
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

/// Returns the first connections in the selected order.
fn sorted(
    mut found: Vec<(SocketId, &Connection)>,
    settings: &Settings,
    now: Timestamp,
) -> Vec<ConnectionLine> {
    let age_of = |connection: &Connection| Age::of(connection, now).lower_bound();
    let compare = |a: &(SocketId, &Connection), b: &(SocketId, &Connection)| {
        let ((a_socket, a), (b_socket, b)) = (a, b);
        let age = || age_of(b).cmp(&age_of(a));
        let ordering = match settings.sort {
            Sort::Age => age(),
            Sort::State => a.state().cmp(&b.state()).then_with(age),
            Sort::Process => process_key(a).cmp(&process_key(b)).then_with(age),
            Sort::Remote => a.remote.cmp(&b.remote).then_with(age),
            Sort::Handshake => handshake_duration(b).cmp(&handshake_duration(a)).then_with(age),
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

fn handshake_duration(connection: &Connection) -> Option<Nanos> {
    connection.handshake.and_then(|handshake| handshake.duration)
}

fn line(socket: SocketId, connection: &Connection, now: Timestamp) -> ConnectionLine {
    let age = Age::of(connection, now);
    ConnectionLine {
        socket,
        local: connection.local,
        remote: connection.remote,
        role: connection.role,
        process: connection.owner.process,
        owner_source: connection.owner.source.name(),
        netns: connection.netns,
        state: connection.state(),
        age: (age != Age::AtLeast(Nanos::ZERO)).then_some(age.lower_bound()),
        at_least: matches!(age, Age::AtLeast(_)),
        handshake: handshake_duration(connection),
        syn_retransmits: connection.handshake.and_then(|handshake| handshake.retransmits),
        spans: connection.history.spans(now).collect(),
        incomplete: connection.incomplete,
    }
}
