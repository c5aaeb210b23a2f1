//! `diagram`: the TCP state diagram of a time window, as text, SVG or rows.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tracer_core::{
    analysis::{LiveCounts, StateGraph},
    event::{ClockOffset, Event, TcpState, Timestamp},
    lifecycle::Observation,
};

use crate::{
    cli::{DiagramArguments, Shared},
    commands::{quiet_notice::QuietNotice, table_style, trace},
    event_loop::{Consumer, Progress},
    recording::create_new,
    report::{
        ConnectionCgroups, DiagramEdgeRow, DiagramStateRow, DiagramSvg, Filter, FirstTransitions, Format,
        Sink, Summary, TableStyle, TimeStyle, diagram_title, rfc3339, write_diagram_text,
    },
    sources::Origin,
};

pub(super) fn run(shared: &Shared, arguments: &DiagramArguments) -> anyhow::Result<()> {
    // Opened before the privileges are dropped, which root may need for the path.
    let svg = arguments.svg.as_deref().map(SvgTarget::open).transpose()?;
    let (svg, created) = svg.unzip();
    let result = trace::trace(shared, |origin| Diagram::new(shared, svg, origin));
    if result.is_err()
        && let Some(path) = created.flatten()
        && fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() == 0)
    {
        // Tracing never started.
        let _ = fs::remove_file(path);
    }
    result
}

/// The destination of the SVG.
enum SvgTarget {
    Stdout,
    /// An existing file keeps its content until the new diagram is written.
    File {
        path: PathBuf,
        file: File,
    },
}

impl SvgTarget {
    /// Opens the destination. Also returns its path if the file is new.
    fn open(path: &Path) -> anyhow::Result<(Self, Option<PathBuf>)> {
        if path == Path::new("-") {
            return Ok((Self::Stdout, None));
        }
        let (opened, created) = match create_new(path, 0o666) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (OpenOptions::new().write(true).create(true).truncate(false).open(path), None)
            }
            other => (other, Some(path.to_owned())),
        };
        let file =
            opened.with_context(|| format!("cannot write {}: give --svg a writable path", path.display()))?;
        Ok((Self::File { path: path.to_owned(), file }, created))
    }

    fn write(&mut self, svg: &DiagramSvg<'_>) -> io::Result<()> {
        match self {
            Self::Stdout => write!(io::stdout().lock(), "{svg}"),
            Self::File { path, file } => {
                // Pipes and devices cannot be truncated.
                let emptied = if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) };
                emptied
                    .and_then(|()| file.write_all(svg.to_string().as_bytes()))
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            }
        }
    }
}

pub(super) struct Diagram {
    graph: StateGraph,
    live: LiveCounts,
    filter: Filter,
    first: FirstTransitions,
    cgroups: ConnectionCgroups,
    clock: ClockOffset,
    format: Format,
    style: TableStyle,
    svg: Option<SvgTarget>,
    begun: Option<Timestamp>,
    now: Timestamp,
    notice: QuietNotice,
}

impl Diagram {
    fn new(shared: &Shared, svg: Option<SvgTarget>, origin: Origin) -> Self {
        let filter = shared.filter();
        Self {
            graph: StateGraph::default(),
            live: LiveCounts::default(),
            first: FirstTransitions::new(&filter),
            filter,
            cgroups: ConnectionCgroups::new(origin.resolver),
            clock: origin.clock,
            format: shared.output,
            style: table_style::of_stdout(shared),
            svg,
            begun: None,
            now: Timestamp(0),
            notice: QuietNotice::until_the_end(shared, "the diagram comes at the end"),
        }
    }

    fn title(&self, summary: &Summary) -> String {
        let begun = self.begun.unwrap_or(self.now);
        let shown = (self.style.time != TimeStyle::None).then(|| rfc3339(begun, self.clock).to_string());
        let transitions = self.graph.edges().map(|(_, stats)| stats.count).sum();
        let lost = summary.source.lost + summary.source.skipped.unwrap_or(0);
        diagram_title(self.now.since(begun), shown, transitions, lost)
    }

    fn take(&mut self, observation: &Observation<'_>) {
        if self.filter.shows_observation(observation)
            && self.filter.shows_cgroup_of(observation, &mut self.cgroups)
        {
            self.graph.observe(observation);
        }
    }

    fn write_rows(&self) -> io::Result<()> {
        let mut sink = Sink::new(io::stdout(), self.format, self.style.time);
        sink.begin::<DiagramEdgeRow>()?;
        for (edge, stats) in self.graph.edges() {
            sink.write(&DiagramEdgeRow::new(edge, stats))?;
        }
        // CSV has only one row type: the edges.
        if self.format == Format::Json {
            for state in TcpState::ALL
                .into_iter()
                .filter(|state| !matches!(state, TcpState::Closed | TcpState::Listen))
            {
                sink.write(&DiagramStateRow::new(state, self.live.of(state)))?;
            }
        }
        sink.flush()
    }
}

impl Consumer for Diagram {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.begun.get_or_insert(event.time());
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.filter.needs_cgroup() {
            self.cgroups.observe(&observation);
        }
        let released = self.first.release(&observation);
        for observation in released.then(observation) {
            self.take(&observation);
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.now = progress.now;
        self.notice.print_if_due(0, &progress);
        Ok(())
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        for (_, connection) in progress.tracker.connections() {
            if self.filter.shows_live(connection)
                && self.filter.shows_cgroup_of_live(connection, &mut self.cgroups, progress.now)
            {
                self.live.add(connection.state(), 1);
            }
        }
        // Timewait sockets have no owner that a filter could match.
        if self.filter.shows_all() {
            let (time_wait, fin_wait_2) = progress.tracker.timewait_counts();
            self.live.add(TcpState::TimeWait, time_wait as u64);
            self.live.add(TcpState::FinWait2, fin_wait_2 as u64);
        }
        Ok(())
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        let title = self.title(summary);
        if let Some(target) = &mut self.svg {
            target.write(&DiagramSvg { graph: &self.graph, live: &self.live, title: &title })?;
            if matches!(target, SvgTarget::Stdout) {
                return Ok(());
            }
        }
        match self.format {
            Format::Table | Format::Wide => {
                let mut text = String::new();
                write_diagram_text(&mut text, &self.graph, &self.live, &title, self.style)
                    .map_err(io::Error::other)?;
                io::stdout().lock().write_all(text.as_bytes())
            }
            Format::Json | Format::Csv => self.write_rows(),
        }
    }
}
