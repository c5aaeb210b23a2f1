//! `listeners`: the listening sockets, with their queues, drops and handshakes, the worst first.
//!
//! Socket dumps, one a second, list the listeners and the half-open handshakes; events count the handshakes and show the
//! accept queue between two dumps. On a terminal, the report is redrawn once a second; otherwise it is written once, at the
//! end.

use std::{io, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tracer_core::{
    analysis::{HandshakeAttempt, ListenerActivity, ListenerProcesses, ListenerReport},
    counted::counted_as,
    event::{Event, Netns, Timestamp},
    lifecycle::Observation,
};

use crate::{
    cli::{ListenersArguments, Shared},
    commands::{
        live_report::LiveReport,
        quiet_notice::QuietNotice,
        socket_dumps::{Dumped, SocketDumps},
        table_style, trace,
    },
    event_loop::{Consumer, Progress},
    host::{Cgroup, CgroupResolver, ListenDrops, Visibility},
    report::{
        Filter, Format, ListenerDropsRow, ListenerRow, ListenerTable, Sink, Summary, TableStyle, TimeStyle,
    },
    sources::{Origin, sock_diag::WatchedListeners},
};

pub(super) fn run(shared: &Shared, arguments: &ListenersArguments) -> anyhow::Result<()> {
    let (input, first, dumps) = SocketDumps::beside(shared)?;
    let knows_abandoned = input.traces_syn_ack_retransmits;
    let hides_sockets = input.visibility.as_ref().is_some_and(Visibility::hides_sockets);
    trace::run(shared, input, |origin| {
        let mut listeners = Listeners::new(shared, arguments, origin, first, dumps, knows_abandoned);
        if hides_sockets {
            listeners.problems.push("other network namespaces are hidden from this process".to_owned());
        }
        listeners
    })
}

/// The drop counters of the watched namespaces.
type DropsByNetns = HashMap<Option<Netns>, ListenDrops>;

/// A listener to show, with its cgroup.
type Shown = (ListenerReport, Option<Arc<Cgroup>>);

struct Listeners {
    activity: ListenerActivity,
    dumps: SocketDumps,
    first_drops: DropsByNetns,
    last_drops: DropsByNetns,
    problems: Vec<String>,
    /// At the end of the run.
    processes: ListenerProcesses,
    now: Timestamp,
    cgroups: CgroupResolver,
    filter: Filter,
    format: Format,
    style: TableStyle,
    limit: usize,
    knows_abandoned: bool,
    quiet: bool,
    live: LiveReport,
    /// None if the report is redrawn on the terminal.
    notice: Option<QuietNotice>,
}

impl Listeners {
    fn new(
        shared: &Shared,
        arguments: &ListenersArguments,
        origin: Origin,
        first: WatchedListeners,
        dumps: SocketDumps,
        knows_abandoned: bool,
    ) -> Self {
        let mut filter = shared.filter();
        filter.local_ports = arguments.port.clone().or(filter.local_ports);
        let first_drops = known(first.drops);
        let live = LiveReport::on_stdout(shared.output);
        Self {
            notice: (!live.is_redrawn())
                .then(|| QuietNotice::until_the_end(shared, "the list comes at the end")),
            activity: ListenerActivity::new(first.dump),
            dumps,
            last_drops: first_drops.clone(),
            first_drops,
            problems: first.problems,
            processes: ListenerProcesses::default(),
            now: Timestamp(0),
            cgroups: origin.resolver,
            filter,
            format: shared.output,
            style: table_style::of_stdout(shared),
            limit: shared.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)),
            knows_abandoned,
            quiet: shared.quiet,
            live,
        }
    }

    fn dumped(&mut self, found: WatchedListeners) {
        self.activity.dumped(found.dump);
        self.last_drops = known(found.drops);
        self.problems.extend(found.problems);
    }

    /// Returns the listeners that the filter shows, the worst first.
    fn shown(&mut self, processes: &ListenerProcesses, now: Timestamp) -> Vec<Shown> {
        let now = Duration::from_nanos(now.0);
        let mut shown = Vec::new();
        for report in self.activity.report(processes) {
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
            style: table_style::resized(self.style),
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

impl Consumer for Listeners {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.activity.event(event);
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.activity.observe(&observation, HandshakeAttempt::ended_by(&observation).as_ref());
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        if let Some(notice) = &mut self.notice {
            notice.print_if_due(0, &progress);
        }
        if let Some(Dumped::Listeners(found)) = self.dumps.poll() {
            self.dumped(*found);
        }
        if self.live.is_due(progress.now) {
            let shown = self.shown(&ListenerProcesses::of(progress.tracker), progress.now);
            let text = self.table(&shown)?;
            self.live.draw(&text, progress.now)?;
        }
        Ok(())
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        match self.dumps.listeners_now() {
            Some(found) => self.dumped(found),
            None => self.problems.push("the last dump of the listening sockets failed; try again".to_owned()),
        }
        self.processes = ListenerProcesses::of(progress.tracker);
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
                let events = counted_as(
                    self.activity.uncounted(),
                    "event of a further local address is",
                    "events of further local addresses are",
                );
                stderr_line!("{events} not counted, because at most 10000 addresses are");
            }
        }
        Ok(())
    }
}
