//! The drawing thread: draws the screen and reads the keyboard.

use std::{
    io, panic,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossterm::event::{self, KeyCode, KeyModifiers};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::signal::unix::{SignalKind, signal};
use tracer_core::event::ClockOffset;

use crate::{
    commands::top::{
        saving,
        shared_screen::{Current, EndOnDrop, SharedScreen},
        terminal::{OwnTerminal, restore},
    },
    host::give_up_priority,
    top::{Effect, Regions, SavedView, Theme, apply, draw},
};

/// Longest wait for the drawing thread to end.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a key before the thread checks for a new screen.
const KEY_POLL: Duration = Duration::from_millis(50);

/// The running drawing thread.
pub(super) struct Drawing {
    thread: JoinHandle<io::Result<()>>,
    shared: Arc<SharedScreen>,
}

impl Drawing {
    /// Takes the terminal and starts the thread. `clock` is the traced host's.
    pub(super) fn start(shared: Arc<SharedScreen>, clock: ClockOffset, theme: Theme) -> io::Result<Self> {
        handle_sigtstp(Arc::clone(&shared))?;
        let terminal = OwnTerminal::take()?;
        let end = EndOnDrop(Arc::clone(&shared));
        let thread = thread::Builder::new().name("draw".to_owned()).spawn(move || {
            give_up_priority();
            match run_screen(terminal, &end.0, clock, theme) {
                // The terminal has hung up, so its errors do not matter.
                Err(_) if matches!(wait_for_key(Duration::ZERO), Ok(false)) => Ok(()),
                other => other,
            }
        })?;
        Ok(Self { thread, shared })
    }

    /// Ends the thread and restores the terminal. Returns the thread's error.
    pub(super) fn finish(self) -> io::Result<()> {
        self.shared.ended.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !self.thread.is_finished() {
            if begun.elapsed() > JOIN_TIMEOUT {
                // The thread blocks on a terminal that has hung up.
                restore();
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// Makes SIGTSTP set [`SharedScreen::suspend`], so that the drawing thread restores the terminal before the program
/// stops.
fn handle_sigtstp(shared: Arc<SharedScreen>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut suspended = {
        let _guard = runtime.enter();
        signal(SignalKind::from_raw(libc::SIGTSTP))?
    };
    // The thread runs until the program exits.
    thread::Builder::new().name("suspend".to_owned()).spawn(move || {
        give_up_priority();
        runtime.block_on(async {
            while suspended.recv().await.is_some() {
                shared.suspend.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(())
}

fn is_suspend(event: &event::Event) -> bool {
    matches!(event, event::Event::Key(key)
        if key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL))
}

fn run_screen(
    mut terminal: OwnTerminal,
    shared: &SharedScreen,
    clock: ClockOffset,
    theme: Theme,
) -> io::Result<()> {
    let mut shown: Option<Current> = None;
    let mut regions = Regions::default();
    while !shared.ended.load(Ordering::Relaxed) {
        if shared.suspend.swap(false, Ordering::Relaxed) {
            terminal.suspend()?;
            shown = None;
        }
        let current = shared.lock().clone();
        let same = shown.as_ref().is_some_and(|shown| {
            Arc::ptr_eq(&shown.screen, &current.screen) && shown.settings == current.settings
        });
        if !same {
            terminal.draw(|frame| regions = draw(frame, &current.screen, &current.settings, theme))?;
            shown = Some(current);
        }
        if !wait_for_key(KEY_POLL)? {
            return Ok(());
        }
        // Also checked without input, because a change of the terminal's size is not input.
        if event::poll(Duration::ZERO)? {
            let event = event::read()?;
            if is_suspend(&event) {
                shared.suspend.store(true, Ordering::Relaxed);
                continue;
            }
            let mut guard = shared.lock();
            let current = &mut *guard;
            let before = current.settings.selected;
            let lines = current.screen.lines(current.settings.tab);
            let effect = apply(&mut current.settings, &event, regions, lines);
            if effect != Effect::Nothing {
                shown = None;
            }
            current.settings.drill_down(&current.screen);
            current.settings.hold(&current.screen, before);
            if current.settings.quit {
                return Ok(());
            }
            if effect == Effect::Save {
                let view = current.clone();
                // The tracing thread does not wait for the file.
                drop(guard);
                let notice = saving::save(&SavedView::new(&view.screen, &view.settings, clock).to_json());
                shared.lock().settings.notice = Some(notice);
            }
        }
    }
    Ok(())
}

/// Waits less than a second for input. Returns false when the terminal has hung up; a read would then never return.
fn wait_for_key(time: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    match poll(&mut terminal, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(!terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}
