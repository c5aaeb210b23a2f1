//! The text of `diagram -o table`.

use std::fmt::{self, Write as _};

use tracer_core::{
    analysis::{Edge, LiveCounts, StateGraph},
    counted::counted,
    event::{Nanos, TcpState},
};

use crate::report::{
    diagram::characters::{diagram, diagram_lines},
    row::Row as _,
    rows::diagram_edge::DiagramEdgeRow,
    text::{quantity::spaced_duration, table::append_line, table_style::TableStyle},
};

/// Writes the title, the diagram in characters, and a table of every edge with its times.
///
/// # Errors
///
/// None: writing to a string does not fail.
pub fn write_diagram_text(
    text: &mut String,
    graph: &StateGraph,
    live: &LiveCounts,
    title: &str,
    style: TableStyle,
) -> fmt::Result {
    let detail = |state: TcpState| match live.of(state) {
        0 => String::new(),
        count => format!("{count} now"),
    };
    let label = |edge: Edge| graph.edge(edge).map(|stats| stats.count.to_string()).unwrap_or_default();
    writeln!(text, "{title}\n")?;
    for line in diagram_lines(&diagram(&detail, &label), style.palette) {
        writeln!(text, "{line}")?;
    }
    text.truncate(text.trim_end().len());
    text.push_str("\n\n");
    append_line(text, style.width, |line| DiagramEdgeRow::header(line, style))?;
    for (edge, stats) in graph.edges() {
        append_line(text, style.width, |line| DiagramEdgeRow::new(edge, stats).line(line, style))?;
    }
    Ok(())
}

/// Returns the title: the start, the time span, and the number of transitions.
pub fn diagram_title(span: Nanos, begin: Option<String>, transitions: u64, lost: u64) -> String {
    let begin = begin.map(|begin| format!("{begin}, ")).unwrap_or_default();
    let missing = if lost > 0 { format!(", {lost} lost") } else { String::new() };
    format!("{begin}{}: {}{missing}", spaced_duration(span), counted(transitions, "transition"))
}
