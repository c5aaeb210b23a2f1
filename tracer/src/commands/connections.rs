//! `connections`: a line per connection when its life ends.

use std::io::{self, Stdout};

use super::{
    consumer::{Consumer, Progress},
    tell_report,
};
use crate::{
    cli::Shared,
    filter::Filter,
    lifecycle::Observation,
    output::{ConnectionRow, ExitReport, Sink, Summary},
    owner::Attribution,
    source::{ClockOffset, Origin},
};

pub(super) struct Connections {
    sink: Sink<Stdout>,
    filter: Filter,
    clock: ClockOffset,
    count: Option<u64>,
    attribution: Attribution,
    /// None where nobody wants it.
    report: Option<ExitReport>,
}

impl Connections {
    pub(super) fn new(shared: &Shared, origin: Origin) -> Self {
        Self {
            sink: Sink::new(io::stdout(), shared.output, shared.time),
            filter: shared.filter(),
            clock: origin.clock,
            count: shared.count,
            attribution: origin.attribution,
            report: (!shared.quiet).then(ExitReport::default),
        }
    }
}

impl Consumer for Connections {
    fn begin(&mut self) -> io::Result<()> {
        self.sink.begin::<ConnectionRow>()
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.attribution.observe(&observation);
        let Observation::Closed(closed) = observation else { return Ok(()) };
        if !self.filter.shows_connection(&closed) {
            return Ok(());
        }
        let cgroup = self.attribution.of_closed(&closed);
        if !self.filter.shows_cgroup(cgroup.as_deref()) {
            return Ok(());
        }
        if let Some(report) = &mut self.report {
            report.take(&closed);
        }
        self.sink.write(&ConnectionRow::new(&closed, cgroup.as_deref(), self.clock))
    }

    fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        self.sink.flush()
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.sink.rows() >= count)
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        tell_report(self.report.as_ref());
        Ok(())
    }
}
