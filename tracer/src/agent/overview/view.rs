//! Builds the document from snapshots.

use std::cmp::Reverse;

use tracer_core::{
    analysis::{GroupKey, GroupReport, HandshakeAttempt},
    event::{ClockOffset, Nanos, TcpState},
    lifecycle::{StuckConnection, group_stuck},
};

use crate::{
    agent::{
        metrics::{Agent, Figures, MetricsSnapshot},
        overview::{
            buckets::{BOUNDS, RESEND_STEPS},
            document::{
                Attempt, FilterUsed, Group, HandshakeMap, HandshakeMinute, Listener, Open, Overview, State,
                StateCount, Stuck, StuckProcess, Transitions,
            },
            edges::{self, EDGES},
            facet::{Facet, process_name},
            health::health,
            history::{History, MINUTES},
            listening::Listening,
            live::{ByState, LiveTable},
            minute::{Counts, Minute},
            recorder::OverviewSnapshot,
        },
    },
    report::{endpoint_text, fault_text, group_text, rfc3339, story},
};

/// Most groups, handshakes, and names in a list.
const MAX_LINES: usize = 50;

/// What the document is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The last hour.
    pub hour: &'a OverviewSnapshot,
    /// The counts since the start.
    pub metrics: &'a MetricsSnapshot,
    /// The properties of the agent.
    pub agent: &'a Agent,
    /// The values that were read for this request.
    pub figures: &'a Figures,
    /// The name of the traced host.
    pub host: &'a str,
    /// The offset between the traced host's monotonic clock and UTC.
    pub clock: ClockOffset,
}

/// Builds the document of everything, or of a facet.
pub fn overview(inputs: Inputs<'_>, facet: Option<Facet>) -> Overview {
    let Inputs { hour, metrics, agent, figures, host, clock } = inputs;
    let live = hour.live.as_deref();
    let open = |kind| live.map(|live| open(live, kind));
    let unfiltered: u64 = hour.history.minutes().map(|minute| minute.facets.overflow()).sum();
    Overview {
        time: rfc3339(hour.now, clock).to_string(),
        host: host.to_owned(),
        kernel: agent.kernel.clone(),
        mode: agent.mode.map(str::to_owned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        filter: facet.map(|facet| FilterUsed { kind: facet.kind().to_owned(), value: facet.value() }),
        health: health(metrics, figures),
        states: states(metrics, live, facet),
        edges: transitions(&hour.history, metrics, facet),
        handshakes: handshake_map(&hour.history, facet, clock),
        groups: groups(&hour.history, facet),
        slowest: slowest(&hour.history, facet, clock),
        failed: failed(&hour.history, facet, clock),
        stuck: live.map(|live| stuck(live, hour, facet)),
        listeners: listeners(metrics, figures, &hour.listening, facet),
        processes: open("process"),
        remotes: open("remote"),
        ports: open("port"),
        unfiltered: unfiltered + live.map_or(0, |live| live.facets.overflow()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days, then to the microsecond")]
fn microseconds(duration: Nanos) -> f64 {
    duration.0 as f64 / 1000.0
}

fn states(metrics: &MetricsSnapshot, live: Option<&LiveTable>, facet: Option<Facet>) -> Vec<State> {
    let state = |state: TcpState| {
        let connections = match facet {
            None => Some(metrics.connections(state)),
            Some(_) if matches!(state, TcpState::Listen | TcpState::TimeWait) => None,
            Some(facet) => live.map(|live| {
                let counts = live.facets.get(facet).copied().unwrap_or_default();
                u64::from(counts[state as usize])
            }),
        };
        let stuck = facet.is_none().then(|| metrics.stuck(state));
        State { state: state.name().to_owned(), connections, stuck }
    };
    TcpState::ALL.into_iter().filter(|&it| it != TcpState::Closed).map(state).collect()
}

fn transitions(history: &History, metrics: &MetricsSnapshot, facet: Option<Facet>) -> Vec<Transitions> {
    let mut hour = [0_u64; EDGES.len() + 1];
    for minute in history.minutes() {
        for (sum, count) in hour.iter_mut().zip(minute.counts(facet).edges) {
            *sum += u64::from(count);
        }
    }
    let line = |&(from, to): &(TcpState, TcpState)| Transitions {
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        total: facet.is_none().then(|| metrics.transitions(from, to)),
        last_hour: hour[edges::index(from, to)],
    };
    EDGES.iter().map(line).collect()
}

fn handshake_map(history: &History, facet: Option<Facet>, clock: ClockOffset) -> HandshakeMap {
    let micros = |bounds: &[Nanos]| bounds.iter().map(|bound| bound.as_micros()).collect();
    let current = history.current();
    let minutes = (current.saturating_sub(MINUTES - 1)..=current)
        .map(|number| {
            let counts = history
                .minutes()
                .find(|minute| minute.number == number)
                .map_or_else(Counts::default, |minute| minute.counts(facet));
            HandshakeMinute {
                start: rfc3339(History::start_of(number), clock).to_string(),
                durations: counts.durations.to_vec(),
                established: counts.established,
                failed: counts.failed,
            }
        })
        .collect();
    HandshakeMap { bounds_us: micros(&BOUNDS), resend_steps_us: micros(&RESEND_STEPS), minutes }
}

fn groups(history: &History, facet: Option<Facet>) -> Vec<Group> {
    let analysis = history.groups(facet);
    let report = analysis.report();
    let shown = report.groups.iter().filter(|group| facet.is_none_or(|facet| facet.is_of_group(group.key)));
    shown.take(MAX_LINES).map(group).collect()
}

fn group(report: &GroupReport<'_>) -> Group {
    let durations = report.stats.durations();
    let faults: Vec<String> = report.score.faults.iter().map(fault_text).collect();
    let (remote, port, process) = match report.key {
        GroupKey::Service(endpoint) => (Some(endpoint.address.to_string()), Some(endpoint.port), None),
        GroupKey::Served(port) | GroupKey::Unserved(port) => (None, Some(*port), None),
        GroupKey::Remote(address) => (Some(address.to_string()), None, None),
        GroupKey::Process(Some(_)) => (None, None, Some(group_text(report.key))),
        _ => (None, None, None),
    };
    Group {
        group: group_text(report.key),
        count: report.stats.count(),
        failed: report.stats.not_completed(),
        resent: report.stats.retransmitted().0,
        p50_us: durations.quantile(0.5).map(microseconds),
        p99_us: durations.quantile(0.99).map(microseconds),
        max_us: durations.max().map(microseconds),
        story: faults.join("; "),
        offender: report.score.is_offender(),
        remote,
        port,
        process,
    }
}

/// Returns the handshakes of all minutes that the facet selects.
fn kept(
    history: &History,
    facet: Option<Facet>,
    of: fn(&Minute) -> &[HandshakeAttempt],
) -> Vec<&HandshakeAttempt> {
    let is_shown = |attempt: &&HandshakeAttempt| {
        facet.is_none_or(|facet| Facet::of_attempt(attempt).contains(&Some(facet)))
    };
    history.minutes().flat_map(of).filter(is_shown).collect()
}

fn slowest(history: &History, facet: Option<Facet>, clock: ClockOffset) -> Vec<Attempt> {
    let mut attempts = kept(history, facet, |minute| &minute.slowest);
    attempts.sort_by_key(|attempt| (Reverse(attempt.duration), attempt.ended));
    attempts.into_iter().take(MAX_LINES).map(|it| attempt(it, clock)).collect()
}

fn failed(history: &History, facet: Option<Facet>, clock: ClockOffset) -> Vec<Attempt> {
    let mut attempts = kept(history, facet, |minute| &minute.failed);
    attempts.sort_by_key(|attempt| Reverse(attempt.ended));
    attempts.into_iter().take(MAX_LINES).map(|it| attempt(it, clock)).collect()
}

fn attempt(attempt: &HandshakeAttempt, clock: ClockOffset) -> Attempt {
    Attempt {
        time: rfc3339(attempt.ended, clock).to_string(),
        role: attempt.role.name().to_owned(),
        process: attempt.process.map(|process| process_name(&process.comm)),
        local: endpoint_text(attempt.local),
        remote: attempt.remote.address.to_string(),
        remote_port: (attempt.remote.port != 0).then_some(attempt.remote.port),
        outcome: attempt.outcome.name().to_owned(),
        duration_us: attempt.duration.map(microseconds),
        story: story(attempt),
    }
}

fn stuck(live: &LiveTable, hour: &OverviewSnapshot, facet: Option<Facet>) -> Stuck {
    // A stuck connection has no role, so both ports count.
    let is_shown = |it: &&StuckConnection| match facet {
        None => true,
        Some(Facet::Process(comm)) => it.process.is_some_and(|process| process.comm == comm),
        Some(Facet::Remote(address)) => it.remote.address == address,
        Some(Facet::Port(port)) => it.local.port == port || it.remote.port == port,
    };
    let key =
        |it: &StuckConnection| it.process.map(|process| process_name(&process.comm)).unwrap_or_default();
    let groups = group_stuck(live.stuck.iter().filter(is_shown).copied(), &hour.thresholds, key);
    let count: usize = groups.iter().map(|group| group.members.len()).sum();
    let more = if facet.is_none() { live.more_stuck } else { 0 };
    let shown = groups.iter().take(MAX_LINES).filter_map(|group| {
        let oldest = group.members.first()?;
        let states = group.states().into_iter();
        Some(StuckProcess {
            process: oldest.process.map(|process| process_name(&process.comm)),
            count: group.members.len() as u64,
            oldest_us: microseconds(group.oldest_age()),
            states: states
                .map(|(state, count)| StateCount { state: state.name().to_owned(), count: count as u64 })
                .collect(),
            local: endpoint_text(oldest.local),
            remote: oldest.remote.address.to_string(),
            remote_port: oldest.remote.port,
        })
    });
    Stuck { count: count as u64 + more, more, groups: shown.collect() }
}

fn listeners(
    metrics: &MetricsSnapshot,
    figures: &Figures,
    listening: &Listening,
    facet: Option<Facet>,
) -> Vec<Listener> {
    let processes = |port| -> Vec<String> {
        listening.on(port).take(MAX_LINES).map(|comm| process_name(&comm)).collect()
    };
    let mut listeners: Vec<Listener> = metrics
        .accept_queues(&figures.listeners.queues)
        .into_iter()
        .map(|queue| Listener {
            port: queue.port,
            queue: queue.length,
            limit: Some(queue.limit),
            peak: queue.peak,
            drops: None,
            processes: processes(queue.port),
        })
        .collect();
    for &(port, drops) in &figures.listeners.drops.ports {
        match listeners.iter_mut().find(|listener| listener.port == port) {
            Some(listener) => listener.drops = Some(drops),
            None => {
                listeners.push(Listener {
                    port,
                    queue: None,
                    limit: None,
                    peak: None,
                    drops: Some(drops),
                    processes: processes(port),
                });
            }
        }
    }
    match facet {
        None => {}
        Some(Facet::Port(port)) => listeners.retain(|listener| listener.port == port),
        Some(Facet::Process(comm)) => {
            listeners.retain(|listener| listening.on(listener.port).any(|name| name == comm));
        }
        // A listener has no remote address.
        Some(Facet::Remote(_)) => listeners.clear(),
    }
    // The worst first.
    listeners.sort_by_key(|it| (Reverse(it.drops), Reverse(it.queue), Reverse(it.peak), it.port));
    listeners
}

/// Returns the open connections by a kind of facet, most first.
fn open(live: &LiveTable, kind: &str) -> Vec<Open> {
    let sum = |counts: &ByState| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
    let mut found: Vec<(Facet, &ByState)> =
        live.facets.iter().filter(|(facet, _)| facet.kind() == kind).collect();
    found.sort_by_key(|&(facet, counts)| (Reverse(sum(counts)), facet));
    let line = |(facet, counts): (Facet, &ByState)| {
        let mut states: Vec<(TcpState, u32)> =
            TcpState::ALL.into_iter().map(|state| (state, counts[state as usize])).collect();
        states.retain(|&(_, count)| count > 0);
        states.sort_by_key(|&(state, count)| (Reverse(count), state));
        let states = states
            .into_iter()
            .map(|(state, count)| StateCount { state: state.name().to_owned(), count: count.into() });
        Open { name: facet.value(), connections: sum(counts), states: states.collect() }
    };
    found.into_iter().take(MAX_LINES).map(line).collect()
}
