//! `handshakes`: which handshakes are slow, how slow, and why.
//!
//! A handshake counts when it has completed, failed or been abandoned. On a terminal, the report is redrawn once a second
//! of the traced host's time; otherwise it is written once, at the end.

use std::{io, sync::Arc};

use tracer_core::{
    analysis::{HandshakeAttempt, Handshakes as Analysis, HandshakesBy, HandshakesOptions},
    event::ClockOffset,
    lifecycle::Observation,
};

use crate::{
    cli::{HandshakesArguments, Shared},
    commands::{live_report::LiveReport, quiet_notice::QuietNotice, table_style},
    event_loop::{Consumer, Progress},
    host::{Cgroup, PodNames},
    report::{
        ConnectionCgroups, Filter, Format, HandshakeBucketRow, HandshakeGroupRow, HandshakeTable, Sink,
        SlowHandshakeRow, Summary, TableStyle,
    },
    sources::Origin,
};

/// Most groups in a table without `--count`.
const TABLE_GROUPS: u64 = 20;

pub(super) struct Handshakes {
    analysis: Analysis,
    format: Format,
    style: TableStyle,
    filter: Filter,
    clock: ClockOffset,
    cgroups: ConnectionCgroups,
    limit: Option<u64>,
    live: LiveReport,
    /// None if the report is redrawn on the terminal.
    notice: Option<QuietNotice>,
}

impl Handshakes {
    pub(super) fn new(shared: &Shared, arguments: &HandshakesArguments, origin: Origin) -> Self {
        let live = LiveReport::on_stdout(shared.output);
        Self {
            notice: (!live.is_redrawn())
                .then(|| QuietNotice::until_the_end(shared, "the report comes at the end")),
            analysis: Analysis::new(HandshakesOptions {
                by: arguments.by.into(),
                slowest: arguments.slowest as usize,
                max_groups: arguments.max_groups as usize,
            }),
            format: shared.output,
            style: table_style::of_stdout(shared),
            filter: shared.filter(),
            clock: origin.clock,
            cgroups: ConnectionCgroups::new(origin.resolver),
            limit: shared.count,
            live,
        }
    }

    fn needs_cgroups(&self) -> bool {
        self.analysis.by().is_owner() || self.filter.needs_cgroup()
    }

    fn cgroup(&mut self, attempt: &HandshakeAttempt) -> Option<Arc<Cgroup>> {
        if !self.needs_cgroups() {
            return None;
        }
        self.cgroups.of_attempt(attempt)
    }

    fn table(&self) -> io::Result<String> {
        let groups = usize::try_from(self.limit.unwrap_or(TABLE_GROUPS)).unwrap_or(usize::MAX);
        let table = HandshakeTable { groups, style: table_style::resized(self.style), clock: self.clock };
        let mut text = String::new();
        table.write(&self.analysis.report(), &mut text).map_err(io::Error::other)?;
        Ok(text)
    }

    fn write_rows(&self) -> io::Result<()> {
        let mut sink = Sink::new(io::stdout(), self.format, self.style.time);
        sink.begin::<HandshakeGroupRow>()?;
        let report = self.analysis.report();
        let groups = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        for group in report.groups.iter().take(groups) {
            sink.write(&HandshakeGroupRow::new(group))?;
        }
        // CSV has only one row type: the groups.
        if self.format == Format::Json {
            for (key, attempt) in report.slowest {
                sink.write(&SlowHandshakeRow::new(key, attempt, self.clock))?;
            }
            for bucket in report.histogram.buckets() {
                sink.write(&HandshakeBucketRow::new(bucket, 0))?;
            }
        }
        sink.flush()
    }
}

/// Returns the attribute of a cgroup that handshakes are grouped by. For people, the name of a container replaces its id.
pub(super) fn owner(cgroup: &Cgroup, by: HandshakesBy, is_for_people: bool) -> Option<&str> {
    match by {
        HandshakesBy::Container => {
            let id = cgroup.owner.container.as_ref().map(|container| container.id.as_str());
            cgroup.container_name().filter(|_| is_for_people).or(id)
        }
        HandshakesBy::Pod => cgroup.pod().map(PodNames::qualified_pod),
        HandshakesBy::Namespace => cgroup.pod().map(PodNames::namespace),
        HandshakesBy::Workload => cgroup.pod().map(PodNames::qualified_workload),
        HandshakesBy::Service
        | HandshakesBy::Backend
        | HandshakesBy::Remote
        | HandshakesBy::RemotePort
        | HandshakesBy::LocalPort
        | HandshakesBy::Process
        | HandshakesBy::Role
        | HandshakesBy::None => None,
    }
}

impl Consumer for Handshakes {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.needs_cgroups() {
            self.cgroups.observe(&observation);
        }
        let Some(attempt) = HandshakeAttempt::ended_by(&observation) else { return Ok(()) };
        if !self.filter.shows_attempt(&attempt) {
            return Ok(());
        }
        let cgroup = self.cgroup(&attempt);
        if !self.filter.shows_cgroup(cgroup.as_deref()) {
            return Ok(());
        }
        let is_for_people = matches!(self.format, Format::Table | Format::Wide);
        let owner = cgroup.as_deref().and_then(|cgroup| owner(cgroup, self.analysis.by(), is_for_people));
        self.analysis.add(&attempt, owner.map(Arc::from));
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        if let Some(notice) = &mut self.notice {
            notice.print_if_due(0, &progress);
        }
        if self.live.is_due(progress.now) {
            let text = self.table()?;
            self.live.draw(&text, progress.now)?;
        }
        Ok(())
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => self.live.end(&self.table()?),
            Format::Json | Format::Csv => self.write_rows(),
        }
    }
}
