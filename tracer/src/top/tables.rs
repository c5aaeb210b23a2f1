//! Draws the tables.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Block, Cell, Paragraph, Row, Table, TableState},
};
use tracer_core::{
    counted::counted,
    escape::escape,
    event::{Nanos, Process},
};

use crate::{
    report::{bytes_text, duration_text, endpoint_text},
    top::{ConnectionLine, Query, Screen, Settings, Sort, Tab, Theme, connection_table::connections},
};

/// From this width on, a table of groups shows every column.
const WIDE: u16 = 110;

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
    let query = settings.queries.of(tab);
    let title = format!(" {}{} ", title(tab, screen), query.title());
    let title = match tab {
        Tab::Diagram | Tab::Connections => with_reading_age(title, screen, &screen.connections),
        Tab::Stuck => with_reading_age(title, screen, &screen.stuck),
        Tab::Owners | Tab::Handshakes | Tab::Listeners => title,
    };
    let block = Block::bordered().title(title).border_style(theme.dim()).title_style(theme.title());
    let inner = block.inner(area);
    let width = inner.width;
    match tab {
        Tab::Diagram | Tab::Connections => {
            let table = connections(width, &screen.connections, query.sort, screen.reads_bytes, theme);
            frame.render_stateful_widget(table.block(block), area, state);
        }
        Tab::Owners => frame.render_stateful_widget(owners(screen, theme).block(block), area, state),
        Tab::Handshakes => handshakes(frame, area, block, screen, (query, state), theme),
        Tab::Stuck => {
            let table = connections(width, &screen.stuck, query.sort, screen.reads_bytes, theme);
            frame.render_stateful_widget(table.block(block), area, state);
        }
        Tab::Listeners => {
            let table = listeners(width, screen, query, theme).block(block);
            frame.render_stateful_widget(table, area, state);
        }
    }
    Rect { y: inner.y + 1, height: inner.height.saturating_sub(1), ..inner }
}

/// Returns the name of a table with the number of its lines.
fn title(tab: Tab, screen: &Screen) -> String {
    let listed = screen.lines(tab) as u64;
    let of = |all: u64| if listed < all { format!("{listed} of {all}") } else { listed.to_string() };
    match tab {
        Tab::Diagram | Tab::Connections => format!("Connections: {}", of(screen.matching)),
        Tab::Owners => format!("Owners: {listed}"),
        Tab::Handshakes => format!("Handshakes: {}", counted(screen.handshakes.len(), "group")),
        Tab::Stuck => format!("Stuck: {} beyond their threshold", of(screen.beyond_threshold)),
        Tab::Listeners if screen.listeners.is_none() => {
            "Listeners: not in a recording, which has no accept queues".to_owned()
        }
        Tab::Listeners => format!("Listeners: {listed}, {} half-open handshakes", screen.half_open),
    }
}

/// Adds how old the bytes and round-trip times of these lines are, and how many connections are not read.
fn with_reading_age(title: String, screen: &Screen, lines: &[ConnectionLine]) -> String {
    let Some(read_at) = lines.iter().filter_map(|line| Some(line.reading?.read_at)).min() else {
        return title;
    };
    let age = rough_duration_text(screen.now.since(read_at));
    let unread = match screen.unread_connections {
        0 => String::new(),
        count => format!(", {count} not read"),
    };
    format!("{}; bytes {age} old{unread} ", title.trim_end())
}

/// Formats a duration to the tenth of a second.
pub(super) fn rough_duration_text(duration: Nanos) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths < 600 { format!("{}.{}s", tenths / 10, tenths % 10) } else { duration_text(Some(duration)) }
}

/// Returns the width of the longest text.
pub(super) fn fitted(texts: &[String]) -> u16 {
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    u16::try_from(longest).unwrap_or(u16::MAX)
}

/// Builds a table with a header and a selection.
pub(super) fn table<'a>(
    rows: impl IntoIterator<Item = Row<'a>>,
    widths: &[Constraint],
    head: impl IntoIterator<Item: Into<Cell<'a>>>,
    theme: Theme,
) -> Table<'a> {
    Table::new(rows, widths).header(Row::new(head).style(theme.title())).row_highlight_style(theme.selected())
}

/// Returns the name and id of a process, or `-`.
pub(super) fn process_text(process: Option<Process>) -> String {
    process.map_or_else(|| "-".to_owned(), |process| format!("{} ({})", escape(process.name()), process.pid))
}

/// Cuts the name in the text of [`process_text`], so that the id stays.
pub(super) fn shortened_process(text: &str, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    match text.rsplit_once(" (") {
        Some((name, id)) if id.len() + 4 <= width => {
            let kept: String = name.chars().take(width - id.len() - 3).collect();
            format!("{kept}… ({id}")
        }
        _ => text.to_owned(),
    }
}

/// A cell of a column of numbers.
fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

/// A cell of a column of numbers that may be unknown.
fn number(number: Option<u64>) -> Cell<'static> {
    right(number.map_or_else(|| "-".to_owned(), |it| it.to_string()))
}

fn listeners(width: u16, screen: &Screen, query: &Query, theme: Theme) -> Table<'static> {
    let listed = screen.listeners.as_deref().unwrap_or_default();
    let addresses: Vec<String> = listed.iter().map(|line| endpoint_text(line.local)).collect();
    let address = fitted(&addresses).clamp(8, 23);
    // A narrow table has the column that it is sorted by.
    let shows = |sort: Sort| width >= WIDE || query.sort == sort;
    let shows_rate = shows(Sort::Rate) || address <= 16;
    let rows = listed.iter().zip(addresses).map(|(line, address)| {
        let queue =
            line.queue.map_or_else(|| "-".to_owned(), |queue| format!("{}/{}", queue.length, queue.limit));
        // Linux admits one connection more than the limit.
        let is_full = line.queue.is_some_and(|queue| queue.length > queue.limit);
        let drops = line.drops.map(u64::from);
        let bad = |is_bad: bool| if is_bad { theme.bad() } else { Style::new() };
        let mut cells = vec![
            Cell::from(address),
            right(queue).style(bad(is_full)),
            number(line.half_open),
            number(drops).style(bad(drops > Some(0))),
        ];
        if shows(Sort::Count) {
            cells.push(number(line.established));
        }
        if shows_rate {
            cells.push(number(line.per_second));
        }
        if width >= WIDE {
            cells.push(number(line.abandoned));
        }
        if shows(Sort::Handshake) {
            cells.push(right(duration_text(line.handshake_p99)));
        }
        cells.extend([right(duration_text(line.accept_wait_p99)), Cell::from(process_text(line.process))]);
        Row::new(cells)
    });
    let columns = [
        (true, "LISTENER", address),
        (true, "QUEUE", 9),
        (true, "HALF-OPEN", 9),
        (true, "DROPPED", 7),
        (shows(Sort::Count), "ESTAB", 8),
        (shows_rate, "ESTAB/S", 7),
        (width >= WIDE, "ABANDONED", 9),
        (shows(Sort::Handshake), "P99", 8),
        (true, "WAIT-P99", 8),
    ];
    let (head, widths) = head_of(&columns, "PROCESS");
    table(rows.collect::<Vec<_>>(), &widths, head, theme)
}

/// Returns the titles and widths of the shown columns: the first and the last with text, the others with numbers. The last
/// takes the rest of the width.
fn head_of(
    columns: &[(bool, &'static str, u16)],
    last: &'static str,
) -> (Vec<Cell<'static>>, Vec<Constraint>) {
    let shown = columns.iter().filter(|(is_shown, ..)| *is_shown);
    let titles = shown.clone().enumerate().map(|(index, (_, title, _))| match index {
        0 => Cell::from(*title),
        _ => right((*title).to_owned()),
    });
    let widths = shown.map(|(_, _, width)| Constraint::Length(*width));
    (titles.chain([Cell::from(last)]).collect(), widths.chain([Constraint::Fill(1)]).collect())
}

fn owners(screen: &Screen, theme: Theme) -> Table<'static> {
    let name = |process: Option<Process>| {
        process.map_or_else(|| "unknown".to_owned(), |process| process_text(Some(process)))
    };
    let names: Vec<String> = screen.owners.iter().map(|owner| name(owner.process)).collect();
    let width = fitted(&names).clamp(7, 24);
    let rows = screen.owners.iter().zip(names).map(|(owner, name)| {
        let states: Vec<String> =
            owner.states.iter().map(|(state, count)| format!("{count} {}", state.kernel_name())).collect();
        let mut cells = vec![Cell::from(shortened_process(&name, width)), right(owner.count.to_string())];
        if screen.reads_bytes {
            cells.extend([owner.sent_rate, owner.received_rate].map(|rate| right(bytes_text(rate))));
        }
        cells.push(Cell::from(states.join(", ")));
        Row::new(cells)
    });
    let columns = [
        (true, "PROCESS", width),
        (true, "CONNECTIONS", 11),
        (screen.reads_bytes, "SENT/S", 7),
        (screen.reads_bytes, "RECV/S", 7),
    ];
    let (head, widths) = head_of(&columns, "STATES");
    table(rows.collect::<Vec<_>>(), &widths, head, theme)
}

fn handshakes(
    frame: &mut Frame<'_>,
    area: Rect,
    block: Block<'_>,
    screen: &Screen,
    (query, state): (&Query, &mut TableState),
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
    let table = handshake_groups(groups.width, screen, query, theme);
    frame.render_stateful_widget(table, groups, state);
    let stories =
        screen.slowest.iter().take(usize::from(slowest)).map(|(group, story)| format!("{group:<23} {story}"));
    let lines = std::iter::once(Line::styled("SLOWEST", theme.title())).chain(stories.map(Line::raw));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), slow);
    let lines =
        std::iter::once(Line::raw("")).chain(screen.histogram.iter().map(|line| Line::raw(line.as_str())));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), drawn);
}

fn handshake_groups(width: u16, screen: &Screen, query: &Query, theme: Theme) -> Table<'static> {
    let groups: Vec<String> = screen.handshakes.iter().map(|line| line.group.clone()).collect();
    // A narrow table has the column that it is sorted by.
    let shows = |sort: Sort| width >= WIDE || query.sort == sort;
    let rows = screen.handshakes.iter().map(|group| {
        let [p50, p99, max] = group.times.map(duration_text);
        let mut cells = vec![
            Cell::from(group.group.clone()),
            right(group.count.to_string()),
            right(group.per_second.to_string()),
        ];
        if shows(Sort::Failed) {
            cells.push(right(group.failed.to_string()));
        }
        if shows(Sort::Resent) {
            cells.push(right(group.resent.to_string()));
        }
        cells.extend([right(p50), right(p99)]);
        if width >= WIDE {
            cells.push(right(max));
        }
        let style = if group.is_offender { theme.bad() } else { Style::new() };
        cells.push(Cell::from(group.why.clone()).style(style));
        Row::new(cells)
    });
    let columns = [
        (true, "GROUP", fitted(&groups).clamp(8, 22)),
        (true, "COUNT", 7),
        (true, "/S", 5),
        (shows(Sort::Failed), "FAILED", 6),
        (shows(Sort::Resent), "RESENT", 6),
        (true, "P50", 8),
        (true, "P99", 8),
        (width >= WIDE, "MAX", 8),
    ];
    let (head, widths) = head_of(&columns, "WHY");
    table(rows.collect::<Vec<_>>(), &widths, head, theme)
}
