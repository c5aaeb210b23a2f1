//! `handshakes`: which handshakes are slow, how slow, and why.
//!
//! A handshake counts when it has completed, failed or been abandoned. On a terminal, the report is redrawn once a second
//! of the traced host's time; otherwise it is written once, at the end.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use crossterm::{
    QueueableCommand as _,
    cursor::MoveToPreviousLine,
    terminal::{Clear, ClearType},
};
use tracer_core::{
    analysis::{HandshakeAttempt, Handshakes as Analysis, HandshakesBy, HandshakesOptions},
    event::{ClockOffset, Nanos, Timestamp},
    lifecycle::Observation,
};

use crate::{
    cli::{HandshakesArguments, Shared},
    event_loop::{Consumer, Progress},
    host::Cgroup,
    report::{
        ConnectionCgroups, Filter, Format, HandshakeBucketRow, HandshakeGroupRow, HandshakeTable, Sink,
        SlowHandshakeRow, Summary, TimeStyle,
    },
    sources::Origin,
};

/// Most groups in a table without `--count`.
const TABLE_GROUPS: u64 = 20;
/// Interval of redrawing in the traced host's time.
const REFRESH: Nanos = Nanos::from_secs(1);
/// Shortest real time between two drawings. A replay passes an hour in a second.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Handshakes {
    analysis: Analysis,
    format: Format,
    time: TimeStyle,
    filter: Filter,
    clock: ClockOffset,
    cgroups: ConnectionCgroups,
    limit: Option<u64>,
    live: Option<Live>,
}

/// The report on the terminal.
#[derive(Default)]
struct Live {
    lines: u16,
    /// The traced host's time and the real time of the last drawing.
    drawn: Option<(Timestamp, Instant)>,
}

impl Live {
    /// Returns whether to redraw. The end of the run always redraws.
    fn is_due(&self, now: Timestamp) -> bool {
        self.drawn.is_none_or(|(then, at)| now.since(then) >= REFRESH && at.elapsed() >= MIN_INTERVAL)
    }
}

impl Handshakes {
    pub(super) fn new(shared: &Shared, arguments: &HandshakesArguments, origin: Origin) -> Self {
        let table = matches!(shared.output, Format::Table | Format::Wide);
        Self {
            analysis: Analysis::new(HandshakesOptions {
                by: arguments.by.into(),
                slowest: arguments.slowest as usize,
                max_groups: arguments.max_groups as usize,
            }),
            format: shared.output,
            time: shared.time,
            filter: shared.filter(),
            clock: origin.clock,
            cgroups: ConnectionCgroups::new(origin.resolver),
            limit: shared.count,
            live: (table && io::stdout().is_terminal()).then(Live::default),
        }
    }

    fn needs_cgroups(&self) -> bool {
        self.analysis.by() == HandshakesBy::Container || self.filter.cgroup.is_some()
    }

    fn cgroup(&mut self, attempt: &HandshakeAttempt) -> Option<Arc<Cgroup>> {
        if !self.needs_cgroups() {
            return None;
        }
        self.cgroups.of_attempt(attempt)
    }

    fn table(&self) -> io::Result<String> {
        let groups = usize::try_from(self.limit.unwrap_or(TABLE_GROUPS)).unwrap_or(usize::MAX);
        let table =
            HandshakeTable { groups, wide: self.format == Format::Wide, time: self.time, clock: self.clock };
        let mut text = String::new();
        table.write(&self.analysis.report(), &mut text).map_err(io::Error::other)?;
        Ok(text)
    }

    fn draw(&mut self, now: Timestamp) -> io::Result<()> {
        let Some(live) = &self.live else { return Ok(()) };
        if !live.is_due(now) {
            return Ok(());
        }
        let text = self.table()?;
        let (width, height) = crossterm::terminal::size().unwrap_or((80, 24));
        let mut stdout = io::stdout().lock();
        let mut lines = 0;
        self.erase(&mut stdout)?;
        // The cursor ends up below the last line.
        for line in text.lines().take(usize::from(height.saturating_sub(1))) {
            let shown: String = line.chars().take(usize::from(width)).collect();
            writeln!(stdout, "{shown}")?;
            lines += 1;
        }
        stdout.flush()?;
        self.live = Some(Live { lines, drawn: Some((now, Instant::now())) });
        Ok(())
    }

    fn erase(&self, stdout: &mut impl io::Write) -> io::Result<()> {
        if let Some(Live { lines: lines @ 1.., .. }) = self.live {
            stdout.queue(MoveToPreviousLine(lines))?.queue(Clear(ClearType::FromCursorDown))?;
        }
        Ok(())
    }

    fn write_rows(&self) -> io::Result<()> {
        let mut sink = Sink::new(io::stdout(), self.format, self.time);
        sink.begin::<HandshakeGroupRow>()?;
        let report = self.analysis.report();
        let groups = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        for group in report.groups.iter().take(groups) {
            sink.write(&HandshakeGroupRow::new(group))?;
        }
        // CSV has only one row type: the groups.
        if self.format == Format::Json {
            for (key, attempt) in report.slowest {
                sink.write(&SlowHandshakeRow::new(key, attempt, self.clock))?;
            }
            for bucket in report.histogram.buckets() {
                sink.write(&HandshakeBucketRow::new(bucket, 0))?;
            }
        }
        sink.flush()
    }
}

impl Consumer for Handshakes {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.needs_cgroups() {
            self.cgroups.observe(&observation);
        }
        let Some(attempt) = HandshakeAttempt::ended_by(&observation) else { return Ok(()) };
        if !self.filter.shows_attempt(&attempt) {
            return Ok(());
        }
        let cgroup = self.cgroup(&attempt);
        if !self.filter.shows_cgroup(cgroup.as_deref()) {
            return Ok(());
        }
        let container = cgroup.and_then(|cgroup| {
            cgroup.owner.container.as_ref().map(|container| Arc::from(container.id.as_str()))
        });
        self.analysis.add(&attempt, container);
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.draw(progress.now)
    }

    fn done(&self) -> bool {
        false
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let text = self.table()?;
                let mut stdout = io::stdout().lock();
                self.erase(&mut stdout)?;
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            Format::Json | Format::Csv => self.write_rows(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_redrawn_at_a_limited_rate() {
        let drawn = |ago: Duration| Live {
            lines: 1,
            drawn: Some((Timestamp(0), Instant::now().checked_sub(ago).unwrap())),
        };
        assert!(Live::default().is_due(Timestamp(0)), "the first");
        assert!(!drawn(Duration::ZERO).is_due(Timestamp(3_600 * REFRESH.0)));
        assert!(drawn(MIN_INTERVAL).is_due(Timestamp(REFRESH.0)));
        assert!(!drawn(MIN_INTERVAL).is_due(Timestamp(REFRESH.0 - 1)));
    }
}
