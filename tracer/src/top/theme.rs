//! Styles, with and without color.

use ratatui::style::{Color, Modifier, Style};

/// The styles of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    colors: bool,
}

impl Theme {
    /// Uses colors, or only bold, dim and reversed text.
    pub const fn new(colors: bool) -> Self {
        Self { colors }
    }

    fn color(self, color: Color) -> Style {
        if self.colors { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn title(self) -> Style {
        self.color(Color::Reset).add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        self.color(Color::DarkGray).add_modifier(Modifier::DIM)
    }

    pub(super) fn state(self, live: bool) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if live && self.colors { style.fg(Color::Cyan) } else { style }
    }

    pub(super) fn flowing(self) -> Style {
        self.color(Color::Green)
    }

    pub(super) fn bad(self) -> Style {
        self.color(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn selected(self) -> Style {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        if self.colors { style } else { style.add_modifier(Modifier::BOLD) }
    }
}
