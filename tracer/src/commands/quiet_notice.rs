//! A line on stderr while a live run on a terminal has nothing to show.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use tracer_core::counted::counted;

use crate::{cli::Shared, event_loop::Progress};

/// Time until the first line. The time until each further one is twice that of the one before.
const FIRST: Duration = Duration::from_secs(5);

/// Says that a run is tracing, and what it has seen, until the first row or the end.
pub(super) struct QuietNotice {
    /// When the next line is due; `None` if none will come.
    due: Option<Instant>,
    interval: Duration,
    /// What comes when, as a clause.
    next: String,
}

impl QuietNotice {
    /// Waits from now on, for a command that prints rows. `cause` completes the clause "a row comes when".
    pub(super) fn until_a_row(shared: &Shared, cause: &str) -> Self {
        let filters = if shared.filter.selects() { " and passes the filters" } else { "" };
        Self::new(shared, format!("a row comes when {cause}{filters}"))
    }

    /// Waits from now on, for a command without rows during the run. `next` is a clause.
    pub(super) fn until_the_end(shared: &Shared, next: &str) -> Self {
        Self::new(shared, next.to_owned())
    }

    fn new(shared: &Shared, next: String) -> Self {
        let wanted = !shared.quiet && shared.input.is_empty() && io::stderr().is_terminal();
        Self { due: wanted.then(|| Instant::now() + FIRST), interval: FIRST, next }
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
        let seen = counted(seen, "transition");
        let open = counted(open, "connection");
        format!("tracing: {seen} seen, {open} open; {}", self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::Cli;

    fn shared(arguments: &[&str]) -> Shared {
        let words = ["tcptrace-bpf"].iter().chain(arguments).map(OsString::from);
        Cli::read(words, |_| None).unwrap().shared
    }

    #[test]
    fn the_line_says_what_was_seen_and_what_comes_next() {
        let notice = QuietNotice::until_a_row(&shared(&[]), "a connection closes");
        assert_eq!(
            notice.text(1, 0),
            "tracing: 1 transition seen, 0 connections open; a row comes when a connection closes"
        );
        let notice = QuietNotice::until_a_row(&shared(&["--failed"]), "a connection closes");
        assert!(
            notice
                .text(0, 7)
                .ends_with("7 connections open; a row comes when a connection closes and passes the filters")
        );
        let notice = QuietNotice::until_the_end(&shared(&["diagram"]), "the diagram comes at the end");
        assert_eq!(
            notice.text(3, 1),
            "tracing: 3 transitions seen, 1 connection open; the diagram comes at the end"
        );
    }

    #[test]
    fn a_recording_has_no_notice() {
        let notice = QuietNotice::until_the_end(
            &shared(&["diagram", "-i", "a.arrows"]),
            "the diagram comes at the end",
        );
        assert!(notice.due.is_none());
    }
}
