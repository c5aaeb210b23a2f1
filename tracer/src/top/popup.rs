//! Popups: the help, and the details of a connection.

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
    "1-6, Tab, click   select a tab",
    "Up Down k j       select a line; wheel, PgUp PgDn Home End too",
    "Enter             details of a connection; connections of a group",
    "s                 sort by the next column",
    "r                 reverse the order",
    "f                 filter connections by the next state",
    "/                 filter connections by text; Esc clears it",
    "p, Space          pause",
    "? h               this help",
    "q, Ctrl-C         quit; Ctrl-Z suspends",
    "",
    "State: live connections, and median/99th percentile of the time in it.",
    "Edge: transitions in total and in the last second.",
    "✕: connections that closed without a FIN.",
    "A table lists at most 1000 lines.",
];

pub(super) fn help(frame: &mut Frame<'_>, theme: Theme) {
    let lines = HELP.map(Line::raw).to_vec();
    over(frame, " Keys ", lines, theme);
}

/// Draws the details of a connection, with the time in each state as a bar.
pub(super) fn detail(frame: &mut Frame<'_>, connection: &ConnectionLine, theme: Theme) {
    let field = |name: &'static str, value: String| {
        Line::from(vec![Span::styled(name, theme.title()), Span::raw(value)])
    };
    let mut lines = vec![
        field("Local     ", endpoint_text(connection.local)),
        field("Remote    ", endpoint_text(connection.remote)),
        field("Role      ", connection.role.name().to_owned()),
        field("Process   ", format!("{}, by {}", process_text(connection.process), connection.owner_source)),
        field("Namespace ", connection.netns.map_or_else(|| "-".to_owned(), |netns| netns.to_string())),
        field(
            "Handshake ",
            match connection.syn_retransmits {
                Some(1..) => format!(
                    "{}, {} retransmitted",
                    duration_text(connection.handshake),
                    connection.syn_retransmits.unwrap_or(0)
                ),
                _ => duration_text(connection.handshake),
            },
        ),
        Line::raw(""),
    ];
    let longest = connection.spans.iter().filter_map(|span| span.duration).max().unwrap_or_default();
    let last = connection.spans.len().saturating_sub(1);
    for (index, span) in connection.spans.iter().enumerate() {
        let cells = span
            .duration
            .and_then(|duration| (u128::from(duration.0) * 30).checked_div(u128::from(longest.0)))
            .unwrap_or(0);
        let bar = "█".repeat(usize::try_from(cells).unwrap_or(0).max(usize::from(span.duration.is_some())));
        let now = if index == last { " now" } else { "" };
        lines.push(Line::raw(format!(
            "{:<11} {:>9} {bar}{now}",
            span.state.kernel_name(),
            duration_text(span.duration)
        )));
    }
    if connection.incomplete {
        lines.push(Line::styled("Its start was not seen.", theme.dim()));
    }
    over(frame, " Connection ", lines, theme);
}

/// Draws the notice that the shown connection is no longer listed.
pub(super) fn gone(frame: &mut Frame<'_>, theme: Theme) {
    over(
        frame,
        " Connection ",
        vec![Line::raw("It has closed, or is no longer among the listed lines.")],
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
