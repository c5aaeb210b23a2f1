//! `export`: connections and transitions of a recording as files for other engines.

use std::{io, path::Path, time::Duration};

use super::{
    consumer::{Consumer, Progress},
    trace,
};
use crate::{
    cli::{ExportArguments, Shared},
    export::{Destination, Partitions, Table},
    filter::Filter,
    lifecycle::{Connection, Observation, TcpState},
    output::{ConnectionRow, Summary, TransitionRow},
    owner::Attribution,
    source::{ClockOffset, Origin, recording::RecordingSource},
};

pub(super) fn run(shared: &Shared, arguments: &ExportArguments) -> anyhow::Result<()> {
    let mut shared = shared.clone();
    shared.input.clone_from(&arguments.recording);
    // The header names the host, and the run that the files are called by.
    let header = RecordingSource::open(&shared.input, None)?.header().clone();
    let destination = if arguments.is_one_file() {
        Destination::File(arguments.to.clone())
    } else {
        Destination::Folder {
            path: arguments.to.clone(),
            host: header.host.name.clone(),
            name: format!("{}-{}", safe(&header.run), header.part),
        }
    };
    let tables = arguments
        .what
        .iter()
        .map(|table| Partitions::new(*table, arguments.format(), destination.clone(), arguments.force));
    let tables: Vec<(Table, Partitions)> = arguments.what.iter().copied().zip(tables).collect();
    let to = arguments.to.clone();
    trace::trace(&shared, |origin| Export::new(&shared, tables, &to, origin))
}

/// What a name of a file may hold.
fn safe(run: &str) -> String {
    run.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

struct Export {
    tables: Vec<(Table, Partitions)>,
    filter: Filter,
    clock: ClockOffset,
    attribution: Attribution,
    to: String,
    quiet: bool,
}

impl Export {
    fn new(shared: &Shared, tables: Vec<(Table, Partitions)>, to: &Path, origin: Origin) -> Self {
        Self {
            tables,
            filter: shared.filter(),
            clock: origin.clock,
            attribution: origin.attribution,
            to: crate::output::escape(to.as_os_str().as_encoded_bytes()),
            quiet: shared.quiet,
        }
    }

    fn table(&mut self, wanted: Table) -> Option<&mut Partitions> {
        self.tables.iter_mut().find(|(table, _)| *table == wanted).map(|(_, partitions)| partitions)
    }

    fn shows_cgroup(&mut self, id: Option<u64>, connection: Option<&Connection>, now: Duration) -> bool {
        if self.filter.cgroup.is_none() {
            return true;
        }
        let id = id.or(connection.and_then(|connection| connection.cgroup_id));
        let process = connection.and_then(|connection| connection.owner.process);
        let cgroup = self.attribution.cgroup(id, process.as_ref(), now);
        self.filter.shows_cgroup(cgroup.as_deref())
    }
}

impl Consumer for Export {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        let clock = self.clock;
        let written = match observation {
            Observation::Transition { transition, duration_ns, connection } => {
                let now = Duration::from_nanos(transition.time.0);
                if matches!(transition.from, TcpState::Closed | TcpState::Listen)
                    && let Some(connection) = connection
                {
                    self.attribution.note(connection.cgroup_id, connection.owner.process.as_ref(), now);
                }
                if self.table(Table::Transitions).is_none()
                    || !self.filter.shows_transition(transition, connection, duration_ns)
                    || !self.shows_cgroup(transition.cgroup_id, connection, now)
                {
                    return Ok(());
                }
                let row = TransitionRow::new(transition, connection, duration_ns, clock);
                self.table(Table::Transitions).map(|table| table.write(&row))
            }
            Observation::MiniSocketEnd { event, end } if self.filter.shows_mini_socket_end(event, &end) => {
                let row = TransitionRow::of_mini_socket(event, &end, clock);
                self.table(Table::Transitions).map(|table| table.write(&row))
            }
            Observation::Closed(closed) if self.filter.shows_connection(&closed) => {
                let connection = closed.connection;
                let now = Duration::from_nanos(closed.closed.0);
                let process = connection.owner.process.as_ref();
                let cgroup = self.attribution.cgroup(connection.cgroup_id, process, now);
                if !self.filter.shows_cgroup(cgroup.as_deref()) {
                    return Ok(());
                }
                let row = ConnectionRow::new(&closed, cgroup.as_deref(), clock);
                self.table(Table::Connections).map(|table| table.write(&row))
            }
            _ => return Ok(()),
        };
        written.transpose().map(|_| ()).map_err(io::Error::other)
    }

    fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        for (table, partitions) in &mut self.tables {
            partitions.finish().map_err(io::Error::other)?;
            if !self.quiet {
                let (rows, files) = (partitions.rows(), partitions.files());
                tell!("{rows} {} in {files} files written to {}", table.name(), self.to);
            }
        }
        Ok(())
    }
}
