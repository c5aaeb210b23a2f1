//! Builds the screen from the observations of the core.

use std::sync::Arc;

use tracer_core::{
    analysis::{
        ConnectionReadings, Edge, GroupKey, GroupReport, HandshakeAttempt, Handshakes, HandshakesBy,
        HandshakesOptions, ListenAddress, ListenerActivity, ListenerDump, ListenerHandshakes,
        ListenerProcesses, LiveCounts, StateGraph,
    },
    event::{Event, SourceCounts, TcpState, Timestamp},
    lifecycle::{Age, Observation, Thresholds, Tracker},
};

use crate::{
    report::{ConnectionCgroups, Filter, FirstTransitions, TableStyle, group_text, histogram_lines, story},
    top::{
        EdgeLine, HandshakeLine, ListenerLine, Query, Screen, Settings, StateLine, Tab,
        connection_lines::{self, Found, MAX_LINES},
        group_lines,
        owner_lines::Owners,
        rates::Rates,
    },
};

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
    /// From the first reading on.
    readings: Option<Arc<ConnectionReadings>>,
    edge_rates: Rates<Edge>,
    handshake_rates: Rates<GroupKey>,
    listener_rates: Rates<ListenAddress>,
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
            readings: None,
            edge_rates: Rates::default(),
            handshake_rates: Rates::default(),
            listener_rates: Rates::default(),
        }
    }

    /// Consumes a dump of the listeners.
    pub fn dumped(&mut self, dump: ListenerDump) {
        match &mut self.listeners {
            None => self.listeners = Some(ListenerActivity::new(dump)),
            Some(listeners) => listeners.dumped(dump),
        }
    }

    /// Takes the counters of the open connections, in place of the earlier ones.
    pub fn read(&mut self, readings: Arc<ConnectionReadings>) {
        self.readings = Some(readings);
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
        let readings = self.readings.clone();
        let readings = readings.as_deref();
        let [of_connections, of_owners, of_stuck] =
            [Tab::Connections, Tab::Owners, Tab::Stuck].map(|tab| settings.queries.of(tab));
        let mut live = LiveCounts::default();
        let mut owners = Owners::default();
        let mut connections = Vec::new();
        let mut stuck = Vec::new();
        let mut beyond_threshold = 0;
        for (socket, connection) in tracker.connections() {
            if !self.filter.shows_live(connection)
                || !self.filter.shows_duration(Some(now.since(connection.first_seen)))
                || !self.filter.shows_cgroup_of_live(connection, &mut self.cgroups, now)
            {
                continue;
            }
            let state = connection.state();
            live.add(state, 1);
            let reading = readings.and_then(|readings| readings.of(connection));
            let listed_in = |query: &Query| {
                connection_lines::is_listed(connection, query)
                    .then(|| Found::new(socket, connection, reading.as_ref(), query.sort))
            };
            connections.extend(listed_in(of_connections));
            if listed_in(of_owners).is_some() {
                owners.add(connection, reading.as_ref());
            }
            if self.thresholds.is_exceeded(state, Age::of(connection, now)) {
                beyond_threshold += 1;
                stuck.extend(listed_in(of_stuck));
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
            connections: connection_lines::sorted(connections, of_connections, readings, now),
            matching,
            reads_bytes: readings.is_some(),
            unread_connections: readings.map_or(0, ConnectionReadings::omitted),
            owners: owners.lines(of_owners),
            handshakes: handshake_lines(&report.groups, &mut self.handshake_rates, settings, now),
            slowest: report.slowest.iter().map(|(key, attempt)| (group_text(key), story(attempt))).collect(),
            histogram: histogram_lines(report.histogram, TableStyle::default()),
            stuck: connection_lines::sorted(stuck, of_stuck, readings, now),
            beyond_threshold,
            listeners: self.listener_lines(tracker, settings, now),
            half_open,
        }
    }

    fn listener_lines(
        &mut self,
        tracker: &Tracker,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Vec<ListenerLine>> {
        let query = settings.queries.of(Tab::Listeners);
        let reports = self.listeners.as_ref()?.report(&ListenerProcesses::of(tracker));
        let counts = reports.iter().filter_map(|report| {
            let established = report.handshakes.as_ref().map(ListenerHandshakes::established)?;
            Some((group_lines::listen_address(report), established))
        });
        let rates = self.listener_rates.update(now, counts.collect());
        let mut lines = Vec::new();
        for report in &reports {
            if group_lines::lists_listener(report, query)
                && self.filter.shows_listener(report)
                && self.filter.shows_cgroup_of_listener(report, &mut self.cgroups, now)
            {
                lines.push(group_lines::listener_line(report, &rates));
            }
        }
        group_lines::sort_listeners(&mut lines, query);
        lines.truncate(MAX_LINES);
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
        let counts: Vec<(Edge, u64)> = self.graph.edges().map(|(edge, stats)| (edge, stats.count)).collect();
        let rates = self.edge_rates.update(now, counts.iter().copied().collect());
        let mut edges: Vec<EdgeLine> = counts
            .into_iter()
            .map(|(edge, count)| EdgeLine { edge, count, per_second: rates.get(&edge).copied().unwrap_or(0) })
            .collect();
        edges.sort_by_key(|line| line.edge);
        edges
    }
}

fn handshake_lines(
    groups: &[GroupReport<'_>],
    rates: &mut Rates<GroupKey>,
    settings: &Settings,
    now: Timestamp,
) -> Vec<HandshakeLine> {
    let counts = groups.iter().map(|group| (group.key.clone(), group.stats.count()));
    let rates = rates.update(now, counts.collect());
    group_lines::handshakes(groups, &rates, settings.queries.of(Tab::Handshakes))
}
