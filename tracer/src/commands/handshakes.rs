//! `handshakes`: who is slow to open, how slow, and why.
//!
//! A handshake counts when it is over: completed, failed, or given up by the kernel. On a terminal the report
//! is drawn again about once a second of the traced host's time; everywhere else it comes once, at the end.

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
    event::{ClockOffset, Timestamp},
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

/// Most groups in a table unless `--count` says otherwise.
const TABLE_GROUPS: u64 = 20;
/// How often the report is drawn again, in the traced host's time.
const REFRESH_NS: u64 = 1_000_000_000;
/// How soon it may be drawn again, of any time's passing: a replay passes an hour in a second.
const PAUSE: Duration = Duration::from_millis(100);

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

/// What is drawn on the terminal now.
#[derive(Default)]
struct Live {
    lines: u16,
    /// The traced host's time, and this one's.
    drawn: Option<(Timestamp, Instant)>,
}

impl Live {
    /// Whether it is time to draw. The end draws in any case.
    fn is_due(&self, now: Timestamp) -> bool {
        self.drawn.is_none_or(|(then, at)| now.since(then) >= REFRESH_NS && at.elapsed() >= PAUSE)
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

    fn asks_for_cgroups(&self) -> bool {
        self.analysis.by() == HandshakesBy::Container || self.filter.cgroup.is_some()
    }

    fn cgroup(&mut self, opening: &HandshakeAttempt) -> Option<Arc<Cgroup>> {
        if !self.asks_for_cgroups() {
            return None;
        }
        self.cgroups.of_attempt(opening)
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
        // The cursor stands below the last line.
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
        // CSV has one kind of line: the groups.
        if self.format == Format::Json {
            for (key, opening) in report.slowest {
                sink.write(&SlowHandshakeRow::new(key, opening, self.clock))?;
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
        if self.asks_for_cgroups() {
            self.cgroups.observe(&observation);
        }
        let Some(opening) = HandshakeAttempt::ended_by(&observation) else { return Ok(()) };
        if !self.filter.shows_attempt(&opening) {
            return Ok(());
        }
        let cgroup = self.cgroup(&opening);
        if !self.filter.shows_cgroup(cgroup.as_deref()) {
            return Ok(());
        }
        let container = cgroup.and_then(|cgroup| {
            cgroup.owner.container.as_ref().map(|container| Arc::from(container.id.as_str()))
        });
        self.analysis.add(&opening, container);
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
    fn a_replay_is_drawn_no_more_often_than_can_be_seen() {
        let drawn = |ago: Duration| Live {
            lines: 1,
            drawn: Some((Timestamp(0), Instant::now().checked_sub(ago).unwrap())),
        };
        assert!(Live::default().is_due(Timestamp(0)), "the first");
        assert!(!drawn(Duration::ZERO).is_due(Timestamp(3_600 * REFRESH_NS)));
        assert!(drawn(PAUSE).is_due(Timestamp(REFRESH_NS)));
        assert!(!drawn(PAUSE).is_due(Timestamp(REFRESH_NS - 1)));
    }
}
