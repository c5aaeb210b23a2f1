//! How tables on stdout look.

use std::io::{self, IsTerminal as _};

use crate::{
    cli::Shared,
    report::{Format, TableStyle, TableWidth},
};

/// Returns the look of tables on stdout: on a terminal as wide as it is, so that no line wraps, and with colors; with
/// `--output wide` all columns.
pub(super) fn of_stdout(shared: &Shared) -> TableStyle {
    TableStyle {
        width: width(shared.output),
        time: shared.time,
        palette: shared.color.palette(&io::stdout()),
    }
}

fn width(format: Format) -> TableWidth {
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

/// Returns the look with the present width: a terminal can be resized during a run.
pub(super) fn resized(style: TableStyle) -> TableStyle {
    let format = if style.width == TableWidth::Wide { Format::Wide } else { Format::Table };
    TableStyle { width: width(format), ..style }
}
