//! Applies key presses and mouse events to the settings.

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Position;
use tracer_core::event::TcpState;

use crate::top::{Regions, Settings, Tab, view::tab_text};

/// Lines that Page Up and Page Down move.
const PAGE: usize = 10;
/// The longest search text, bytes.
const MAX_SEARCH: usize = 100;

/// The effect of a terminal event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing has changed.
    Nothing,
    /// The screen has to be redrawn.
    Redraw,
    /// The view has to be saved, and the screen redrawn.
    Save,
}

/// Applies a terminal event. `lines` is the number of lines of the focused table.
pub fn apply(settings: &mut Settings, event: &Event, regions: Regions, lines: usize) -> Effect {
    let before = settings.clone();
    let mut saves = false;
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            settings.notice = None;
            saves = saves_view(settings, *key);
            key_pressed(settings, *key, lines);
        }
        Event::Mouse(mouse) => mouse_moved(settings, *mouse, regions, lines),
        Event::Resize(..) => return Effect::Redraw,
        _ => {}
    }
    settings.selected = settings.selected.min(lines.saturating_sub(1));
    match (saves, *settings == before) {
        (true, _) => Effect::Save,
        (false, true) => Effect::Nothing,
        (false, false) => Effect::Redraw,
    }
}

/// Returns whether a key asks to save the view. In a search it is a letter.
fn saves_view(settings: &Settings, key: KeyEvent) -> bool {
    !settings.searching && key.modifiers.is_empty() && key.code == KeyCode::Char('w')
}

fn key_pressed(settings: &mut Settings, key: KeyEvent, lines: usize) {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        settings.quit |= matches!(key.code, KeyCode::Char('c' | 'd'));
        return;
    }
    if settings.searching {
        search(settings, key.code);
        return;
    }
    if settings.help || settings.detail {
        // A popup closes before the keys act on the screen.
        let (help, detail) = (settings.help, settings.detail);
        if matches!(key.code, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?' | 'h')) {
            settings.help = false;
            settings.detail = detail && help;
            return;
        }
    }
    match key.code {
        KeyCode::Char('q') => settings.quit = true,
        KeyCode::Char('?' | 'h') => settings.help = true,
        KeyCode::Char('p' | ' ') => settings.paused = !settings.paused,
        KeyCode::Char('s') => {
            let tab = settings.tab;
            settings.query_mut().next_sort(tab);
        }
        KeyCode::Char('r') => {
            let query = settings.query_mut();
            query.reversed = !query.reversed;
        }
        KeyCode::Char('f') if settings.tab.has_states() => {
            let query = settings.query_mut();
            query.state = next_state(query.state);
        }
        KeyCode::Char('/') => settings.searching = true,
        KeyCode::Esc => {
            let query = settings.query_mut();
            query.search.clear();
            query.state = None;
        }
        KeyCode::Char(digit @ '1'..='6') => to_tab(settings, Tab::ALL[digit as usize - '1' as usize]),
        KeyCode::Tab | KeyCode::Right => to_tab(settings, settings.tab.moved(1)),
        KeyCode::BackTab | KeyCode::Left => to_tab(settings, settings.tab.moved(Tab::ALL.len() - 1)),
        KeyCode::Enter => settings.detail = true,
        KeyCode::Up | KeyCode::Char('k') => settings.selected = settings.selected.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => settings.selected += 1,
        KeyCode::PageUp => settings.selected = settings.selected.saturating_sub(PAGE),
        KeyCode::PageDown => settings.selected += PAGE,
        KeyCode::Home => settings.selected = 0,
        KeyCode::End => settings.selected = lines,
        _ => {}
    }
}

fn search(settings: &mut Settings, key: KeyCode) {
    settings.searching &= !matches!(key, KeyCode::Enter | KeyCode::Esc);
    let text = &mut settings.query_mut().search;
    match key {
        KeyCode::Esc => text.clear(),
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char(character) if text.len() < MAX_SEARCH => text.push(character),
        _ => {}
    }
}

fn to_tab(settings: &mut Settings, tab: Tab) {
    if settings.tab != tab {
        settings.tab = tab;
        settings.selected = 0;
        settings.detail = false;
    }
}

/// Returns the next state filter: each state that a live connection can have, then none.
fn next_state(state: Option<TcpState>) -> Option<TcpState> {
    let of_connections = || {
        TcpState::ALL
            .into_iter()
            .filter(|state| !matches!(state, TcpState::Closed | TcpState::Listen | TcpState::TimeWait))
    };
    match state {
        None => of_connections().next(),
        Some(now) => of_connections().skip_while(|state| *state != now).nth(1),
    }
}

fn mouse_moved(settings: &mut Settings, mouse: MouseEvent, regions: Regions, lines: usize) {
    let at = Position { x: mouse.column, y: mouse.row };
    match mouse.kind {
        MouseEventKind::ScrollUp => settings.selected = settings.selected.saturating_sub(1),
        MouseEventKind::ScrollDown => settings.selected += 1,
        MouseEventKind::Down(MouseButton::Left) if regions.tabs.contains(at) => {
            let mut end = regions.tabs.x;
            for tab in Tab::ALL {
                end += u16::try_from(tab_text(tab).len()).unwrap_or(0);
                if at.x < end {
                    to_tab(settings, tab);
                    return;
                }
            }
        }
        MouseEventKind::Down(MouseButton::Left) if regions.rows.contains(at) => {
            // A long table is scrolled to its selection.
            let height = usize::from(regions.rows.height);
            let first = (settings.selected + 1).saturating_sub(height);
            let line = first + usize::from(at.y - regions.rows.y);
            if line < lines {
                settings.detail = settings.selected == line;
                settings.selected = line;
            }
        }
        _ => {}
    }
}
