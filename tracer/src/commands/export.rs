//! `export`: connections and transitions of a recording as files for other engines.

use std::{io, path::Path};

use tracer_core::{event::ClockOffset, lifecycle::Observation};

use crate::{
    cli::{ExportArguments, Shared},
    commands::{input::Input, print_forgotten, trace},
    event_loop::{Consumer, Progress},
    report::{
        ConnectionCgroups, ConnectionRow, Filter, FirstTransitions, Summary, TransitionRow, Turn,
        export::{Destination, Partitions, Table},
    },
    sources::{Origin, recording::RecordingSource},
};

pub(super) fn run(shared: &Shared, arguments: &ExportArguments) -> anyhow::Result<()> {
    let mut shared = shared.clone();
    shared.input.clone_from(&arguments.recording);
    // Opened once: a pipe cannot be read again.
    let source = RecordingSource::open(&shared.input, shared.duration)?;
    // The header names the host, and the run that the files are called by.
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

/// What a name of a file may hold.
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
            Observation::Transition { transition, duration_ns, connection } => {
                let row = TransitionRow::new(transition, connection, duration_ns, *clock);
                self.table(Table::Transitions).map(|table| table.write(&row))
            }
            Observation::TimewaitEnd { event, end } => {
                let row = TransitionRow::of_timewait(event, &end, *clock);
                self.table(Table::Transitions).map(|table| table.write(&row))
            }
            Observation::Abandoned(_) | Observation::Evicted { .. } => return Ok(()),
        };
        written.transpose().map(|_| ()).map_err(io::Error::other)
    }
}

impl Consumer for Export {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if let Observation::Transition { transition, connection, .. } = observation {
            if !self.has(Table::Transitions) {
                return Ok(());
            }
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
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        if !self.quiet {
            print_forgotten(&self.first);
        }
        for (table, partitions) in &mut self.tables {
            partitions.finish().map_err(io::Error::other)?;
            if !self.quiet {
                let (rows, files) = (partitions.rows(), partitions.files());
                stderr_line!("{rows} {} in {files} files written to {}", table.name(), self.to);
            }
        }
        Ok(())
    }
}
