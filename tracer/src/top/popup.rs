//! What is laid over the screen: the keys, and one connection.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use crate::{
    report::{duration_text, endpoint_text},
    top::{ConnectionLine, Theme, tables::process_text},
};

const HELP: [&str; 15] = [
    "1-5, Tab, click   diagram, connections, owners, handshakes, stuck",
    "Up Down k j       select a line; wheel, PgUp PgDn Home End too",
    "Enter             the selected connection with its timeline",
    "s                 sort by the next column",
    "r                 reverse the order",
    "f                 only connections in a state: the next one",
    "/                 only lines that contain a text; Esc ends it",
    "p, Space          pause",
    "? h               this",
    "q, Ctrl-C         end; Ctrl-Z stops it until it is told to go on",
    "",
    "In the diagram: connections now, and the median and the 99th percentile",
    "of the time that they stay in the state; at an edge: connections in all,",
    "and in the last second. ✕ ends of connections that no FIN had ended.",
    "Only the first thousand lines of a table are listed.",
];

pub(super) fn help(frame: &mut Frame<'_>, theme: Theme) {
    let lines = HELP.map(Line::raw).to_vec();
    over(frame, " Keys ", lines, theme);
}

/// One connection, with the time in each state as a bar.
pub(super) fn detail(frame: &mut Frame<'_>, connection: &ConnectionLine, theme: Theme) {
    let fact = |name: &'static str, value: String| {
        Line::from(vec![Span::styled(name, theme.title()), Span::raw(value)])
    };
    let mut lines = vec![
        fact("Local     ", endpoint_text(connection.local)),
        fact("Remote    ", endpoint_text(connection.remote)),
        fact("Role      ", connection.role.name().to_owned()),
        fact("Process   ", format!("{}, by {}", process_text(connection), connection.owner_source)),
        fact("Namespace ", connection.netns.map_or_else(|| "-".to_owned(), |netns| netns.to_string())),
        fact(
            "Handshake ",
            match connection.syn_retransmits {
                Some(1..) => format!(
                    "{}, {} sent again",
                    duration_text(connection.handshake_ns),
                    connection.syn_retransmits.unwrap_or(0)
                ),
                _ => duration_text(connection.handshake_ns),
            },
        ),
        Line::raw(""),
    ];
    let longest = connection.spans.iter().filter_map(|span| span.duration_ns).max().unwrap_or(0);
    let last = connection.spans.len().saturating_sub(1);
    for (index, span) in connection.spans.iter().enumerate() {
        let cells = span
            .duration_ns
            .and_then(|ns| (u128::from(ns) * 30).checked_div(u128::from(longest)))
            .unwrap_or(0);
        let bar =
            "█".repeat(usize::try_from(cells).unwrap_or(0).max(usize::from(span.duration_ns.is_some())));
        let now = if index == last { " now" } else { "" };
        lines.push(Line::raw(format!(
            "{:<11} {:>9} {bar}{now}",
            span.state.kernel_name(),
            duration_text(span.duration_ns)
        )));
    }
    if connection.incomplete {
        lines.push(Line::styled("Its beginning was not seen.", theme.dim()));
    }
    over(frame, " Connection ", lines, theme);
}

/// The connection that was shown is not listed any more.
pub(super) fn gone(frame: &mut Frame<'_>, theme: Theme) {
    over(
        frame,
        " Connection ",
        vec![Line::raw("It has closed, or is not among those that are listed any more.")],
        theme,
    );
}

fn over(frame: &mut Frame<'_>, title: &'static str, lines: Vec<Line<'_>>, theme: Theme) {
    let area = frame.area();
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let popup: Rect = area.centered(Constraint::Max(76), Constraint::Max(height));
    frame.render_widget(Clear, popup);
    let block = Block::bordered().title(title).title_style(theme.title());
    frame.render_widget(Paragraph::new(lines).block(block), popup);
}
