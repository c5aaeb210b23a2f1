//! The terminal while `top` has it, and what gives it back.

use std::{
    io::{self, Stdout},
    mem::ManuallyDrop,
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor, event, execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};

/// Whether the terminal is ours now. A panic on any thread gives it back, and then nobody may draw on it any more.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; given back when dropped.
pub(super) struct OwnTerminal {
    /// Never dropped: that complains on stderr about a terminal that has gone, and panics when stderr has gone with
    /// it. What it would do, [`give_back`] does.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl OwnTerminal {
    /// Takes it, and has it given back before a panic says anything.
    pub(super) fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enter()?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Self { terminal: ManuallyDrop::new(terminal) }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws, unless it has been given back meanwhile.
    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if TAKEN.load(Ordering::Acquire) {
            self.terminal.draw(render)?;
        }
        Ok(())
    }

    /// Gives it back, stops the whole program as the shell's Ctrl-Z does, and takes it again once that goes on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        if !give_back() {
            return Ok(());
        }
        // SAFETY: plain numbers. To this thread, which so does not go on before the program is stopped.
        unsafe { libc::raise(libc::SIGSTOP) };
        enter()?;
        // Nothing of what was drawn before is there any more: what it is compared with is emptied. `clear` would ask
        // the terminal where the cursor is, and wait for the answer among the keys.
        self.terminal.swap_buffers();
        Ok(())
    }
}

impl Drop for OwnTerminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    // From here on whatever happens gives it back.
    TAKEN.store(true, Ordering::Release);
    let entered = execute!(io::stdout(), EnterAlternateScreen, event::EnableMouseCapture, cursor::Hide);
    if entered.is_err() {
        give_back();
    }
    entered
}

/// Gives the terminal back, if it is ours; whether it was. Does not fail: a terminal that is gone needs nothing.
pub(super) fn give_back() -> bool {
    let taken = TAKEN.swap(false, Ordering::AcqRel);
    if taken {
        let _ = execute!(io::stdout(), event::DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read as _,
        os::{
            fd::{AsRawFd as _, FromRawFd as _},
            unix::process::CommandExt as _,
        },
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// Set for the process that panics.
    const PANICS: &str = "TCPTRACE_TEST_PANICS_ON_ITS_TERMINAL";

    fn pty() -> (File, File) {
        let (mut master, mut terminal) = (-1, -1);
        let none = std::ptr::null_mut();
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the numbers and the size outlive the call, and the other arguments may be null.
        let made = unsafe {
            libc::openpty(&raw mut master, &raw mut terminal, none, std::ptr::null(), &raw const size)
        };
        assert_eq!(made, 0, "{}", io::Error::last_os_error());
        // SAFETY: the call has just made both, and nothing else has them.
        unsafe { (File::from_raw_fd(master), File::from_raw_fd(terminal)) }
    }

    /// Its input, output and local modes.
    fn modes(of: &File) -> [libc::tcflag_t; 3] {
        // SAFETY: plain numbers, which the call fills in.
        let mut termios = unsafe { std::mem::zeroed::<libc::termios>() };
        // SAFETY: the file is open, and the structure outlives the call.
        assert_eq!(unsafe { libc::tcgetattr(of.as_raw_fd(), &raw mut termios) }, 0);
        [termios.c_iflag, termios.c_oflag, termios.c_lflag]
    }

    /// A process of this very test panics on a terminal of its own, on another thread than the one that has taken
    /// it, which tries to draw once more.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_speaks() {
        if std::env::var_os(PANICS).is_some() {
            let mut terminal = OwnTerminal::take().unwrap();
            terminal.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
            let panicked = thread::spawn(|| panic!("the reason")).join().is_err();
            terminal.draw(|frame| frame.render_widget("too late", frame.area())).unwrap();
            drop(terminal);
            assert!(!panicked, "the thread has panicked");
        }
        let (mut master, terminal) = pty();
        let before = modes(&terminal);
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let name = thread::current().name().unwrap().to_owned();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &name, "--nocapture"]).env(PANICS, "1").env("RUST_BACKTRACE", "0");
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > Duration::from_secs(60) => {
                    let _ = child.kill();
                    panic!("it does not end");
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(!status.success());
        assert_eq!(modes(&terminal), before, "lines and echo are as before");
        drop((command, terminal));
        let mut written = Vec::new();
        // The other end is gone: what was written is read, and then an error comes.
        let _ = master.read_to_end(&mut written);
        let written = String::from_utf8_lossy(&written);
        let at = |what: &str| {
            let mut places = written.match_indices(what).map(|(place, _)| place);
            let first = places.next().unwrap_or_else(|| panic!("no {what:?} in {written:?}"));
            assert_eq!(places.next(), None, "{what:?} twice in {written:?}");
            first
        };
        let (entered, drawn, left) = (at("\x1b[?1049h"), at("drawn"), at("\x1b[?1049l"));
        assert!(entered < drawn && drawn < left, "{written:?}");
        assert!(at("\x1b[?1000l") < left && left < at("the reason"), "{written:?}");
        assert!(written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l"), "the cursor shows: {written:?}");
        assert!(!written.contains("too late"), "{written:?}");
    }
}
