//! `transitions`: a line per kernel transition, as it happens.

use std::io::{self, Stdout};

use super::{
    consumer::{Consumer, Progress},
    tell_forgotten, tell_report,
};
use crate::{
    cli::Shared,
    filter::{Filter, FirstTransitions, Turn},
    lifecycle::Observation,
    output::{ExitReport, Sink, Summary, TransitionRow},
    owner::Attribution,
    source::{ClockOffset, Origin},
};

pub(super) struct Transitions {
    sink: Sink<Stdout>,
    filter: Filter,
    clock: ClockOffset,
    count: Option<u64>,
    first: FirstTransitions,
    attribution: Attribution,
    /// None where nobody wants it.
    report: Option<ExitReport>,
}

impl Transitions {
    pub(super) fn new(shared: &Shared, origin: Origin) -> Self {
        let filter = shared.filter();
        Self {
            sink: Sink::new(io::stdout(), shared.output, shared.time),
            attribution: origin.attribution,
            first: FirstTransitions::new(&filter),
            filter,
            clock: origin.clock,
            count: shared.count,
            report: (!shared.quiet).then(ExitReport::default),
        }
    }

    fn write(&mut self, observation: Observation<'_>) -> io::Result<()> {
        let Self { filter, attribution, .. } = self;
        if !filter.shows_observation(&observation) || !filter.shows_cgroup_of(&observation, attribution) {
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
            Observation::Transition { transition, duration_ns, connection } => {
                self.sink.write(&TransitionRow::new(transition, connection, duration_ns, self.clock))
            }
            Observation::MiniSocketEnd { event, end } => {
                self.sink.write(&TransitionRow::of_mini_socket(event, &end, self.clock))
            }
            Observation::Abandoned(_) | Observation::Evicted { .. } => Ok(()),
        }
    }
}

impl Consumer for Transitions {
    fn begin(&mut self) -> io::Result<()> {
        self.sink.begin::<TransitionRow>()
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.filter.cgroup.is_some() {
            self.attribution.observe(&observation);
        }
        if let Observation::Transition { transition, connection, .. } = observation {
            match self.first.turn(transition, connection) {
                Turn::Later => return Ok(()),
                Turn::Now => {}
                Turn::After(first) => {
                    let duration_ns = None;
                    self.write(Observation::Transition { transition: &first, duration_ns, connection })?;
                }
            }
        }
        self.write(observation)
    }

    fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        self.sink.flush()
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.sink.rows() >= count)
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        if self.report.is_some() {
            tell_forgotten(&self.first);
        }
        tell_report(self.report.as_ref());
        Ok(())
    }
}
