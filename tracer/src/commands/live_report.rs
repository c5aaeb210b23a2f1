//! A report that is redrawn in place on the terminal, once a second of the traced host's time.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crossterm::{
    QueueableCommand as _,
    cursor::MoveToPreviousLine,
    terminal::{Clear, ClearType},
};
use tracer_core::event::{Nanos, Timestamp};

use crate::report::{Format, TableWidth};

/// Interval of redrawing in the traced host's time.
const REFRESH: Nanos = Nanos::from_secs(1);
/// Shortest real time between two drawings. A replay passes an hour in a second.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The report on the terminal.
#[derive(Debug, Default)]
pub(super) struct LiveReport {
    is_terminal: bool,
    /// Lines of the last drawing.
    lines: u16,
    /// The traced host's time and the real time of the last drawing.
    drawn: Option<(Timestamp, Instant)>,
}

impl LiveReport {
    /// Creates a report on stdout. It is redrawn if stdout is a terminal and the format a table.
    pub(super) fn on_stdout(format: Format) -> Self {
        let table = matches!(format, Format::Table | Format::Wide);
        Self { is_terminal: table && io::stdout().is_terminal(), ..Self::default() }
    }

    /// Returns whether it is redrawn during the run.
    pub(super) fn is_redrawn(&self) -> bool {
        self.is_terminal
    }

    /// Returns whether to redraw now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.is_terminal
            && self.drawn.is_none_or(|(then, at)| now.since(then) >= REFRESH && at.elapsed() >= MIN_INTERVAL)
    }

    /// Replaces the last drawing by as much of the text as the terminal shows.
    pub(super) fn draw(&mut self, text: &str, now: Timestamp) -> io::Result<()> {
        let (width, height) = crossterm::terminal::size().unwrap_or((80, 24));
        let mut stdout = io::stdout().lock();
        let mut lines = 0;
        self.erase(&mut stdout)?;
        // The cursor ends up below the last line.
        for line in text.lines().take(usize::from(height.saturating_sub(1))) {
            // Most lines fit already; a terminal that shrinks meanwhile would wrap them.
            let mut shown = line.to_owned();
            TableWidth::Fit(width).cut(&mut shown, 0);
            writeln!(stdout, "{shown}")?;
            lines += 1;
        }
        stdout.flush()?;
        *self = Self { lines, drawn: Some((now, Instant::now())), ..*self };
        Ok(())
    }

    /// Writes the whole text at the end of the run, instead of the last drawing.
    pub(super) fn end(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        self.erase(&mut stdout)?;
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    fn erase(&self, stdout: &mut impl io::Write) -> io::Result<()> {
        if let lines @ 1.. = self.lines {
            stdout.queue(MoveToPreviousLine(lines))?.queue(Clear(ClearType::FromCursorDown))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_redrawn_at_a_limited_rate() {
        let new = LiveReport { is_terminal: true, ..LiveReport::default() };
        let drawn = |ago: Duration| LiveReport {
            lines: 1,
            drawn: Some((Timestamp(0), Instant::now().checked_sub(ago).unwrap())),
            ..new
        };
        assert!(new.is_due(Timestamp(0)), "the first");
        assert!(!LiveReport::default().is_due(Timestamp(0)), "not on a terminal");
        assert!(!drawn(Duration::ZERO).is_due(Timestamp(3_600 * REFRESH.0)));
        assert!(drawn(MIN_INTERVAL).is_due(Timestamp(REFRESH.0)));
        assert!(!drawn(MIN_INTERVAL).is_due(Timestamp(REFRESH.0 - 1)));
    }
}
