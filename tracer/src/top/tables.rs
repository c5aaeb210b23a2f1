//! Draws the tables.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Block, Cell, Paragraph, Row, Table, TableState},
};
use tracer_core::{
    escape::escape,
    event::{Process, TcpState},
};

use crate::{
    report::{duration_text, endpoint_text},
    top::{ConnectionLine, Screen, Settings, Tab, Theme},
};

/// Draws a table and returns the region of its lines, below the header.
///
/// The `focused` table receives the keys and shows the selection.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    (tab, focused): (Tab, bool),
    screen: &Screen,
    settings: &Settings,
    theme: Theme,
) -> Rect {
    let count = screen.lines(tab);
    let selected = (count > 0 && focused).then(|| settings.selected.min(count.saturating_sub(1)));
    let state = &mut TableState::new().with_selected(selected);
    let title = match tab {
        Tab::Diagram | Tab::Connections => connections_title(screen, settings),
        Tab::Owners => format!(" Owners: {} ", screen.owners.len()),
        Tab::Handshakes => " Handshakes ".to_owned(),
        Tab::Stuck => format!(" Stuck: {} beyond their threshold ", screen.stuck.len()),
        Tab::Listeners => listeners_title(screen),
    };
    let block = Block::bordered().title(title).border_style(theme.dim()).title_style(theme.title());
    let inner = block.inner(area);
    match tab {
        Tab::Diagram | Tab::Connections => {
            let table = connections(area.width, &screen.connections, theme).block(block);
            frame.render_stateful_widget(table, area, state);
        }
        Tab::Owners => frame.render_stateful_widget(owners(screen, theme).block(block), area, state),
        Tab::Handshakes => handshakes(frame, area, block, screen, state, theme),
        Tab::Stuck => {
            let table = connections(area.width, &screen.stuck, theme).block(block);
            frame.render_stateful_widget(table, area, state);
        }
        Tab::Listeners => {
            let table = listeners(area.width, screen, theme).block(block);
            frame.render_stateful_widget(table, area, state);
        }
    }
    Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner }
}

fn connections_title(screen: &Screen, settings: &Settings) -> String {
    let listed = screen.connections.len() as u64;
    let of = if listed < screen.matching {
        format!("{listed} of {}", screen.matching)
    } else {
        listed.to_string()
    };
    let state = settings.state.map(|state| format!(", {}", state.kernel_name())).unwrap_or_default();
    let search = if settings.search.is_empty() { String::new() } else { format!(", /{}", settings.search) };
    let order = if settings.reversed { " reversed" } else { "" };
    format!(" Connections: {of}{state}{search}, by {}{order} ", settings.sort.name())
}

fn connections(width: u16, lines: &[ConnectionLine], theme: Theme) -> Table<'static> {
    // A narrow table omits the local address, a very narrow one also the handshake.
    let (local, handshake) = (width >= 96, width >= 74);
    let rows = lines.iter().map(|line| {
        let mut cells = vec![Cell::from(process_text(line.process))];
        if local {
            cells.push(Cell::from(endpoint_text(line.local)));
        }
        cells.push(Cell::from(endpoint_text(line.remote)));
        let style = if is_suspicious(line.state) { theme.bad() } else { Style::new() };
        cells.push(Cell::from(line.state.kernel_name()).style(style));
        let age = duration_text(line.age);
        cells.push(Cell::from(
            Line::from(if line.at_least && line.age.is_some() { format!(">{age}") } else { age })
                .right_aligned(),
        ));
        if handshake {
            cells.push(Cell::from(Line::from(duration_text(line.handshake)).right_aligned()));
        }
        Row::new(cells)
    });
    let mut head = vec!["PROCESS"];
    let mut widths = vec![Constraint::Max(40)];
    if local {
        head.push("LOCAL");
        widths.push(Constraint::Length(23));
    }
    head.extend(["REMOTE", "STATE", "      AGE"]);
    widths.extend([Constraint::Length(23), Constraint::Length(11), Constraint::Length(9)]);
    if handshake {
        head.push("HANDSHAKE");
        widths.push(Constraint::Length(9));
    }
    table(rows, &widths, head, theme)
}

/// Builds a table with a header and a selection.
fn table<'a>(
    rows: impl IntoIterator<Item = Row<'a>>,
    widths: &[Constraint],
    head: Vec<&'a str>,
    theme: Theme,
) -> Table<'a> {
    Table::new(rows, widths).header(Row::new(head).style(theme.title())).row_highlight_style(theme.selected())
}

/// Returns whether a state is short-lived on a healthy host.
fn is_suspicious(state: TcpState) -> bool {
    matches!(state, TcpState::CloseWait | TcpState::Closing | TcpState::LastAck | TcpState::SynSent)
}

pub(super) fn process_text(process: Option<Process>) -> String {
    process.map_or_else(|| "-".to_owned(), |process| format!("{} ({})", escape(process.name()), process.pid))
}

fn listeners_title(screen: &Screen) -> String {
    match &screen.listeners {
        Some(listeners) => {
            format!(" Listeners: {}, {} half-open handshakes ", listeners.len(), screen.half_open)
        }
        None => " Listeners: not in a recording, which has no accept queues ".to_owned(),
    }
}

fn listeners(width: u16, screen: &Screen, theme: Theme) -> Table<'static> {
    let wide = width >= 110;
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let number = |number: Option<u64>| right(number.map_or_else(|| "-".to_owned(), |it| it.to_string()));
    let rows = screen.listeners.iter().flatten().map(|line| {
        let queue =
            line.queue.map_or_else(|| "-".to_owned(), |queue| format!("{}/{}", queue.length, queue.limit));
        // Linux admits one connection more than the limit.
        let is_full = line.queue.is_some_and(|queue| queue.length > queue.limit);
        let drops = line.drops.map(u64::from);
        let bad = |is_bad: bool| if is_bad { theme.bad() } else { Style::new() };
        let mut cells = vec![
            Cell::from(endpoint_text(line.local)),
            right(queue).style(bad(is_full)),
            number(line.half_open),
            number(drops).style(bad(drops > Some(0))),
        ];
        if wide {
            cells.extend([number(line.established), number(line.abandoned)]);
            cells.push(right(duration_text(line.handshake_p99)));
        }
        cells.extend([right(duration_text(line.accept_wait_p99)), Cell::from(process_text(line.process))]);
        Row::new(cells)
    });
    let mut head = vec!["LISTENER", "    QUEUE", "HALF-OPEN", "DROPPED"];
    let mut widths =
        vec![Constraint::Length(23), Constraint::Length(9), Constraint::Length(9), Constraint::Length(7)];
    if wide {
        head.extend(["   ESTAB", "ABANDONED", "     P99"]);
        widths.extend([Constraint::Length(8), Constraint::Length(9), Constraint::Length(8)]);
    }
    head.extend(["WAIT-P99", "PROCESS"]);
    widths.extend([Constraint::Length(8), Constraint::Fill(1)]);
    table(rows, &widths, head, theme)
}

fn owners(screen: &Screen, theme: Theme) -> Table<'static> {
    let rows = screen.owners.iter().map(|owner| {
        let name = owner.process.map_or_else(|| "unknown".to_owned(), |process| process_text(Some(process)));
        let states: Vec<String> =
            owner.states.iter().map(|(state, count)| format!("{count} {}", state.kernel_name())).collect();
        Row::new([name, owner.count.to_string(), states.join(", ")])
    });
    let widths = [Constraint::Length(24), Constraint::Length(11), Constraint::Fill(1)];
    table(rows, &widths, vec!["PROCESS", "CONNECTIONS", "STATES"], theme)
}

fn handshakes(
    frame: &mut Frame<'_>,
    area: Rect,
    block: Block<'_>,
    screen: &Screen,
    state: &mut TableState,
    theme: Theme,
) {
    let inner = block.inner(area);
    frame.render_widget(block, area);
    // The groups, the slowest handshakes and the histogram, as far as they fit.
    let slowest = u16::try_from(screen.slowest.len()).unwrap_or(u16::MAX).min(inner.height / 3);
    let histogram = u16::try_from(screen.histogram.len()).unwrap_or(u16::MAX);
    let histogram = if histogram < inner.height / 3 { histogram } else { 0 };
    let [groups, slow, drawn] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Length(if slowest > 0 { slowest + 1 } else { 0 }),
        Constraint::Length(if histogram > 0 { histogram + 1 } else { 0 }),
    ])
    .areas(inner);
    handshake_groups(frame, groups, screen, state, theme);
    let stories =
        screen.slowest.iter().take(usize::from(slowest)).map(|(group, story)| format!("{group:<23} {story}"));
    let lines = std::iter::once(Line::styled("SLOWEST", theme.title())).chain(stories.map(Line::raw));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), slow);
    let lines =
        std::iter::once(Line::raw("")).chain(screen.histogram.iter().map(|line| Line::raw(line.as_str())));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), drawn);
}

fn handshake_groups(
    frame: &mut Frame<'_>,
    area: Rect,
    screen: &Screen,
    state: &mut TableState,
    theme: Theme,
) {
    let wide = area.width >= 110;
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let rows = screen.handshakes.iter().map(|group| {
        let [p50, p99, max] = group.times.map(duration_text);
        let mut cells = vec![Cell::from(group.group.as_str()), right(group.count.to_string())];
        if wide {
            cells.extend([right(group.failed.to_string()), right(group.resent.to_string())]);
        }
        cells.extend([right(p50), right(p99)]);
        if wide {
            cells.push(right(max));
        }
        let style = if group.is_offender { theme.bad() } else { Style::new() };
        cells.push(Cell::from(group.why.as_str()).style(style));
        Row::new(cells)
    });
    let (mut head, mut widths) =
        (vec!["GROUP", "  COUNT"], vec![Constraint::Length(22), Constraint::Length(7)]);
    if wide {
        head.extend(["FAILED", "RESENT"]);
        widths.extend([Constraint::Length(6); 2]);
    }
    head.extend(["     P50", "     P99"]);
    widths.extend([Constraint::Length(8); 2]);
    if wide {
        head.push("     MAX");
        widths.push(Constraint::Length(8));
    }
    head.push("WHY");
    widths.push(Constraint::Fill(1));
    frame.render_stateful_widget(table(rows, &widths, head, theme), area, state);
}
