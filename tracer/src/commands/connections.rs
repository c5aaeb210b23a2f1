//! `connections`: a line per connection when its life ends.

use std::{
    io::{self, Stdout},
    time::Duration,
};

use super::consumer::{Consumer, Progress};
use crate::{
    cli::Shared,
    filter::Filter,
    lifecycle::{Observation, TcpState},
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
        match observation {
            Observation::Transition { transition, connection: Some(connection), .. }
                if matches!(transition.from, TcpState::Closed | TcpState::Listen) =>
            {
                let now = Duration::from_nanos(transition.time.0);
                self.attribution.note(connection.cgroup_id, connection.owner.process.as_ref(), now);
                Ok(())
            }
            Observation::Closed(closed) if self.filter.shows_connection(&closed) => {
                let connection = closed.connection;
                let now = Duration::from_nanos(closed.closed.0);
                let process = connection.owner.process.as_ref();
                let cgroup = self.attribution.cgroup(connection.cgroup_id, process, now);
                if !self.filter.shows_cgroup(cgroup.as_deref()) {
                    return Ok(());
                }
                if let Some(report) = &mut self.report {
                    report.take(&closed);
                }
                self.sink.write(&ConnectionRow::new(&closed, cgroup.as_deref(), self.clock))
            }
            _ => Ok(()),
        }
    }

    fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        self.sink.flush()
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.sink.rows() >= count)
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        for line in self.report.iter().flat_map(ExitReport::lines) {
            tell!("{line}");
        }
        Ok(())
    }
}
