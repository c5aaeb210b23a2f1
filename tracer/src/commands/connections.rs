//! `connections`: a line per connection when it closes.

use std::io::{self, Stdout};

use tracer_core::{event::ClockOffset, lifecycle::Observation};

use crate::{
    cli::Shared,
    commands::{print_exit_report, quiet_notice::QuietNotice, table_style},
    event_loop::{Consumer, Progress},
    report::{ColorChoice, ConnectionCgroups, ConnectionRow, ExitReport, Filter, Sink, Summary},
    sources::Origin,
};

pub(super) struct Connections {
    sink: Sink<Stdout>,
    filter: Filter,
    clock: ClockOffset,
    count: Option<u64>,
    cgroups: ConnectionCgroups,
    /// `None` with `--quiet`.
    report: Option<ExitReport>,
    color: ColorChoice,
    notice: QuietNotice,
}

impl Connections {
    pub(super) fn new(shared: &Shared, origin: Origin) -> Self {
        Self {
            sink: Sink::new(io::stdout(), shared.output, shared.time)
                .with_style(table_style::of_stdout(shared)),
            filter: shared.filter(),
            clock: origin.clock,
            count: shared.count,
            cgroups: ConnectionCgroups::new(origin.resolver),
            report: (!shared.quiet).then(ExitReport::default),
            color: shared.color,
            notice: QuietNotice::until_a_row(shared, "a connection closes"),
        }
    }
}

impl Consumer for Connections {
    fn begin(&mut self) -> io::Result<()> {
        self.sink.begin::<ConnectionRow>()
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.cgroups.observe(&observation);
        let Observation::Closed(closed) = observation else { return Ok(()) };
        if !self.filter.shows_connection(&closed) {
            return Ok(());
        }
        let cgroup = self.cgroups.of_closed(&closed);
        if !self.filter.shows_cgroup(cgroup.as_deref()) {
            return Ok(());
        }
        if let Some(report) = &mut self.report {
            report.take(&closed);
        }
        self.sink.write(&ConnectionRow::new(&closed, cgroup.as_deref(), self.clock))
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.notice.print_if_due(self.sink.rows(), &progress);
        self.sink.flush()
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.sink.rows() >= count)
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        print_exit_report(self.report.as_ref(), self.color);
        Ok(())
    }
}
