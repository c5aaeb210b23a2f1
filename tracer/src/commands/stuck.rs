//! `stuck`: connections that stay too long in a state, with their owner.
//!
//! One look at the host tells what there is, who holds it and what waits in its queues; sock_diag does
//! not tell since when, only a lower bound. With `--duration` the transitions are traced before that
//! look, and what entered its state meanwhile has an exact age. Of a recording the moment is its end.

mod recorded;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracer_core::{
    escape::escape,
    event::{Endpoint, ExistingSocket, Process, TcpState, Timestamp},
    lifecycle::{
        Age, GroupBy, Observation, StuckConnection, StuckGroup, Thresholds, TimeWaitModel, Tracker,
        group_stuck,
    },
};

use crate::{
    cli::{Shared, StuckArguments},
    commands::trace,
    event_loop::{Consumer, Progress},
    host::{Cgroup, CgroupResolver, time_wait_model},
    report::{Format, GroupRow, Sink, StuckRow},
    sources::sock_diag::{Existing, SocketSnapshot, existing},
};

type Ends = (Option<u32>, Endpoint, Endpoint);

/// When connections entered the state they are in, as far as it was seen.
type Entered = HashMap<Ends, (TcpState, Timestamp)>;

pub(super) fn run(shared: &Shared, arguments: &StuckArguments) -> anyhow::Result<()> {
    if !shared.input.is_empty() {
        return recorded::run(shared, arguments);
    }
    let told = Told::default();
    if shared.duration.is_some() {
        trace::trace_keeping_privileges(shared, |_| AtEnd { ask: entered, told: Arc::clone(&told) })?;
    }
    let entered = take(&told);
    let look = existing();
    if !shared.quiet {
        for problem in &look.problems {
            stderr_line!("the list is incomplete: {problem}");
        }
    }
    let of = format!(
        "{} sockets in {} network namespaces",
        look.sockets.len() + look.timewait_sockets.len(),
        look.namespaces
    );
    report(shared, arguments, stuck_connections(&look, &entered), CgroupResolver::new(Duration::ZERO), &of)
}

/// What a run has told at its end.
type Told<T> = Arc<Mutex<T>>;

fn take<T: Default>(told: &Mutex<T>) -> T {
    std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Asks the table, with the time then, when a run ends.
struct AtEnd<T> {
    ask: fn(&Tracker, Timestamp) -> T,
    told: Told<T>,
}

impl<T: Send + 'static> Consumer for AtEnd<T> {
    fn observe(&mut self, _observation: Observation<'_>) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        let told = (self.ask)(progress.tracker, progress.now);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        Ok(())
    }
}

/// Since when everything in the table has been in its state, as far as that was seen.
fn entered(tracker: &Tracker, _now: Timestamp) -> Entered {
    let mut entered = Entered::new();
    for remain in tracker.timewait_sockets() {
        entered.insert((remain.netns, remain.local, remain.remote), (remain.state, remain.since));
    }
    for (_, connection) in tracker.connections() {
        if let Some(since) = connection.history.since() {
            let ends = (connection.netns, connection.local, connection.remote);
            let known = entered.entry(ends).or_insert((connection.state(), since));
            // Clients without a port may share their ends: the last to have begun stands for all of them.
            if known.1 <= since {
                *known = (connection.state(), since);
            }
        }
    }
    entered
}

fn report(
    shared: &Shared,
    arguments: &StuckArguments,
    stuck: Vec<StuckConnection>,
    resolver: CgroupResolver,
    of: &str,
) -> anyhow::Result<()> {
    let mut thresholds = Thresholds::default();
    for (state, limit) in &arguments.threshold {
        thresholds.set(*state, *limit);
    }
    if arguments.time_wait && thresholds.of(TcpState::TimeWait).is_none() {
        thresholds.set(TcpState::TimeWait, 0);
    }
    let mut cgroups = Cgroups(resolver);
    let filter = shared.filter();
    let stuck: Vec<StuckConnection> = stuck
        .into_iter()
        .filter(|stuck| {
            filter.shows_stuck(stuck)
                && (filter.cgroup.is_none() || filter.shows_cgroup(cgroups.of(stuck).as_deref()))
        })
        .collect();
    let keys: HashMap<Ends, String> = stuck
        .iter()
        .map(|it| ((it.netns, it.local, it.remote), key(it, arguments.by.into(), &mut cgroups)))
        .collect();
    let groups = group_stuck(stuck, &thresholds, |it| {
        keys.get(&(it.netns, it.local, it.remote)).cloned().unwrap_or_default()
    });
    let limit = shared.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    match write(shared, arguments, &groups, limit, &mut cgroups) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    if !shared.quiet {
        let count: usize = groups.iter().map(|group| group.members.len()).sum();
        stderr_line!("{count} stuck in {} groups, of {of}", groups.len());
    }
    Ok(())
}

fn write(
    shared: &Shared,
    arguments: &StuckArguments,
    groups: &[StuckGroup],
    limit: usize,
    cgroups: &mut Cgroups,
) -> io::Result<()> {
    let mut sink = Sink::new(io::stdout(), shared.output, shared.time);
    sink.begin::<StuckRow>()?;
    for group in groups.iter().take(limit) {
        let cgroup = group.members.first().and_then(|oldest| cgroups.of(oldest));
        // CSV has one kind of line: the connections, all of them.
        if shared.output != Format::Csv {
            sink.write(&GroupRow::new(group, cgroup.as_deref()))?;
        }
        let shown = if shared.output == Format::Csv { usize::MAX } else { arguments.limit };
        for member in group.members.iter().take(shown) {
            let cgroup = cgroups.of(member);
            sink.write(&StuckRow::new(member, cgroup.as_deref()))?;
        }
    }
    sink.flush()
}

/// The cgroups of what stands still.
struct Cgroups(CgroupResolver);

impl Cgroups {
    fn of(&mut self, stuck: &StuckConnection) -> Option<Arc<Cgroup>> {
        self.0.cgroup(stuck.cgroup_id, stuck.process.as_ref(), Duration::ZERO)
    }
}

fn key(stuck: &StuckConnection, by: GroupBy, cgroups: &mut Cgroups) -> String {
    match by {
        GroupBy::Process => process_name(stuck.process.as_ref()),
        GroupBy::Remote => stuck.remote.address.to_string(),
        GroupBy::Port => format!("port {}", stuck.local.port),
        GroupBy::Container => cgroups
            .of(stuck)
            .and_then(|cgroup| cgroup.owner.container.as_ref().map(|container| container.id.clone()))
            .unwrap_or_else(|| "no container".to_owned()),
    }
}

fn process_name(process: Option<&Process>) -> String {
    match process {
        Some(process) => format!("{} ({})", escape(process.name()), process.pid),
        None => "the kernel (no process holds them)".to_owned(),
    }
}

/// Everything that is not a listener, with its age.
fn stuck_connections(look: &Existing, entered: &Entered) -> Vec<StuckConnection> {
    let model = time_wait_model();
    let listeners: HashMap<(Option<u32>, u16), Process> = look
        .sockets
        .iter()
        .filter(|socket| socket.state == TcpState::Listen)
        .filter_map(|socket| Some(((socket.netns, socket.local.port), socket.process?)))
        .collect();
    let age = |ends: Ends, state: TcpState, at_least: Option<u64>| match entered.get(&ends) {
        Some((known, since)) if *known == state => Age::Observed(look.started.since(*since)),
        // A client begins without a port; the last to have begun towards the same peer is no older.
        None if state == TcpState::SynSent => {
            let unbound = (ends.0, Endpoint { port: 0, ..ends.1 }, ends.2);
            Age::AtLeast(entered.get(&unbound).map_or(0, |(_, since)| look.started.since(*since)))
        }
        _ => Age::AtLeast(at_least.unwrap_or(0)),
    };
    let full = look.sockets.iter().filter(|socket| socket.state != TcpState::Listen).map(|socket| {
        let ends = (socket.netns, socket.local, socket.remote);
        let age = age(ends, socket.state, socket.state_age_ns);
        of_socket(socket, bare(ends, socket.state, age))
    });
    let timewait_sockets = look.timewait_sockets.iter().map(|socket| {
        let ends = (socket.netns, socket.local, socket.remote);
        let age = age(ends, socket.state, least_age(socket, model));
        let listener = listeners.get(&(socket.netns, socket.local.port)).copied();
        of_timewait_sockets(socket, listener, bare(ends, socket.state, age))
    });
    full.chain(timewait_sockets).collect()
}

/// What is known of anything that stands still.
fn bare((netns, local, remote): Ends, state: TcpState, age: Age) -> StuckConnection {
    StuckConnection {
        state,
        age,
        local,
        remote,
        netns,
        cgroup_id: None,
        process: None,
        unread_bytes: None,
        unacked_bytes: None,
        ends_in_ns: None,
    }
}

fn of_socket(socket: &ExistingSocket, bare: StuckConnection) -> StuckConnection {
    StuckConnection {
        cgroup_id: socket.cgroup_id,
        process: socket.process,
        unread_bytes: socket.info.map(|info| info.unread_bytes),
        unacked_bytes: socket.info.map(|info| info.unacked_bytes),
        ..bare
    }
}

fn of_timewait_sockets(
    socket: &SocketSnapshot,
    listener: Option<Process>,
    bare: StuckConnection,
) -> StuckConnection {
    StuckConnection {
        process: listener.filter(|_| socket.request),
        ends_in_ns: socket.timer.filter(|_| socket.mini).map(|timer| u64::from(timer.expires_ms) * 1_000_000),
        ..bare
    }
}

/// What the timer tells: a half-open handshake has waited for the intervals before this one, and a mini-socket
/// lives for a time that the kernel's settings give.
fn least_age(socket: &SocketSnapshot, model: TimeWaitModel) -> Option<u64> {
    let timer = socket.timer?;
    if socket.request {
        // The timer runs for 1, 2, 4 ... s. The count of resends is no measure: a SYN that comes again is
        // answered again, and counted.
        let left = u64::from(timer.expires_ms);
        let interval = (0..=7).map(|step| 1000_u64 << step).find(|&interval| interval >= left)?;
        return Some((2 * interval - 1000).saturating_sub(left) * 1_000_000);
    }
    let left = u64::from(timer.expires_ms) * 1_000_000;
    model.whole_ns(socket.state).map(|whole| whole.saturating_sub(left))
}
