//! How things look, with colours and without.

use ratatui::style::{Color, Modifier, Style};

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    colours: bool,
}

impl Theme {
    /// With colours, or with bold, dim and reversed text only.
    pub const fn new(colours: bool) -> Self {
        Self { colours }
    }

    /// Without colours when `NO_COLOR` is set to anything (<https://no-color.org>).
    pub fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn title(self) -> Style {
        self.colour(Color::Reset).add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        self.colour(Color::DarkGray).add_modifier(Modifier::DIM)
    }

    pub(super) fn state(self, live: bool) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if live && self.colours { style.fg(Color::Cyan) } else { style }
    }

    pub(super) fn flowing(self) -> Style {
        self.colour(Color::Green)
    }

    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn selected(self) -> Style {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        if self.colours { style } else { style.add_modifier(Modifier::BOLD) }
    }
}
