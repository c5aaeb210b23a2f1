//! `stuck`: connections that stay too long in a state, with their owner.
//!
//! A socket dump lists the connections with their owners and queues, but sock_diag has only a lower bound for the time in
//! the state. With `--duration`, transitions are traced before the dump, so that connections which changed state meanwhile
//! have an exact age. For a recording, the report describes its end.

mod recorded;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracer_core::{
    counted::counted,
    escape::escape,
    event::{ConnKey, Endpoint, ExistingSocket, Nanos, Netns, Process, TcpState, Timestamp},
    lifecycle::{
        Age, GroupBy, Observation, StuckConnection, StuckGroup, Thresholds, TimeWaitModel, Tracker,
        group_stuck, half_open_age_at_least,
    },
};

use crate::{
    cli::{Shared, StuckArguments},
    commands::{input::visibility, quiet_notice::QuietNotice, table_style, trace},
    event_loop::{Consumer, Progress},
    host::{Cgroup, CgroupResolver, PodNames, time_wait_model},
    report::{Format, GroupRow, Sink, StuckRow},
    sources::sock_diag::{Existing, SocketSnapshot, existing},
};

/// The connections in the table at the end of tracing.
type Entered = HashMap<ConnKey, InState>;

/// A state, and how long a connection has been in it.
#[derive(Clone, Copy, Debug)]
struct InState {
    state: TcpState,
    since: Timestamp,
    /// The transition into the state was seen; otherwise it happened before `since`.
    is_exact: bool,
}

impl InState {
    fn age(self, now: Timestamp) -> Age {
        let age = now.since(self.since);
        if self.is_exact { Age::Observed(age) } else { Age::AtLeast(age) }
    }
}

pub(super) fn run(shared: &Shared, arguments: &StuckArguments) -> anyhow::Result<()> {
    if !shared.input.is_empty() {
        return recorded::run(shared, arguments);
    }
    let value = AtEndValue::default();
    if shared.duration.is_some() {
        trace::trace_keeping_privileges(shared, |_| AtEnd::new(shared, entered, &value))?;
    }
    let entered = take(&value);
    let visibility = visibility();
    let dump = existing();
    if !shared.quiet {
        // The trace has said it.
        if let Some(notice) = visibility.notice().filter(|_| shared.duration.is_none()) {
            stderr_line!("{notice}");
        }
        for problem in &dump.problems {
            stderr_line!("the list is incomplete: {problem}");
        }
    }
    let resolver = CgroupResolver::new(&shared.host_root, Duration::ZERO);
    let of = format!(
        "{} in {}{}",
        counted(dump.sockets.len() + dump.minisocks.len(), "socket"),
        counted(dump.namespaces, "network namespace"),
        if visibility.hides_sockets() { "; others are hidden from this process" } else { "" }
    );
    report(shared, arguments, stuck_connections(&dump, &entered), resolver, &of)
}

/// The value that [`AtEnd`] computes at the end of a run.
type AtEndValue<T> = Arc<Mutex<T>>;

fn take<T: Default>(value: &Mutex<T>) -> T {
    std::mem::take(&mut *value.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Computes a value from the connection table and the time at the end of a run.
struct AtEnd<T> {
    compute: fn(&Tracker, Timestamp) -> T,
    value: AtEndValue<T>,
    notice: QuietNotice,
}

impl<T> AtEnd<T> {
    /// Computes the value into `value`.
    fn new(shared: &Shared, compute: fn(&Tracker, Timestamp) -> T, value: &AtEndValue<T>) -> Self {
        let notice = QuietNotice::until_the_end(shared, "the list comes at the end");
        Self { compute, value: Arc::clone(value), notice }
    }
}

impl<T: Send + 'static> Consumer for AtEnd<T> {
    fn observe(&mut self, _observation: Observation<'_>) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.notice.print_if_due(0, &progress);
        Ok(())
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        let value = (self.compute)(progress.tracker, progress.now);
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        Ok(())
    }
}

/// Returns since when every connection in the table is in its state. One that existed before tracing began, and had no
/// transition since, has been in it at least since it was first seen.
fn entered(tracker: &Tracker, _now: Timestamp) -> Entered {
    let mut entered = Entered::new();
    for timewait in tracker.timewait_sockets() {
        if let Some(since) = timewait.since {
            entered.insert(timewait.key(), InState { state: timewait.state, since, is_exact: true });
        }
    }
    for (_, connection) in tracker.connections() {
        let exact = connection.history.since();
        if let Some(since) = exact.or((!connection.gap).then_some(connection.first_seen)) {
            let in_state = InState { state: connection.state(), since, is_exact: exact.is_some() };
            let known = entered.entry(connection.key()).or_insert(in_state);
            // Clients that have no port yet may share a key: the last one to start represents all of them.
            if known.since <= since {
                *known = in_state;
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
        thresholds.set(TcpState::TimeWait, Nanos::ZERO);
    }
    let mut cgroups = Cgroups(resolver);
    let filter = shared.filter();
    let stuck: Vec<StuckConnection> = stuck
        .into_iter()
        .filter(|stuck| {
            filter.shows_stuck(stuck)
                && (!filter.needs_cgroup() || filter.shows_cgroup(cgroups.of(stuck).as_deref()))
        })
        .collect();
    let keys: HashMap<ConnKey, String> =
        stuck.iter().map(|it| (it.key(), key(it, arguments.by.into(), &mut cgroups))).collect();
    let groups = group_stuck(stuck, &thresholds, |it| keys.get(&it.key()).cloned().unwrap_or_default());
    let limit = shared.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    match write(shared, arguments, &groups, limit, &mut cgroups) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    if !shared.quiet {
        let count: usize = groups.iter().map(|group| group.members.len()).sum();
        stderr_line!("{count} stuck in {}, of {of}", counted(groups.len(), "group"));
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
    let mut sink =
        Sink::new(io::stdout(), shared.output, shared.time).with_style(table_style::of_stdout(shared));
    sink.begin::<StuckRow>()?;
    for group in groups.iter().take(limit) {
        let cgroup = group.members.first().and_then(|oldest| cgroups.of(oldest));
        // CSV has only one row type, the connections, and no limit per group.
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

/// The cgroups of stuck connections.
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
            .and_then(|cgroup| {
                let id = &cgroup.owner.container.as_ref()?.id;
                let name = cgroup.container_name().filter(|name| *name != id.as_str());
                Some(name.map_or_else(|| id.clone(), |name| format!("{name} ({id:.12})")))
            })
            .unwrap_or_else(|| "no container".to_owned()),
        GroupBy::Pod => pod_key(stuck, cgroups, PodNames::qualified_pod),
        GroupBy::Namespace => pod_key(stuck, cgroups, PodNames::namespace),
        GroupBy::Workload => pod_key(stuck, cgroups, PodNames::qualified_workload),
    }
}

fn pod_key(stuck: &StuckConnection, cgroups: &mut Cgroups, name: fn(&PodNames) -> &str) -> String {
    let cgroup = cgroups.of(stuck);
    cgroup.as_deref().and_then(Cgroup::pod).map_or_else(|| "no pod".to_owned(), |pod| name(pod).to_owned())
}

fn process_name(process: Option<&Process>) -> String {
    match process {
        Some(process) => format!("{} ({})", escape(process.name()), process.pid),
        None => "the kernel (no process holds them)".to_owned(),
    }
}

/// Returns every socket that is not a listener, with its age.
fn stuck_connections(dump: &Existing, entered: &Entered) -> Vec<StuckConnection> {
    let model = time_wait_model();
    let mut listeners: HashMap<(Option<Netns>, u16), Option<Process>> = HashMap::new();
    for socket in dump.sockets.iter().filter(|socket| socket.state == TcpState::Listen) {
        let process = listeners.entry((socket.netns, socket.local.port)).or_default();
        *process = process.or(socket.process);
    }
    let age = |key: ConnKey, state: TcpState, at_least: Option<Nanos>| match entered.get(&key) {
        Some(known) if known.state == state => known.age(dump.started).or_at_least(at_least),
        // A client starts without a port. The last client that started towards the same peer is at most as old.
        None if state == TcpState::SynSent => {
            let unbound = ConnKey { local: Endpoint { port: 0, ..key.local }, ..key };
            let youngest = entered.get(&unbound).map(|known| dump.started.since(known.since));
            Age::AtLeast(youngest.unwrap_or_default()).or_at_least(at_least)
        }
        _ => Age::AtLeast(at_least.unwrap_or_default()),
    };
    let full = dump.sockets.iter().filter(|socket| socket.state != TcpState::Listen).map(|socket| {
        let key = socket.key();
        let age = age(key, socket.state, socket.state_age);
        // Without a listener on its port it may be the kernel's own.
        let listener = listeners.get(&(socket.netns, socket.local.port));
        let listener = listener.filter(|_| dump.unaccepted.contains(&socket.cookie));
        let bare = StuckConnection {
            process: listener.copied().flatten(),
            not_accepted: Some(listener.is_some()),
            ..bare(key, socket.state, age)
        };
        of_socket(socket, bare)
    });
    let minisocks = dump.minisocks.iter().map(|socket| {
        let key = socket.key();
        let age = age(key, socket.state, least_age(socket, model));
        let listener = listeners.get(&(socket.netns, socket.local.port)).copied().flatten();
        of_minisock(socket, listener, bare(key, socket.state, age))
    });
    full.chain(minisocks).collect()
}

/// Returns a stuck connection with only the properties that every socket has.
fn bare(ConnKey { netns, local, remote }: ConnKey, state: TcpState, age: Age) -> StuckConnection {
    StuckConnection {
        state,
        age,
        local,
        remote,
        netns,
        cgroup_id: None,
        process: None,
        interface: None,
        unread_bytes: None,
        unacked_bytes: None,
        ends_in: None,
        not_accepted: None,
    }
}

fn of_socket(socket: &ExistingSocket, bare: StuckConnection) -> StuckConnection {
    // `connect()` sets the sequence numbers only when it sends the SYN, which Fast Open defers to the first write.
    let sent = socket.info.filter(|info| socket.state != TcpState::SynSent || info.segments_sent > 0);
    StuckConnection {
        cgroup_id: socket.cgroup_id,
        process: socket.process.or(bare.process),
        interface: socket.interface,
        unread_bytes: socket.info.map(|info| info.unread_bytes),
        unacked_bytes: sent.map(|info| info.unacked_bytes),
        ..bare
    }
}

fn of_minisock(socket: &SocketSnapshot, listener: Option<Process>, bare: StuckConnection) -> StuckConnection {
    StuckConnection {
        process: listener.filter(|_| socket.request),
        interface: socket.interface,
        ends_in: socket.timer.filter(|_| socket.timewait).map(|timer| timer.expires.into()),
        ..bare
    }
}

/// Returns the least time in the state, from the kernel's timer. A half-open handshake has waited for all intervals before
/// the current one. A timewait socket has a fixed lifetime, which the kernel's settings determine.
fn least_age(socket: &SocketSnapshot, model: TimeWaitModel) -> Option<Nanos> {
    let timer = socket.timer?;
    let left = Nanos::from(timer.expires);
    if socket.request {
        return half_open_age_at_least(left);
    }
    model.age_at_least(socket.state, left)
}
