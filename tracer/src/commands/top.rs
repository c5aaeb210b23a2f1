//! `top`: the live full-screen view.
//!
//! The thread that reads the source feeds the model and makes a new screen twice a second of the traced host's time;
//! another thread draws it and reads the keyboard. The terminal is given back at the end, on every signal that
//! ends the program, and when it panics.

use std::{
    io::{self, IsTerminal as _, Stdout},
    mem::ManuallyDrop,
    panic,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::bail;
use crossterm::{
    cursor, event, execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    consumer::{Consumer, Progress},
    trace,
};
use crate::{
    cli::Shared,
    event::Timestamp,
    lifecycle::Observation,
    output::Summary,
    source::Origin,
    top::{Input, Model, Regions, Screen, Settings, Tab, Theme, apply, draw},
};

/// How often there is a new screen, in the traced host's time.
const REFRESH_NS: u64 = 500_000_000;
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
    screen: Option<(Timestamp, Settings)>,
    drawing: Option<Drawing>,
}

/// What both threads see.
#[derive(Default)]
struct Common {
    now: Mutex<Now>,
    /// The user has left, or the run is over.
    over: AtomicBool,
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
        let model = Model::new(shared.filter(), origin.attribution);
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
            Some((made, with)) => {
                let asks_anew = (with.sort, with.reversed, with.state, &with.search)
                    != (settings.sort, settings.reversed, settings.state, &settings.search);
                asks_anew || (!settings.paused && progress.now.since(*made) >= REFRESH_NS)
            }
        };
        if due {
            let screen = self.model.screen(progress.tracker, progress.source, progress.now, &settings);
            self.common.lock().screen = Arc::new(screen);
            self.screen = Some((progress.now, settings));
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
        let terminal = OwnTerminal::take()?;
        let thread = thread::Builder::new().name("draw".to_owned()).spawn(move || {
            let outcome = match run_screen(terminal, &common) {
                // Nobody is there any more to see what was not drawn.
                Err(_) if matches!(wait_for_key(Duration::ZERO), Ok(false)) => Ok(()),
                other => other,
            };
            common.over.store(true, Ordering::Relaxed);
            outcome
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

fn run_screen(mut terminal: OwnTerminal, common: &Common) -> io::Result<()> {
    let theme = Theme::from_environment();
    let mut shown: Option<Now> = None;
    let mut regions = Regions::default();
    while !common.over.load(Ordering::Relaxed) {
        let now = common.lock().clone();
        let same = shown
            .as_ref()
            .is_some_and(|shown| Arc::ptr_eq(&shown.screen, &now.screen) && shown.settings == now.settings);
        if !same {
            terminal.terminal.draw(|frame| regions = draw(frame, &now.screen, &now.settings, theme))?;
            shown = Some(now);
        }
        if !wait_for_key(TICK)? {
            return Ok(());
        }
        // A change of size is no key, and shows only here.
        if event::poll(Duration::ZERO)? {
            let event = event::read()?;
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

/// The terminal while it is ours; given back when dropped.
struct OwnTerminal {
    /// Never dropped: that complains on stderr about a terminal that has gone, and panics when stderr has gone with
    /// it. What it would do, [`give_back`] does.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl OwnTerminal {
    fn take() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let terminal = execute!(io::stdout(), EnterAlternateScreen, event::EnableMouseCapture, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        // From here on whatever happens gives it back.
        match terminal {
            Ok(terminal) => Ok(Self { terminal: ManuallyDrop::new(terminal) }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for OwnTerminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Does not fail: a terminal that is gone needs nothing.
fn give_back() {
    let _ = execute!(io::stdout(), event::DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}
