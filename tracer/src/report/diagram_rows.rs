//! The state diagram as rows, and as text for people.

use std::fmt::{self, Write as _};

use serde::Serialize;
use tracer_core::{
    analysis::{Edge, EdgeStats, LiveCounts, StateGraph, is_pathological},
    event::TcpState,
};

use crate::report::{
    TimeStyle,
    diagram_text::{diagram, diagram_lines},
    handshake_words::time,
    sink::Row,
    text,
};

/// An edge of the diagram, ready to be written; its JSON form is the contract in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub struct DiagramEdgeRow {
    r#type: &'static str,
    from: &'static str,
    to: &'static str,
    count: u64,
    failures: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
    #[serde(skip)]
    shown: ShownEdge,
}

#[derive(Clone, Debug)]
struct ShownEdge {
    edge: Edge,
    times_ns: [Option<u64>; 3],
}

impl DiagramEdgeRow {
    /// Describes what went along an edge.
    pub fn new(edge: Edge, stats: &EdgeStats) -> Self {
        let durations = &stats.durations;
        let times_ns = [durations.quantile_ns(0.5), durations.quantile_ns(0.99), durations.max_ns()];
        let [p50_us, p99_us, max_us] = times_ns.map(|ns| ns.map(text::microseconds));
        Self {
            r#type: "diagram_edge",
            from: edge.0.name(),
            to: edge.1.name(),
            count: stats.count,
            failures: stats.failures,
            p50_us,
            p99_us,
            max_us,
            shown: ShownEdge { edge, times_ns },
        }
    }
}

impl Row for DiagramEdgeRow {
    const COLUMNS: &'static [&'static str] =
        &["type", "from", "to", "count", "failures", "p50_us", "p99_us", "max_us"];

    fn header(line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        write!(
            line,
            "{:<11}   {:<11} {:>8} {:>8} {:>9} {:>9} {:>9}",
            "FROM", "TO", "COUNT", "FAILED", "P50", "P99", "MAX"
        )
    }

    fn line(&self, line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        let ShownEdge { edge: (from, to), times_ns } = &self.shown;
        let [p50, p99, max] = times_ns.map(text::duration);
        let arrow = if is_pathological(self.shown.edge) { '✕' } else { '→' };
        write!(
            line,
            "{:<11} {arrow} {:<11} {:>8} {:>8} {p50:>9} {p99:>9} {max:>9}",
            from.kernel_name(),
            to.kernel_name(),
            self.count,
            self.failures
        )
    }
}

/// How many connections are in a state, ready to be written.
#[derive(Clone, Debug, Serialize)]
pub struct DiagramStateRow {
    r#type: &'static str,
    state: &'static str,
    live: u64,
}

impl DiagramStateRow {
    /// Describes a state.
    pub fn new(state: TcpState, live: u64) -> Self {
        Self { r#type: "diagram_state", state: state.name(), live }
    }
}

impl Row for DiagramStateRow {
    const COLUMNS: &'static [&'static str] = &["type", "state", "live"];

    fn header(line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        write!(line, "{:<11} {:>8}", "STATE", "LIVE")
    }

    fn line(&self, line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        write!(line, "{:<11} {:>8}", self.state, self.live)
    }
}

/// The diagram in characters with its title, and every edge with its times below.
///
/// # Errors
///
/// None of its own: writing to a string does not fail.
pub fn write_diagram_text(
    text: &mut String,
    graph: &StateGraph,
    live: &LiveCounts,
    title: &str,
) -> fmt::Result {
    let detail = |state: TcpState| match live.of(state) {
        0 => String::new(),
        count => format!("{count} now"),
    };
    let label = |edge: Edge| graph.edge(edge).map(|stats| stats.count.to_string()).unwrap_or_default();
    writeln!(text, "{title}\n")?;
    for line in diagram_lines(&diagram(&detail, &label)) {
        writeln!(text, "{line}")?;
    }
    text.truncate(text.trim_end().len());
    text.push_str("\n\n");
    DiagramEdgeRow::header(text, false, TimeStyle::None)?;
    text.push('\n');
    for (edge, stats) in graph.edges() {
        DiagramEdgeRow::new(edge, stats).line(text, false, TimeStyle::None)?;
        text.push('\n');
    }
    Ok(())
}

/// The time that a diagram covers, in words.
pub fn diagram_title(span_ns: u64, begin: Option<String>, transitions: u64, lost: u64) -> String {
    let begin = begin.map(|begin| format!("{begin}, ")).unwrap_or_default();
    let missing = if lost > 0 { format!(", {lost} lost") } else { String::new() };
    format!("{begin}{}: {transitions} transitions{missing}", time(span_ns))
}
