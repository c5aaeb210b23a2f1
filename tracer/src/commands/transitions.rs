//! `transitions`: a line per kernel transition, as it happens.

use std::io::{self, Stdout};

use tracer_core::{event::ClockOffset, lifecycle::Observation};

use crate::{
    cli::Shared,
    commands::{print_exit_report, print_forgotten, quiet_notice::QuietNotice, table_style},
    event_loop::{Consumer, Progress},
    report::{
        ColorChoice, ConnectionCgroups, ExitReport, Filter, FirstTransitions, Sink, Summary, TransitionRow,
    },
    sources::Origin,
};

pub(super) struct Transitions {
    sink: Sink<Stdout>,
    filter: Filter,
    clock: ClockOffset,
    count: Option<u64>,
    first: FirstTransitions,
    cgroups: ConnectionCgroups,
    /// `None` with `--quiet`.
    report: Option<ExitReport>,
    color: ColorChoice,
    notice: QuietNotice,
}

impl Transitions {
    pub(super) fn new(shared: &Shared, origin: Origin) -> Self {
        let filter = shared.filter();
        Self {
            sink: Sink::new(io::stdout(), shared.output, shared.time)
                .with_style(table_style::of_stdout(shared)),
            cgroups: ConnectionCgroups::new(origin.resolver),
            first: FirstTransitions::new(&filter),
            filter,
            clock: origin.clock,
            count: shared.count,
            report: (!shared.quiet).then(ExitReport::default),
            color: shared.color,
            notice: QuietNotice::until_a_row(shared, "a connection changes its state"),
        }
    }

    fn write(&mut self, observation: Observation<'_>) -> io::Result<()> {
        let Self { filter, cgroups, .. } = self;
        if !filter.shows_observation(&observation) || !filter.shows_cgroup_of(&observation, cgroups) {
            return Ok(());
        }
        match observation {
            Observation::Closed(closed) => {
                if let Some(report) = &mut self.report {
                    report.take(&closed);
                }
                Ok(())
            }
            _ if self.done() => Ok(()),
            Observation::Transition { transition, duration, connection, .. } => {
                self.sink.write(&TransitionRow::new(transition, connection, duration, self.clock))
            }
            Observation::TimewaitEnd { event, end } => {
                self.sink.write(&TransitionRow::of_timewait(event, &end, self.clock))
            }
            Observation::Abandoned { .. }
            | Observation::Evicted { .. }
            | Observation::Accepted { .. }
            | Observation::Refused(_)
            | Observation::SegmentDropped(_) => Ok(()),
        }
    }
}

impl Consumer for Transitions {
    fn begin(&mut self) -> io::Result<()> {
        self.sink.begin::<TransitionRow>()
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.filter.needs_cgroup() {
            self.cgroups.observe(&observation);
        }
        let released = self.first.release(&observation);
        for observation in released.then(observation) {
            self.write(observation)?;
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.notice.print_if_due(self.sink.rows(), &progress);
        self.sink.flush()
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.sink.rows() >= count)
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        if self.report.is_some() {
            print_forgotten(&self.first);
        }
        print_exit_report(self.report.as_ref(), self.color);
        Ok(())
    }
}
