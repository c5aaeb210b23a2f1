//! Popups: the help, and the details of a connection.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};
use tracer_core::event::{Micros, Nanos, Timestamp};

use crate::{
    report::{bytes_text, duration_text, endpoint_text},
    top::{
        ConnectionLine, Theme,
        connection_table::age_text,
        tables::{process_text, rough_duration_text},
    },
};

/// The keys with their effects, also for the man page.
pub(crate) const KEYS: [(&str, &str); 11] = [
    ("1-6, Tab, click", "select a tab"),
    ("Up Down k j", "select a line; wheel, PgUp PgDn Home End too"),
    ("Enter", "details of a connection; connections of a group"),
    ("s", "sort this tab by the next column"),
    ("r", "reverse the order of this tab"),
    ("f", "filter connections and processes by the next state"),
    ("/", "filter this tab by text; Esc clears both filters"),
    ("p, Space", "pause"),
    ("w", "save the view as JSON in the working directory"),
    ("? h", "this help"),
    ("q, Ctrl-C", "quit; Ctrl-Z suspends"),
];

const NOTES: [&str; 5] = [
    "State: live connections, and median/99th percentile of the time in it.",
    "Edge: transitions in total and in the last second.",
    "✕: connections that closed without a FIN.",
    "Bytes and RTT are read each second; SENT/S and RECV/S need two readings.",
    "A table lists at most 1000 lines.",
];

pub(super) fn help(frame: &mut Frame<'_>, theme: Theme) {
    let keys = KEYS.map(|(key, effect)| Line::raw(format!("{key:<17} {effect}")));
    let lines = keys.into_iter().chain([Line::raw("")]).chain(NOTES.map(Line::raw)).collect();
    over(frame, " Keys ", lines, theme);
}

/// Draws the details of a connection, with the time in each state as a bar.
pub(super) fn detail(frame: &mut Frame<'_>, connection: &ConnectionLine, now: Timestamp, theme: Theme) {
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
    ];
    lines.extend(traffic(connection, now).into_iter().map(|(name, value)| field(name, value)));
    lines.push(Line::raw(""));
    // The age of the line, which may be a lower bound, is the duration of the current state.
    let last = connection.spans.len().saturating_sub(1);
    let times: Vec<(Option<Nanos>, String)> = connection
        .spans
        .iter()
        .enumerate()
        .map(|(index, span)| {
            if index == last {
                (connection.age, age_text(connection))
            } else {
                (span.duration, duration_text(span.duration))
            }
        })
        .collect();
    let longest = times.iter().filter_map(|(duration, _)| *duration).max().unwrap_or_default();
    for (index, (span, (duration, text))) in connection.spans.iter().zip(times).enumerate() {
        let cells = duration
            .and_then(|duration| (u128::from(duration.0) * 30).checked_div(u128::from(longest.0)))
            .unwrap_or(0);
        let bar = "█".repeat(usize::try_from(cells).unwrap_or(0).max(usize::from(duration.is_some())));
        let now = if index == last { " now" } else { "" };
        lines.push(Line::raw(format!("{:<11} {text:>9} {bar}{now}", span.state.kernel_name())));
    }
    if connection.incomplete {
        lines.push(Line::styled("Its start was not seen.", theme.dim()));
    }
    over(frame, " Connection ", lines, theme);
}

/// Returns the fields that show the last reading of the kernel's counters; none before the first reading.
fn traffic(connection: &ConnectionLine, now: Timestamp) -> Vec<(&'static str, String)> {
    let Some(reading) = connection.reading else { return Vec::new() };
    let counters = reading.counters;
    let bytes = |count: u64, rate: Option<u64>| match rate {
        Some(rate) => format!("{}, {}/s", bytes_text(Some(count)), bytes_text(Some(rate))),
        None => bytes_text(Some(count)),
    };
    let rtt = |time: Option<Micros>| duration_text(time.map(Nanos::from));
    let queued = |count: u32| bytes_text(Some(count.into()));
    vec![
        ("Sent      ", bytes(counters.bytes_sent, connection.sent_rate())),
        ("Received  ", bytes(counters.bytes_received, connection.received_rate())),
        ("RTT       ", format!("{}, min {}", rtt(counters.srtt), rtt(counters.min_rtt))),
        (
            "Queues    ",
            format!(
                "{} unread, {} unacknowledged, {} segments resent",
                queued(counters.unread_bytes),
                queued(counters.unacked_bytes),
                counters.retransmits
            ),
        ),
        ("Read      ", format!("{} ago", rough_duration_text(now.since(reading.read_at)))),
    ]
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
