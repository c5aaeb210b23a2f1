//! Messages on stderr, in whole lines.

use std::{
    fmt::Arguments,
    io::{self, IsTerminal as _, Write as _},
};

use crate::report::wrapped;

/// Spaces before the further lines of a message on a terminal.
const INDENT: usize = 2;

/// Prints a line on stderr, in one write, so that lines of other programs do not interrupt it. Ignores errors, because stderr
/// may be closed.
macro_rules! stderr_line {
    ($($text:tt)*) => {
        $crate::commands::messages::print(format_args!($($text)*))
    };
}

/// Prints a message of the program on stderr, in one write. On a terminal, it breaks between words.
pub fn print(message: Arguments<'_>) {
    let line = format!("tcptrace-bpf: {message}");
    write(&format!("{}\n", for_width(line, terminal_width())));
}

/// Writes text to stderr in one write. Ignores errors, because stderr may be closed.
pub(super) fn write(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn for_width(line: String, width: Option<u16>) -> String {
    match width {
        Some(width) => wrapped(&line, width.into(), INDENT),
        None => line,
    }
}

/// Returns the width of the terminal that shows stderr; none if it is no terminal, or of unknown size.
fn terminal_width() -> Option<u16> {
    if !io::stderr().is_terminal() {
        return None;
    }
    crossterm::terminal::size().ok().map(|(width, _)| width).filter(|width| *width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_breaks_only_on_a_terminal() {
        let summary = "tcptrace-bpf: 36 transitions seen, 0 lost in the ring, 8 connections closed";
        assert_eq!(for_width(summary.to_owned(), None), summary);
        assert_eq!(
            for_width(summary.to_owned(), Some(60)),
            "tcptrace-bpf: 36 transitions seen, 0 lost in the ring,\n  8 connections closed"
        );
    }
}
