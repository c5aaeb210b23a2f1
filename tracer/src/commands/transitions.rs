//! `transitions`: a line per kernel transition, as it happens.

use std::{
    collections::HashMap,
    io::{self, Stdout},
    time::Duration,
};

use super::consumer::{Consumer, Progress};
use crate::{
    cli::Shared,
    event::{SocketId, Transition},
    filter::Filter,
    lifecycle::{Connection, Observation},
    output::{ExitReport, Sink, Summary, TransitionRow},
    owner::Attribution,
    source::{ClockOffset, Origin},
};

/// Most first transitions held back until their ports are known.
const MAX_HELD: usize = 65_536;

pub(super) struct Transitions {
    sink: Sink<Stdout>,
    filter: Filter,
    clock: ClockOffset,
    count: Option<u64>,
    /// A client's first transition has no local port yet; a server's, up to 6.14, no remote end. When
    /// the filter asks for one, it waits here for the connection's second.
    held: HashMap<SocketId, Transition>,
    /// Only when the filter asks for a cgroup.
    attribution: Option<Attribution>,
    /// None where nobody wants it.
    report: Option<ExitReport>,
}

impl Transitions {
    pub(super) fn new(shared: &Shared, origin: Origin) -> Self {
        let filter = shared.filter();
        Self {
            sink: Sink::new(io::stdout(), shared.output, shared.time),
            attribution: filter.cgroup.is_some().then_some(origin.attribution),
            filter,
            clock: origin.clock,
            count: shared.count,
            held: HashMap::new(),
            report: (!shared.quiet).then(ExitReport::default),
        }
    }

    fn shows_cgroup(&mut self, transition: &Transition, connection: Option<&Connection>) -> bool {
        let Some(attribution) = &mut self.attribution else { return true };
        let id = transition.cgroup_id.or(connection.and_then(|connection| connection.cgroup_id));
        let process = connection.and_then(|connection| connection.owner.process).or(transition.process);
        let cgroup = attribution.cgroup(id, process.as_ref(), Duration::from_nanos(transition.time.0));
        self.filter.shows_cgroup(cgroup.as_deref())
    }

    fn write(
        &mut self,
        transition: &Transition,
        connection: Option<&Connection>,
        duration_ns: Option<u64>,
    ) -> io::Result<()> {
        if !self.done()
            && self.filter.shows_transition(transition, connection, duration_ns)
            && self.shows_cgroup(transition, connection)
        {
            self.sink.write(&TransitionRow::new(transition, connection, duration_ns, self.clock))?;
        }
        Ok(())
    }
}

impl Consumer for Transitions {
    fn begin(&mut self) -> io::Result<()> {
        self.sink.begin::<TransitionRow>()
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        let (transition, duration_ns, connection) = match observation {
            Observation::Transition { transition, duration_ns, connection } => {
                (transition, duration_ns, connection)
            }
            Observation::MiniSocketEnd { event, end }
                if !self.done() && self.filter.shows_mini_socket_end(event, &end) =>
            {
                return self.sink.write(&TransitionRow::of_mini_socket(event, &end, self.clock));
            }
            Observation::Closed(closed) if self.filter.shows_connection(&closed) => {
                if let Some(report) = &mut self.report {
                    report.take(&closed);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        if self.filter.asks_for_ports() {
            if connection.is_some_and(|connection| connection.local.port == 0 || connection.remote.port == 0)
            {
                if self.held.len() < MAX_HELD {
                    self.held.insert(transition.socket, *transition);
                }
                return Ok(());
            }
            if let Some(first) = self.held.remove(&transition.socket) {
                self.write(&first, connection, None)?;
            }
        }
        self.write(transition, connection, duration_ns)
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
