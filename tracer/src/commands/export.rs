//! `export`: writes the closed and open connections and the transitions of a recording to Parquet or CSV files.

use std::{io, path::Path};

use tracer_core::{
    counted::counted,
    event::{ClockOffset, SocketId, Timestamp},
    lifecycle::{Connection, Observation},
};

use crate::{
    cli::{ExportArguments, Shared},
    commands::{input::Input, print_forgotten, trace},
    event_loop::{Consumer, Progress},
    report::{
        ConnectionCgroups, ConnectionRow, Filter, FirstTransitions, OpenConnectionRow, Summary,
        TransitionRow,
        export::{Destination, Partitions, Table},
        rfc3339,
    },
    sources::{Origin, recording::RecordingSource},
};

pub(super) fn run(shared: &Shared, arguments: &ExportArguments) -> anyhow::Result<()> {
    let mut shared = shared.clone();
    shared.input.clone_from(&arguments.recording);
    // Opened once, because a pipe cannot be reopened.
    let source = RecordingSource::open(&shared.input, shared.duration)?;
    // The header has the host and the run, which name the files.
    let header = source.header();
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
    let input = Input::of_recording(&shared, source);
    trace::run(&shared, input, |origin| Export::new(&shared, tables, &to, origin))
}

/// Reduces a run id to characters that are safe in a file name.
fn safe(run: &str) -> String {
    run.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

struct Export {
    tables: Vec<(Table, Partitions)>,
    filter: Filter,
    first: FirstTransitions,
    clock: ClockOffset,
    cgroups: ConnectionCgroups,
    to: String,
    quiet: bool,
    /// The end of the recording, once it is known.
    end: Option<Timestamp>,
}

impl Export {
    fn new(shared: &Shared, tables: Vec<(Table, Partitions)>, to: &Path, origin: Origin) -> Self {
        let filter = shared.filter();
        Self {
            tables,
            first: FirstTransitions::new(&filter),
            filter,
            clock: origin.clock,
            cgroups: ConnectionCgroups::new(origin.resolver),
            to: tracer_core::escape::escape(to.as_os_str().as_encoded_bytes()),
            quiet: shared.quiet,
            end: None,
        }
    }

    fn table(&mut self, wanted: Table) -> Option<&mut Partitions> {
        self.tables.iter_mut().find(|(table, _)| *table == wanted).map(|(_, partitions)| partitions)
    }

    fn has(&self, wanted: Table) -> bool {
        self.tables.iter().any(|(table, _)| *table == wanted)
    }

    fn write(&mut self, observation: Observation<'_>) -> io::Result<()> {
        let Self { filter, cgroups, clock, .. } = self;
        if !filter.shows_observation(&observation) {
            return Ok(());
        }
        let written = match observation {
            Observation::Closed(closed) => {
                let cgroup = cgroups.of_closed(&closed);
                if !filter.shows_cgroup(cgroup.as_deref()) {
                    return Ok(());
                }
                let row = ConnectionRow::new(&closed, cgroup.as_deref(), *clock);
                self.table(Table::Connections).map(|table| table.write(&row))
            }
            _ if !filter.shows_cgroup_of(&observation, cgroups) => return Ok(()),
            Observation::Transition { transition, duration, connection, .. } => {
                let row = TransitionRow::new(transition, connection, duration, *clock);
                self.table(Table::Transitions).map(|table| table.write(&row))
            }
            Observation::TimewaitEnd { event, end } => {
                let row = TransitionRow::of_timewait(event, &end, *clock);
                self.table(Table::Transitions).map(|table| table.write(&row))
            }
            Observation::Abandoned { .. }
            | Observation::Evicted { .. }
            | Observation::Accepted { .. }
            | Observation::Refused(_)
            | Observation::SegmentDropped(_) => return Ok(()),
        };
        written.transpose().map(|_| ()).map_err(io::Error::other)
    }

    fn write_open(&mut self, socket: SocketId, connection: &Connection, now: Timestamp) -> io::Result<()> {
        // The duration of a connection whose start was not seen is at least that since it was first seen, as in `top`.
        if !self.filter.shows_live(connection)
            || !self.filter.shows_duration(Some(now.since(connection.first_seen)))
        {
            return Ok(());
        }
        let cgroup = self.cgroups.of_connection(connection, now);
        if !self.filter.shows_cgroup(cgroup.as_deref()) {
            return Ok(());
        }
        let row = OpenConnectionRow::new(socket, connection, cgroup.as_deref(), now, self.clock);
        let written = self.table(Table::OpenConnections).map(|table| table.write(&row));
        written.transpose().map(|_| ()).map_err(io::Error::other)
    }
}

impl Consumer for Export {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if matches!(observation, Observation::Transition { .. }) && !self.has(Table::Transitions) {
            return Ok(());
        }
        let released = self.first.release(&observation);
        for observation in released.then(observation) {
            self.write(observation)?;
        }
        Ok(())
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.end = Some(progress.now);
        if !self.has(Table::OpenConnections) {
            return Ok(());
        }
        // The table has no order of its own, but two exports of a recording should be the same.
        let mut open: Vec<(SocketId, &Connection)> = progress.tracker.connections().collect();
        open.sort_unstable_by_key(|(socket, connection)| (connection.first_seen, *socket));
        for (socket, connection) in open {
            self.write_open(socket, connection, progress.now)?;
        }
        Ok(())
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        if !self.quiet {
            print_forgotten(&self.first);
        }
        for (table, partitions) in &mut self.tables {
            let end = self.end.map(|end| rfc3339(end, self.clock));
            partitions.finish(end).map_err(io::Error::other)?;
            if !self.quiet {
                let (rows, files) = (partitions.rows(), partitions.files());
                let rows = counted(rows, table.name().replace('_', " ").trim_end_matches('s'));
                stderr_line!("{rows} in {} written to {}", counted(files, "file"), self.to);
            }
        }
        Ok(())
    }
}
