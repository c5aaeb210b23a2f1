//! What the user wants to see.

use tracer_core::event::{Endpoint, SocketId, TcpState};

use crate::top::{ConnectionLine, Screen};

/// A table, or the diagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// The state diagram.
    #[default]
    Diagram,
    /// The live connections.
    Connections,
    /// The processes that hold them.
    Owners,
    /// Handshakes in groups.
    Handshakes,
    /// Connections that stay too long in a state.
    Stuck,
}

impl Tab {
    /// Every tab, in order.
    pub const ALL: [Self; 5] =
        [Self::Diagram, Self::Connections, Self::Owners, Self::Handshakes, Self::Stuck];

    /// The name that is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Diagram => "Diagram",
            Self::Connections => "Connections",
            Self::Owners => "Owners",
            Self::Handshakes => "Handshakes",
            Self::Stuck => "Stuck",
        }
    }

    /// The tab so many places on, round about.
    #[must_use]
    pub fn moved(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// What connections are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The time in the state, the longest first.
    #[default]
    Age,
    /// The state.
    State,
    /// The process.
    Process,
    /// The remote end.
    Remote,
    /// The handshake, the longest first.
    Handshake,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Age, Self::State, Self::Process, Self::Remote, Self::Handshake];

    /// The next one, round about.
    #[must_use]
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The name that is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::State => "state",
            Self::Process => "process",
            Self::Remote => "remote",
            Self::Handshake => "handshake",
        }
    }
}

/// What the user wants to see, as the keys left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The tab in front.
    pub tab: Tab,
    /// What connections are sorted by.
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// Only connections in this state.
    pub state: Option<TcpState>,
    /// Only lines that contain this, in any case.
    pub search: String,
    /// Keys go into the search.
    pub searching: bool,
    /// The screen stands still.
    pub paused: bool,
    /// The line that is selected.
    pub selected: usize,
    /// The selected connection is shown with its timeline.
    pub detail: bool,
    /// Which connection that is; none while the one that is selected is meant.
    pub opened: Option<(SocketId, Endpoint)>,
    /// The keys are explained.
    pub help: bool,
    /// The user wants to leave.
    pub quit: bool,
}

impl Settings {
    /// The connection that is selected on a screen.
    pub fn selected_connection<'a>(&self, screen: &'a Screen) -> Option<&'a ConnectionLine> {
        let lines = match self.tab {
            Tab::Diagram | Tab::Connections => &screen.connections,
            Tab::Stuck => &screen.stuck,
            Tab::Owners | Tab::Handshakes => return None,
        };
        lines.get(self.selected.min(lines.len().checked_sub(1)?))
    }

    /// Holds on to the connection whose timeline is shown, while others come and go around it. To be called after
    /// each event of the terminal; `before` is what was selected.
    pub fn hold(&mut self, screen: &Screen, before: usize) {
        if !self.detail {
            self.opened = None;
        } else if self.opened.is_none() || self.selected != before {
            self.opened = self.selected_connection(screen).map(|line| (line.socket, line.remote));
        }
    }

    /// The connection whose timeline is shown; none when it is not listed any more.
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
