//! A line on stderr while a live run on a terminal has nothing to show.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use crate::{cli::Shared, event_loop::Progress, report::counted};

/// Time until the first line. The time until each further one is twice that of the one before.
const FIRST: Duration = Duration::from_secs(5);

/// Says that a run is tracing, and what it has seen, until the first row.
pub(super) struct QuietNotice {
    /// When the next line is due; `None` if none will come.
    due: Option<Instant>,
    interval: Duration,
    /// What brings a row.
    cause: &'static str,
    filters: bool,
}

impl QuietNotice {
    /// Waits from now on. `cause` completes the sentence "a row comes when".
    pub(super) fn new(shared: &Shared, cause: &'static str) -> Self {
        let wanted = !shared.quiet && shared.input.is_empty() && io::stderr().is_terminal();
        Self {
            due: wanted.then(|| Instant::now() + FIRST),
            interval: FIRST,
            cause,
            filters: shared.filter.selects(),
        }
    }

    /// Prints the line if it is due. `rows` is the number of rows so far.
    pub(super) fn print_if_due(&mut self, rows: u64, progress: &Progress<'_>) {
        // Reading the clock for each batch of a busy host is not needed: rows end the wait.
        if rows > 0 {
            self.due = None;
        }
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.interval *= 2;
        self.due = Some(now + self.interval);
        stderr_line!("{}", self.text(progress.source.seen, progress.tracker.live()));
    }

    fn text(&self, seen: u64, open: usize) -> String {
        let seen = counted(usize::try_from(seen).unwrap_or(usize::MAX), "transition");
        let open = counted(open, "connection");
        let filters = if self.filters { " and passes the filters" } else { "" };
        format!("tracing: {seen} seen, {open} open; a row comes when {}{filters}", self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_was_seen_and_what_brings_a_row() {
        let mut notice =
            QuietNotice { due: None, interval: FIRST, cause: "a connection closes", filters: false };
        assert_eq!(
            notice.text(1, 0),
            "tracing: 1 transition seen, 0 connections open; a row comes when a connection closes"
        );
        notice.filters = true;
        assert!(
            notice
                .text(0, 7)
                .ends_with("7 connections open; a row comes when a connection closes and passes the filters")
        );
    }
}
