//! `diagram`: the TCP state diagram of a window of time, as text, SVG or rows.

use std::{
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
};

use super::consumer::{Consumer, Progress};
use crate::{
    analysis::{LiveCounts, StateGraph},
    cli::{DiagramArguments, Shared},
    event::{Event, Timestamp},
    filter::Filter,
    lifecycle::{Observation, TcpState},
    output::{
        DiagramEdgeRow, DiagramStateRow, DiagramSvg, Format, Sink, Summary, TimeStyle, diagram_title,
        rfc3339, write_diagram_text,
    },
    source::{ClockOffset, Origin},
};

pub(super) struct Diagram {
    graph: StateGraph,
    live: LiveCounts,
    filter: Filter,
    clock: ClockOffset,
    format: Format,
    time: TimeStyle,
    svg: Option<PathBuf>,
    begun: Option<Timestamp>,
    now: Timestamp,
}

impl Diagram {
    pub(super) fn new(shared: &Shared, arguments: &DiagramArguments, origin: &Origin) -> Self {
        Self {
            graph: StateGraph::default(),
            live: LiveCounts::default(),
            filter: shared.filter(),
            clock: origin.clock,
            format: shared.output,
            time: shared.time,
            svg: arguments.svg.clone(),
            begun: None,
            now: Timestamp(0),
        }
    }

    fn title(&self, summary: &Summary) -> String {
        let begun = self.begun.unwrap_or(self.now);
        let shown = (self.time != TimeStyle::None).then(|| rfc3339(begun, self.clock).to_string());
        let transitions = self.graph.edges().map(|(_, stats)| stats.count).sum();
        let lost = summary.source.lost + summary.source.skipped.unwrap_or(0);
        diagram_title(self.now.since(begun), shown, transitions, lost)
    }

    fn write_svg(&self, file: &PathBuf, title: &str) -> io::Result<()> {
        let svg = DiagramSvg { graph: &self.graph, live: &self.live, title };
        if file.as_os_str() == "-" {
            return write!(io::stdout().lock(), "{svg}");
        }
        let written = File::create(file).and_then(|mut file| write!(file, "{svg}"));
        written.map_err(|error| {
            let name = file.display();
            io::Error::new(
                error.kind(),
                format!("{name}: {error}; give --svg a file in a directory that is there"),
            )
        })
    }

    fn write_rows(&self) -> io::Result<()> {
        let mut sink = Sink::new(io::stdout(), self.format, self.time);
        sink.begin::<DiagramEdgeRow>()?;
        for (edge, stats) in self.graph.edges() {
            sink.write(&DiagramEdgeRow::new(edge, stats))?;
        }
        // CSV has one kind of line: the edges.
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
        if self.filter.shows_observation(&observation) {
            self.graph.observe(&observation);
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.now = progress.now;
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        for (_, connection) in progress.tracker.connections() {
            if self.filter.shows_live(connection) {
                self.live.add(connection.state(), 1);
            }
        }
        // What the kernel keeps of closed connections belongs to nobody a filter could ask for.
        if self.filter.shows_all() {
            let (time_wait, fin_wait_2) = progress.tracker.mini_sockets();
            self.live.add(TcpState::TimeWait, time_wait as u64);
            self.live.add(TcpState::FinWait2, fin_wait_2 as u64);
        }
        Ok(())
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        let title = self.title(summary);
        if let Some(file) = &self.svg {
            self.write_svg(file, &title)?;
            if file.as_os_str() == "-" {
                return Ok(());
            }
        }
        match self.format {
            Format::Table | Format::Wide => {
                let mut text = String::new();
                write_diagram_text(&mut text, &self.graph, &self.live, &title).map_err(io::Error::other)?;
                io::stdout().lock().write_all(text.as_bytes())
            }
            Format::Json | Format::Csv => self.write_rows(),
        }
    }
}
