//! The settings that the user changes with keys and the mouse.

use tracer_core::event::{Endpoint, SocketId};

use crate::top::{ConnectionLine, Queries, Query, Screen};

/// A tab: the diagram or a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// The state diagram.
    #[default]
    Diagram,
    /// The live connections.
    Connections,
    /// The processes that own them.
    Owners,
    /// Handshakes in groups.
    Handshakes,
    /// Connections beyond the threshold of their state.
    Stuck,
    /// The listening sockets.
    Listeners,
}

impl Tab {
    /// Every tab, in order.
    pub const ALL: [Self; 6] =
        [Self::Diagram, Self::Connections, Self::Owners, Self::Handshakes, Self::Stuck, Self::Listeners];

    /// Returns the displayed name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Diagram => "Diagram",
            Self::Connections => "Connections",
            Self::Owners => "Owners",
            Self::Handshakes => "Handshakes",
            Self::Stuck => "Stuck",
            Self::Listeners => "Listeners",
        }
    }

    /// Returns the tab `by` positions further, with wraparound.
    #[must_use]
    pub(super) fn moved(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// The current settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The selected tab.
    pub tab: Tab,
    /// The order and the filters of each table.
    pub queries: Queries,
    /// Keys edit the search text of the selected tab.
    pub searching: bool,
    /// The screen is not updated.
    pub paused: bool,
    /// The index of the selected line.
    pub selected: usize,
    /// The details of a connection are shown.
    pub detail: bool,
    /// The connection whose details are shown; `None` before [`Settings::hold`] has fixed it.
    pub opened: Option<(SocketId, Endpoint)>,
    /// The help is shown.
    pub help: bool,
    /// A sentence in place of the keys in the last line, until the next key press.
    pub notice: Option<String>,
    /// The user has quit.
    pub quit: bool,
}

impl Settings {
    /// Returns the order and the filters of the selected tab.
    pub fn query(&self) -> &Query {
        self.queries.of(self.tab)
    }

    /// Returns the order and the filters of the selected tab, to be changed.
    pub fn query_mut(&mut self) -> &mut Query {
        self.queries.of_mut(self.tab)
    }

    /// Returns the selected connection.
    pub(super) fn selected_connection<'a>(&self, screen: &'a Screen) -> Option<&'a ConnectionLine> {
        let lines = match self.tab {
            Tab::Diagram | Tab::Connections => &screen.connections,
            Tab::Stuck => &screen.stuck,
            Tab::Owners | Tab::Handshakes | Tab::Listeners => return None,
        };
        lines.get(self.selected.min(lines.len().checked_sub(1)?))
    }

    /// Fixes the connection whose details are shown, so that it stays while lines move. Call it after each terminal
    /// event; `before` is the previous selection.
    pub fn hold(&mut self, screen: &Screen, before: usize) {
        if !self.detail {
            self.opened = None;
        } else if self.opened.is_none() || self.selected != before {
            self.opened = self.selected_connection(screen).map(|line| (line.socket, line.remote));
        }
    }

    /// Returns the connection whose details are shown; `None` when it is no longer listed.
    pub fn opened_connection<'a>(&self, screen: &'a Screen) -> Option<&'a ConnectionLine> {
        match self.opened {
            None => self.selected_connection(screen),
            Some(opened) => screen
                .connections
                .iter()
                .chain(&screen.stuck)
                .find(|line| (line.socket, line.remote) == opened),
        }
    }
}
