//! The width of tables on stdout.

use std::io::{self, IsTerminal as _};

use crate::report::{Format, TableWidth};

/// Returns the width of a table in this format: on a terminal as much as it shows, so that no line wraps; with `wide` all
/// columns.
pub(super) fn of_stdout(format: Format) -> TableWidth {
    let terminal = || io::stdout().is_terminal().then(crossterm::terminal::size);
    match format {
        Format::Wide => TableWidth::Wide,
        Format::Table => match terminal() {
            // A terminal of unknown size says 0.
            Some(Ok((width @ 1.., _))) => TableWidth::Fit(width),
            _ => TableWidth::Standard,
        },
        Format::Json | Format::Csv => TableWidth::Standard,
    }
}
