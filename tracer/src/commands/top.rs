//! `top`: the live full-screen view.
//!
//! The thread that reads the source feeds the model and makes a new screen twice a second of the traced host's time,
//! of a replay no more than ten a second;
//! another thread draws it and reads the keyboard. The terminal is given back at the end, on every signal that
//! ends the program, and when it panics.

mod terminal;

use std::{
    io::{self, IsTerminal as _},
    panic,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::bail;
use crossterm::event::{self, KeyCode, KeyModifiers};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::signal::unix::{SignalKind, signal};
use tracer_core::{event::Timestamp, lifecycle::Observation};

use crate::{
    cli::Shared,
    commands::{
        top::terminal::{OwnTerminal, give_back},
        trace,
    },
    event_loop::{Consumer, Progress},
    report::{ConnectionCgroups, Summary},
    sources::Origin,
    top::{Input, Model, Regions, Screen, Settings, Tab, Theme, apply, draw},
};

/// How often there is a new screen, in the traced host's time.
const REFRESH_NS: u64 = 500_000_000;
/// How soon there may be a new screen, of any time's passing: a replay passes an hour in a second.
const PAUSE: Duration = Duration::from_millis(100);
/// When what has happened is shown although less time than [`REFRESH_NS`] has passed on the traced host: its
/// recording has ended.
const LAST: Duration = Duration::from_millis(500);
/// How long the drawing thread may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a key may wait for the drawing thread.
const TICK: Duration = Duration::from_millis(50);

pub(super) fn run(shared: &Shared) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!("`top` draws on a terminal, and stdin or stdout is none: run it in one, or use `connections`");
    }
    trace::trace(shared, |origin| Top::new(shared, origin))
}

struct Top {
    model: Model,
    common: Arc<Common>,
    screen: Option<Made>,
    drawing: Option<Drawing>,
}

/// Of what the screen shows.
struct Made {
    /// The traced host's time.
    now: Timestamp,
    at: Instant,
    with: Settings,
}

impl Made {
    /// Whether it is time for another, whatever the user asks for.
    fn is_old(&self, now: Timestamp) -> bool {
        let (passed, waited) = (now.since(self.now), self.at.elapsed());
        (passed >= REFRESH_NS && waited >= PAUSE) || (passed > 0 && waited >= LAST)
    }
}

/// What both threads see.
#[derive(Default)]
struct Common {
    now: Mutex<Now>,
    /// The user has left, or the run is over.
    over: AtomicBool,
    /// Somebody wants the program to stop until it is told to go on.
    suspend: AtomicBool,
}

/// Says that it is over when the drawing thread ends, however it does.
struct Over(Arc<Common>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct Now {
    screen: Arc<Screen>,
    settings: Settings,
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Top {
    fn new(shared: &Shared, origin: Origin) -> Self {
        let model = Model::new(shared.filter(), ConnectionCgroups::new(origin.resolver));
        Self { model, common: Arc::default(), screen: None, drawing: None }
    }
}

impl Consumer for Top {
    fn begin(&mut self) -> io::Result<()> {
        self.drawing = Some(Drawing::start(Arc::clone(&self.common))?);
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.model.observe(&observation);
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        let settings = self.common.lock().settings.clone();
        let due = match &self.screen {
            None => true,
            Some(made) => {
                let with = &made.with;
                let asks_anew = (with.sort, with.reversed, with.state, &with.search)
                    != (settings.sort, settings.reversed, settings.state, &settings.search);
                asks_anew || (!settings.paused && made.is_old(progress.now))
            }
        };
        if due {
            let screen = self.model.screen(progress.tracker, progress.source, progress.now, &settings);
            self.common.lock().screen = Arc::new(screen);
            self.screen = Some(Made { now: progress.now, at: Instant::now(), with: settings });
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.common.over.load(Ordering::Relaxed)
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    /// The end of a recording is looked at until the user leaves.
    fn stays(&self) -> bool {
        !self.done()
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        match self.drawing.take() {
            Some(drawing) => drawing.finish(&self.common),
            None => Ok(()),
        }
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if let Some(drawing) = self.drawing.take() {
            // What went wrong before matters more.
            let _ = drawing.finish(&self.common);
        }
    }
}

/// The thread that draws.
struct Drawing {
    thread: JoinHandle<io::Result<()>>,
}

impl Drawing {
    fn start(common: Arc<Common>) -> io::Result<Self> {
        listen_for_suspension(Arc::clone(&common))?;
        let terminal = OwnTerminal::take()?;
        let thread = thread::Builder::new().name("draw".to_owned()).spawn(move || {
            let over = Over(common);
            match run_screen(terminal, &over.0) {
                // Nobody is there any more to see what was not drawn.
                Err(_) if matches!(wait_for_key(Duration::ZERO), Ok(false)) => Ok(()),
                other => other,
            }
        })?;
        Ok(Self { thread })
    }

    fn finish(self, common: &Common) -> io::Result<()> {
        common.over.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !self.thread.is_finished() {
            if begun.elapsed() > PATIENCE {
                // It hangs in a terminal that has gone; the program ends all the same.
                give_back();
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// Has SIGTSTP ask the drawing thread to stop the program, so that the terminal is given back first.
fn listen_for_suspension(common: Arc<Common>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut suspended = {
        let _guard = runtime.enter();
        signal(SignalKind::from_raw(libc::SIGTSTP))?
    };
    // It waits for as long as the program runs.
    thread::Builder::new().name("suspend".to_owned()).spawn(move || {
        runtime.block_on(async {
            while suspended.recv().await.is_some() {
                common.suspend.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}

fn is_suspend(event: &event::Event) -> bool {
    matches!(event, event::Event::Key(key)
        if key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL))
}

fn run_screen(mut terminal: OwnTerminal, common: &Common) -> io::Result<()> {
    let theme = Theme::from_environment();
    let mut shown: Option<Now> = None;
    let mut regions = Regions::default();
    while !common.over.load(Ordering::Relaxed) {
        if common.suspend.swap(false, Ordering::Relaxed) {
            terminal.suspend()?;
            shown = None;
        }
        let now = common.lock().clone();
        let same = shown
            .as_ref()
            .is_some_and(|shown| Arc::ptr_eq(&shown.screen, &now.screen) && shown.settings == now.settings);
        if !same {
            terminal.draw(|frame| regions = draw(frame, &now.screen, &now.settings, theme))?;
            shown = Some(now);
        }
        if !wait_for_key(TICK)? {
            return Ok(());
        }
        // A change of size is no key, and shows only here.
        if event::poll(Duration::ZERO)? {
            let event = event::read()?;
            if is_suspend(&event) {
                common.suspend.store(true, Ordering::Relaxed);
                continue;
            }
            let mut guard = common.lock();
            let now = &mut *guard;
            let before = now.settings.selected;
            let lines = match now.settings.tab {
                Tab::Diagram | Tab::Connections => now.screen.connections.len(),
                Tab::Owners => now.screen.owners.len(),
                Tab::Handshakes => now.screen.handshakes.len(),
                Tab::Stuck => now.screen.stuck.len(),
            };
            if apply(&mut now.settings, &event, regions, lines) == Input::Redraw {
                shown = None;
            }
            now.settings.hold(&now.screen, before);
            if now.settings.quit {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Waits for a key, for less than a second. False when the terminal is gone; reading from one that is would
/// never end.
fn wait_for_key(time: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let tick = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    match poll(&mut terminal, Some(&tick)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(!terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_old_after_both_times_and_the_last_is_always_made() {
        let second = Timestamp(1_000_000_000);
        let made = |ago: Duration| Made {
            now: second,
            at: Instant::now().checked_sub(ago).unwrap(),
            with: Settings::default(),
        };
        let later = Timestamp(second.0 + REFRESH_NS);
        assert!(!made(Duration::ZERO).is_old(later), "a replay runs through the hours");
        assert!(made(PAUSE).is_old(later));
        let little = Timestamp(second.0 + 1);
        assert!(!made(PAUSE).is_old(little));
        assert!(made(LAST).is_old(little), "the end of a recording");
        assert!(!made(LAST).is_old(second), "nothing has happened");
    }

    #[test]
    fn the_drawing_threads_end_is_told_also_when_it_panics() {
        let common = Arc::new(Common::default());
        let over = Over(Arc::clone(&common));
        let ended = thread::spawn(move || {
            let _over = over;
            panic!("as a drawing may");
        });
        assert!(ended.join().is_err());
        assert!(common.over.load(Ordering::Relaxed));
    }
}
