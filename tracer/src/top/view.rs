//! Draws the screen: header, tabs, diagram, tables and footer.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};
use tracer_core::{analysis::Edge, counted::counted, event::TcpState};

use crate::{
    report::{DIAGRAM_HEIGHT, DIAGRAM_WIDTH, Piece, PieceKind, diagram, duration_text},
    top::{EdgeLine, Screen, Settings, StateLine, Tab, Theme, popup, tables},
};

/// The smallest useful table beside or below the diagram, columns and lines.
const MIN_TABLE: (u16, u16) = (50, 8);
/// From this width on, the table goes beside the diagram even when it fits below.
const COMFORTABLE_WIDTH: u16 = 96;

/// The regions that react to the mouse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// The tab line.
    pub tabs: Rect,
    /// The lines of the focused table.
    pub rows: Rect,
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen, settings: &Settings, theme: Theme) -> Regions {
    let area = frame.area();
    let line = |y: u16| Rect { y: area.y + y, height: 1.min(area.height), ..area };
    if area.height < 4 || area.width < 20 {
        frame.render_widget(Line::raw("too small"), line(0));
        return Regions::default();
    }
    frame.render_widget(head(screen, settings, theme), line(0));
    frame.render_widget(tab_line(settings, theme), line(1));
    let body = Rect { y: area.y + 2, height: area.height - 3, ..area };
    let rows = draw_body(frame, body, screen, settings, theme);
    frame.render_widget(foot(settings, rows.height > 0, theme), line(area.height - 1));
    if settings.detail {
        match settings.opened_connection(screen) {
            Some(connection) => popup::detail(frame, connection, screen.now, theme),
            None if settings.opened.is_some() => popup::gone(frame, theme),
            None => {}
        }
    }
    if settings.help {
        popup::help(frame, theme);
    }
    Regions { tabs: line(1), rows }
}

fn draw_body(frame: &mut Frame<'_>, body: Rect, screen: &Screen, settings: &Settings, theme: Theme) -> Rect {
    let wide = body.width >= DIAGRAM_WIDTH + MIN_TABLE.0 && body.height >= DIAGRAM_HEIGHT;
    let high = body.height >= DIAGRAM_HEIGHT + 1 + MIN_TABLE.1 && body.width >= DIAGRAM_WIDTH;
    let beside = wide && body.width >= DIAGRAM_WIDTH + COMFORTABLE_WIDTH;
    if high && !beside {
        // The diagram is centered, and the table below takes the whole width.
        let left = (body.width - DIAGRAM_WIDTH) / 2;
        let top = Rect { x: body.x + left, width: DIAGRAM_WIDTH, height: DIAGRAM_HEIGHT, ..body };
        draw_diagram(frame, top, screen, theme);
        let below = Rect { y: top.bottom() + 1, height: body.height - DIAGRAM_HEIGHT - 1, ..body };
        return tables::draw(frame, below, (settings.tab, true), screen, settings, theme);
    }
    if wide {
        let left = Rect { width: DIAGRAM_WIDTH, ..body };
        draw_diagram(frame, left, screen, theme);
        if high {
            // A second table fits below the diagram.
            let below =
                Rect { y: left.y + DIAGRAM_HEIGHT + 1, height: left.height - DIAGRAM_HEIGHT - 1, ..left };
            let other = if settings.tab == Tab::Owners { Tab::Stuck } else { Tab::Owners };
            tables::draw(frame, below, (other, false), screen, settings, theme);
        }
        let right = Rect { x: body.x + DIAGRAM_WIDTH, width: body.width - DIAGRAM_WIDTH, ..body };
        return tables::draw(frame, right, (settings.tab, true), screen, settings, theme);
    }
    if settings.tab == Tab::Diagram {
        draw_diagram(frame, body, screen, theme);
        return Rect::default();
    }
    tables::draw(frame, body, (settings.tab, true), screen, settings, theme)
}

fn head(screen: &Screen, settings: &Settings, theme: Theme) -> Line<'static> {
    let mut spans = vec![
        Span::styled("tcptrace-bpf top", theme.title()),
        Span::raw(format!(
            "  {} open  {}  {}/s",
            screen.live,
            counted(screen.transitions, "transition"),
            screen.per_second
        )),
    ];
    if screen.missing > 0 {
        spans.push(Span::styled(format!("  {} missed", screen.missing), theme.bad()));
    }
    if screen.beyond_threshold > 0 {
        spans.push(Span::styled(format!("  {} stuck", screen.beyond_threshold), theme.bad()));
    }
    if screen.half_open > 0 {
        spans.push(Span::raw(format!("  {} half-open", screen.half_open)));
    }
    if settings.paused {
        spans.push(Span::styled("  PAUSED", theme.selected()));
    }
    Line::from(spans)
}

/// Returns the text of a tab in the tab line.
pub(super) fn tab_text(tab: Tab) -> String {
    format!(" {} {} ", tab as usize + 1, tab.name())
}

fn tab_line(settings: &Settings, theme: Theme) -> Line<'static> {
    Line::from(
        Tab::ALL
            .into_iter()
            .map(|tab| {
                Span::styled(tab_text(tab), if tab == settings.tab { theme.selected() } else { Style::new() })
            })
            .collect::<Vec<_>>(),
    )
}

/// Returns the last line: the search text, a notice, or the keys that have an effect on the selected tab.
fn foot(settings: &Settings, has_table: bool, theme: Theme) -> Line<'static> {
    if settings.searching {
        return Line::from(vec![
            Span::styled("/", theme.title()),
            Span::raw(format!("{}▏", settings.query().search)),
        ]);
    }
    if let Some(notice) = &settings.notice {
        return Line::styled(notice.clone(), theme.title());
    }
    let of_table = match settings.tab {
        _ if !has_table => "Tab next tab  ",
        Tab::Diagram | Tab::Connections | Tab::Stuck => "Enter open  / find  s sort  r reverse  f state  ",
        Tab::Owners => "Enter list  / find  s sort  r reverse  f state  ",
        Tab::Handshakes | Tab::Listeners => "Enter list  / find  s sort  r reverse  ",
    };
    Line::styled(format!("? keys  {of_table}p pause  w save  q quit"), theme.dim())
}

fn draw_diagram(frame: &mut Frame<'_>, area: Rect, screen: &Screen, theme: Theme) {
    let state_line = |state: TcpState| screen.states.iter().find(|line| line.state == state);
    let edge_line = |edge: Edge| screen.edges.iter().find(|line| line.edge == edge);
    let pieces = diagram(&|state| state_line(state).map(state_text).unwrap_or_default(), &|edge| {
        edge_line(edge).map(edge_text).unwrap_or_default()
    });
    let buffer = frame.buffer_mut();
    for Piece { x, y, text, kind } in pieces {
        let (x, y) = (area.x + x, area.y + y);
        if y >= area.bottom() || x >= area.right() {
            continue;
        }
        let style = match kind {
            PieceKind::Line => theme.dim(),
            PieceKind::State(state) => theme.state(state_line(state).is_some_and(|line| line.live > 0)),
            PieceKind::Pathological(_) => theme.bad(),
            PieceKind::Edge(edge) if edge_line(edge).is_some_and(|line| line.per_second > 0) => {
                theme.flowing()
            }
            PieceKind::Detail(_) | PieceKind::Edge(_) => Style::new(),
        };
        let width = usize::from(area.right() - x);
        if kind == PieceKind::Line {
            // Blanks of a line are transparent.
            for (x, character) in
                (x..area.right()).zip(text.chars()).filter(|(_, character)| *character != ' ')
            {
                buffer.set_string(x, y, character.to_string(), style);
            }
        } else {
            buffer.set_stringn(x, y, text, width, style);
        }
    }
}

/// Formats a state as `12 40ms/1.2s`: live connections, median and 99th percentile.
fn state_text(line: &StateLine) -> String {
    if line.state == TcpState::Listen || (line.live == 0 && line.p50.is_none()) {
        return String::new();
    }
    let times = match (line.p50, line.p99) {
        (Some(p50), Some(p99)) => format!(" {}/{}", duration_text(Some(p50)), duration_text(Some(p99))),
        _ => String::new(),
    };
    format!("{}{times}", line.live)
}

/// Formats an edge as `1234 12/s`: total and rate.
fn edge_text(line: &EdgeLine) -> String {
    if line.per_second > 0 { format!("{} {}/s", line.count, line.per_second) } else { line.count.to_string() }
}
