//! `listeners`: the listening sockets, with their queues, drops and handshakes, the worst first.
//!
//! Socket dumps, one a second, list the listeners and the half-open handshakes; events count the handshakes and show the
//! accept queue between two dumps. On a terminal, the report is redrawn once a second; otherwise it is written once, at the
//! end.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hashbrown::{HashMap, hash_map::Entry};
use tracer_core::{
    analysis::{HandshakeAttempt, ListenAddress, ListenerActivity, ListenerReport},
    event::{Event, Netns, Process, TcpState, Timestamp},
    lifecycle::{Observation, Tracker},
};

use crate::{
    cli::{ListenersArguments, Shared},
    commands::{
        input::{Input, Privileges},
        live_report::LiveReport,
        trace,
    },
    event_loop::{Consumer, Progress},
    host::{Cgroup, CgroupResolver, ListenDrops, give_up_priority},
    report::{Filter, Format, ListenerDropsRow, ListenerRow, ListenerTable, Sink, Summary, TimeStyle},
    sources::{
        Origin,
        sock_diag::{ListenerWatch, WatchedListeners},
    },
};

/// Shortest time between the starts of two dumps.
const INTERVAL: Duration = Duration::from_secs(1);
/// The dumps take at most one part in this many of a processor's time.
const MAX_SHARE: u32 = 20;

pub(super) fn run(shared: &Shared, arguments: &ListenersArguments) -> anyhow::Result<()> {
    // Before the privileges are dropped, which other namespaces require.
    let mut watch = ListenerWatch::open(shared.filter.netns);
    let mut input = Input::open(shared, Privileges::Dropped)?;
    // The start may have reported the same namespace already.
    let news = watch.problems().iter().filter(|&it| !input.announcement.iter().any(|line| line.contains(it)));
    let news: Vec<String> =
        news.map(|problem| format!("the list of listeners is incomplete: {problem}")).collect();
    input.announcement.extend(news);
    // After the programs are attached and before the start is announced: what follows is in the events and in the next dump.
    let first = watch.dump();
    let dumps = DumpThread::start(watch).context(
        "the thread that dumps the listening sockets could not be started; raise the limit on threads",
    )?;
    let knows_abandoned = input.traces_syn_ack_retransmits;
    trace::run(shared, input, |origin| {
        Listeners::new(shared, arguments, origin, first, dumps, knows_abandoned)
    })
}

/// The thread that dumps the listeners. It ends when this handle is dropped.
struct DumpThread {
    requests: SyncSender<()>,
    results: Receiver<WatchedListeners>,
    /// When the running dump started; none if no dump is running.
    running: Option<Instant>,
    next: Instant,
}

impl DumpThread {
    fn start(mut watch: ListenerWatch) -> io::Result<Self> {
        let (requests, requested) = mpsc::sync_channel(1);
        let (finished, results) = mpsc::sync_channel(1);
        thread::Builder::new().name("dump".to_owned()).spawn(move || {
            give_up_priority();
            while requested.recv().is_ok() {
                if finished.send(watch.dump()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, results, running: None, next: Instant::now() + INTERVAL })
    }

    /// Starts a dump when one is due, and returns the result of the last one when it has ended.
    fn poll(&mut self) -> Option<WatchedListeners> {
        let Some(started) = self.running else {
            if Instant::now() >= self.next {
                self.request();
            }
            return None;
        };
        let found = self.results.try_recv().ok()?;
        self.running = None;
        self.next = started + INTERVAL.max(started.elapsed().saturating_mul(MAX_SHARE));
        Some(found)
    }

    /// Dumps now, and waits for the result.
    fn dump_now(&mut self) -> Option<WatchedListeners> {
        if self.running.take().is_some() {
            // It began too early.
            self.results.recv().ok()?;
        }
        self.request();
        self.running.take()?;
        self.results.recv().ok()
    }

    fn request(&mut self) {
        self.running = self.requests.try_send(()).ok().map(|()| Instant::now());
    }
}

/// The drop counters of the watched namespaces.
type DropsByNetns = HashMap<Option<Netns>, ListenDrops>;

/// The process that listens on each address; none where listeners of several processes share it.
type Processes = HashMap<ListenAddress, Option<Process>>;

/// A listener to show, with its cgroup.
type Shown = (ListenerReport, Option<Arc<Cgroup>>);

struct Listeners {
    activity: ListenerActivity,
    dumps: DumpThread,
    first_drops: DropsByNetns,
    last_drops: DropsByNetns,
    problems: Vec<String>,
    /// At the end of the run.
    processes: Processes,
    now: Timestamp,
    cgroups: CgroupResolver,
    filter: Filter,
    format: Format,
    limit: usize,
    knows_abandoned: bool,
    quiet: bool,
    live: LiveReport,
}

impl Listeners {
    fn new(
        shared: &Shared,
        arguments: &ListenersArguments,
        origin: Origin,
        first: WatchedListeners,
        dumps: DumpThread,
        knows_abandoned: bool,
    ) -> Self {
        let mut filter = shared.filter();
        filter.local_ports = arguments.port.clone().or(filter.local_ports);
        let first_drops = known(first.drops);
        Self {
            activity: ListenerActivity::new(first.dump),
            dumps,
            last_drops: first_drops.clone(),
            first_drops,
            problems: first.problems,
            processes: Processes::default(),
            now: Timestamp(0),
            cgroups: origin.resolver,
            filter,
            format: shared.output,
            limit: shared.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)),
            knows_abandoned,
            quiet: shared.quiet,
            live: LiveReport::on_stdout(shared.output),
        }
    }

    fn dumped(&mut self, found: WatchedListeners) {
        self.activity.dumped(found.dump);
        self.last_drops = known(found.drops);
        self.problems.extend(found.problems);
    }

    /// Returns the listeners that the filter shows, the worst first.
    fn shown(&mut self, processes: &Processes, now: Timestamp) -> Vec<Shown> {
        let now = Duration::from_nanos(now.0);
        let mut shown = Vec::new();
        for report in self.activity.report(|address| processes.get(&address).copied().flatten()) {
            if self.filter.shows_listener(&report) {
                let cgroup = self.cgroups.cgroup(report.socket.cgroup_id, report.process.as_ref(), now);
                if self.filter.shows_cgroup(cgroup.as_deref()) {
                    shown.push((report, cgroup));
                }
            }
        }
        shown
    }

    /// Returns the drops during the run in each namespace of these listeners.
    fn drops(&self, shown: &[Shown]) -> Vec<ListenerDropsRow> {
        let mut namespaces: Vec<Option<Netns>> =
            shown.iter().map(|(report, _)| report.socket.netns).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let during = |netns| Some(self.last_drops.get(&netns)?.since(self.first_drops.get(&netns)?));
        namespaces.into_iter().map(|netns| ListenerDropsRow::new(netns, during(netns))).collect()
    }

    fn table(&self, shown: &[Shown]) -> io::Result<String> {
        let table = ListenerTable {
            listeners: self.rows(shown).collect(),
            more: shown.len().saturating_sub(self.limit),
            drops: self.drops(shown),
            wide: self.format == Format::Wide,
        };
        let mut text = String::new();
        table.write(&mut text).map_err(io::Error::other)?;
        Ok(text)
    }

    fn rows<'a>(&self, shown: &'a [Shown]) -> impl Iterator<Item = ListenerRow<'a>> + use<'a> {
        let knows_abandoned = self.knows_abandoned;
        shown
            .iter()
            .take(self.limit)
            .map(move |(report, cgroup)| ListenerRow::new(report, cgroup.as_deref(), knows_abandoned))
    }

    fn write_rows(&self, shown: &[Shown]) -> io::Result<()> {
        let mut sink = Sink::new(io::stdout(), self.format, TimeStyle::None);
        sink.begin::<ListenerRow<'_>>()?;
        for row in self.rows(shown) {
            sink.write(&row)?;
        }
        // CSV has only one row type: the listeners.
        if self.format == Format::Json {
            for row in self.drops(shown) {
                sink.write(&row)?;
            }
        }
        sink.flush()
    }
}

/// Returns the counters that could be read.
fn known(drops: Vec<(Option<Netns>, Option<ListenDrops>)>) -> DropsByNetns {
    drops.into_iter().filter_map(|(netns, drops)| Some((netns, drops?))).collect()
}

fn processes(tracker: &Tracker) -> Processes {
    let mut processes = Processes::default();
    for (netns, local, process) in tracker.listeners() {
        match processes.entry((netns, local)) {
            Entry::Vacant(entry) => {
                entry.insert(process);
            }
            Entry::Occupied(mut entry) => {
                let same = |known: &Process| process.is_some_and(|process| process.pid == known.pid);
                let known = entry.get_mut();
                *known = known.filter(same);
            }
        }
    }
    processes
}

impl Consumer for Listeners {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Existing(socket) if socket.state == TcpState::Listen => {
                if let Some(process) = socket.process {
                    self.activity.owned(socket.cookie, process);
                }
            }
            Event::Transition(transition) => {
                if let Some(queue) = transition.accept_queue {
                    self.activity.queue_seen((transition.netns, transition.local), queue);
                }
                if let (TcpState::Listen, Some(cookie), Some(process)) =
                    (transition.to, transition.cookie, transition.process)
                {
                    self.activity.owned(cookie, process);
                }
            }
            Event::SynAckRetransmit(retransmit) => {
                if let Some(queue) = retransmit.accept_queue {
                    self.activity.queue_seen((retransmit.netns, retransmit.local), queue);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if let Observation::Accepted { connection, wait } = observation {
            self.activity.accept_waited((connection.netns, connection.local), wait.duration());
        }
        if let Some(attempt) = HandshakeAttempt::ended_by(&observation) {
            self.activity.handshake(&attempt);
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        if let Some(found) = self.dumps.poll() {
            self.dumped(found);
        }
        if self.live.is_due(progress.now) {
            let shown = self.shown(&processes(progress.tracker), progress.now);
            let text = self.table(&shown)?;
            self.live.draw(&text, progress.now)?;
        }
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        match self.dumps.dump_now() {
            Some(found) => self.dumped(found),
            None => self.problems.push("the last dump of the listening sockets failed; try again".to_owned()),
        }
        self.processes = processes(progress.tracker);
        self.now = progress.now;
        Ok(())
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        let processes = std::mem::take(&mut self.processes);
        let shown = self.shown(&processes, self.now);
        match self.format {
            Format::Table | Format::Wide => self.live.end(&self.table(&shown)?)?,
            Format::Json | Format::Csv => self.write_rows(&shown)?,
        }
        if !self.quiet {
            for problem in &self.problems {
                stderr_line!("the list of listeners is incomplete: {problem}");
            }
            if self.activity.uncounted() > 0 {
                stderr_line!(
                    "{} events of further local addresses are not counted, because at most 10000 addresses are",
                    self.activity.uncounted()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_run_on_their_thread_one_at_a_time() {
        let own = crate::sources::sock_diag::Channel::here().unwrap().netns();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut dumps = DumpThread::start(ListenerWatch::open(own)).unwrap();
        let has_listener =
            |found: &WatchedListeners| found.dump.listeners.iter().any(|it| it.local.port == port);
        assert!(dumps.poll().is_none(), "the first dump is not due yet");
        assert!(dumps.running.is_none());
        dumps.next = Instant::now();
        let end = Instant::now() + Duration::from_secs(60);
        let found = loop {
            if let Some(found) = dumps.poll() {
                break found;
            }
            assert!(Instant::now() < end);
        };
        assert!(has_listener(&found));
        assert!(dumps.next > Instant::now(), "the next dump is later");
        dumps.next = Instant::now();
        dumps.poll();
        assert!(dumps.running.is_some());
        assert!(has_listener(&dumps.dump_now().unwrap()), "after the running dump");
        assert!(has_listener(&dumps.dump_now().unwrap()));
    }
}
