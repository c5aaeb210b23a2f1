//! `top`: the live full-screen view.
//!
//! The tracing thread feeds the model and makes a new screen every 0.5 s of the traced host's time. A replay, in which
//! time passes faster, makes at most ten screens a second. The drawing thread draws the screen and reads the keyboard.
//! The terminal is restored at the end, on every signal that ends the program, and on a panic.

mod drawing;
mod saving;
mod shared_screen;
mod terminal;

use std::{
    io::{self, IsTerminal as _},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::bail;
use tracer_core::{
    event::{ClockOffset, Event, Nanos, Timestamp},
    lifecycle::Observation,
};

use crate::{
    cli::Shared,
    commands::{
        socket_dumps::{Dumped, SocketDumps},
        top::{drawing::Drawing, shared_screen::SharedScreen},
        trace,
    },
    event_loop::{Consumer, Progress},
    report::{ConnectionCgroups, Summary},
    sources::Origin,
    top::{Model, Settings, Theme},
};

/// Interval of new screens in the traced host's time.
const REFRESH: Nanos = Nanos::from_millis(500);
/// Shortest real time between two screens. A replay passes an hour in a second.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Real time after which a new screen shows the latest events although less than [`REFRESH`] passed on the traced
/// host, as at the end of a recording.
const IDLE_REFRESH: Duration = Duration::from_millis(500);

pub(super) fn run(shared: &Shared) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("`top` draws on a terminal, but stdin or stdout is not one: use `connections` instead");
    }
    if !shared.input.is_empty() {
        return trace::trace(shared, |origin| Top::new(shared, origin, None));
    }
    let (input, first, dumps) = SocketDumps::beside(shared)?;
    trace::run(shared, input, |origin| {
        let mut top = Top::new(shared, origin, Some(dumps.with_connections()));
        top.model.dumped(first.dump);
        top
    })
}

struct Top {
    model: Model,
    /// None in a replay.
    dumps: Option<SocketDumps>,
    shared_screen: Arc<SharedScreen>,
    last: Option<LastScreen>,
    drawing: Option<Drawing>,
    /// The traced host's.
    clock: ClockOffset,
    theme: Theme,
}

/// When and with which settings the last screen was made.
struct LastScreen {
    /// The traced host's time.
    now: Timestamp,
    made_at: Instant,
    settings: Settings,
}

impl LastScreen {
    /// Returns whether enough time has passed for a new screen.
    fn is_old(&self, now: Timestamp) -> bool {
        let (passed, waited) = (now.since(self.now), self.made_at.elapsed());
        (passed >= REFRESH && waited >= MIN_INTERVAL) || (passed > Nanos::ZERO && waited >= IDLE_REFRESH)
    }

    /// Returns whether the user changed what a table lists, or its order.
    fn differs(&self, settings: &Settings) -> bool {
        self.settings.queries != settings.queries
    }
}

impl Top {
    fn new(shared: &Shared, origin: Origin, dumps: Option<SocketDumps>) -> Self {
        let clock = origin.clock;
        let model = Model::new(shared.filter(), ConnectionCgroups::new(origin.resolver));
        let colors = shared.color.palette(&io::stdout()).has_colors();
        // The decision is made: crossterm would look at NO_COLOR by itself.
        crossterm::style::force_color_output(colors);
        let theme = Theme::new(colors);
        Self { model, dumps, shared_screen: Arc::default(), last: None, drawing: None, clock, theme }
    }
}

impl Consumer for Top {
    fn begin(&mut self) -> io::Result<()> {
        self.drawing = Some(Drawing::start(Arc::clone(&self.shared_screen), self.clock, self.theme)?);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.model.event(event);
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.model.observe(&observation);
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        match self.dumps.as_mut().and_then(SocketDumps::poll) {
            Some(Dumped::Listeners(found)) => self.model.dumped(found.dump),
            Some(Dumped::Connections(readings)) => self.model.read(readings),
            None => {}
        }
        let settings = self.shared_screen.lock().settings.clone();
        let due = match &self.last {
            None => true,
            Some(last) => last.differs(&settings) || (!settings.paused && last.is_old(progress.now)),
        };
        if due {
            let screen = self.model.screen(progress.tracker, progress.source, progress.now, &settings);
            self.shared_screen.lock().screen = Arc::new(screen);
            self.last = Some(LastScreen { now: progress.now, made_at: Instant::now(), settings });
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.shared_screen.ended.load(Ordering::Relaxed)
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    /// Keeps the last screen of a recording until the user quits.
    fn stays(&self) -> bool {
        !self.done()
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        match self.drawing.take() {
            Some(drawing) => drawing.finish(),
            None => Ok(()),
        }
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if let Some(drawing) = self.drawing.take() {
            // An earlier error takes precedence over this one.
            let _ = drawing.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_old_after_both_times_or_when_idle() {
        let second = Timestamp(1_000_000_000);
        let made = |ago: Duration| LastScreen {
            now: second,
            made_at: Instant::now().checked_sub(ago).unwrap(),
            settings: Settings::default(),
        };
        let later = second.saturating_add(REFRESH);
        assert!(!made(Duration::ZERO).is_old(later), "a replay passes hours in seconds");
        assert!(made(MIN_INTERVAL).is_old(later));
        let little = Timestamp(second.0 + 1);
        assert!(!made(MIN_INTERVAL).is_old(little));
        assert!(made(IDLE_REFRESH).is_old(little), "the end of a recording");
        assert!(!made(IDLE_REFRESH).is_old(second), "nothing has happened");
    }
}
