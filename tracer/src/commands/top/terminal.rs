//! Takes over the terminal for `top`, and restores it.

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

/// Whether `top` has the terminal. A panic on any thread restores the terminal; after that, nothing is drawn.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in raw mode on the alternate screen; restored on drop.
pub(super) struct OwnTerminal {
    /// Never dropped. Its `drop` prints an error when the terminal has hung up, and panics when stderr has too.
    /// [`restore`] does its work instead.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl OwnTerminal {
    /// Takes the terminal. A panic hook restores it before the panic message is printed.
    pub(super) fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        enter()?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Self { terminal: ManuallyDrop::new(terminal) }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws, unless the terminal has been restored meanwhile.
    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if TAKEN.load(Ordering::Acquire) {
            self.terminal.draw(render)?;
        }
        Ok(())
    }

    /// Restores the terminal, stops the program as the shell's Ctrl-Z does, and takes the terminal again after SIGCONT.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        if !restore() {
            return Ok(());
        }
        // SAFETY: `raise` takes a number. It signals this thread, so the thread does not continue before the stop.
        unsafe { libc::raise(libc::SIGSTOP) };
        enter()?;
        // The screen is blank, so the buffer to compare with is emptied. `clear` would query the cursor position and
        // wait for the response among the key presses.
        self.terminal.swap_buffers();
        Ok(())
    }
}

impl Drop for OwnTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    // From here on, every error and panic restores the terminal.
    TAKEN.store(true, Ordering::Release);
    let entered = execute!(io::stdout(), EnterAlternateScreen, event::EnableMouseCapture, cursor::Hide);
    if entered.is_err() {
        restore();
    }
    entered
}

/// Restores the terminal if `top` has it, and returns whether it had. Ignores errors: a terminal that has hung up needs
/// no restoring.
pub(super) fn restore() -> bool {
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

    /// Set in the child process that panics.
    const PANICS: &str = "TCPTRACE_TEST_PANICS_ON_ITS_TERMINAL";

    fn pty() -> (File, File) {
        let (mut master, mut terminal) = (-1, -1);
        let none = std::ptr::null_mut();
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptors and the size outlive the call, and the other arguments may be null.
        let made = unsafe {
            libc::openpty(&raw mut master, &raw mut terminal, none, std::ptr::null(), &raw const size)
        };
        assert_eq!(made, 0, "{}", io::Error::last_os_error());
        // SAFETY: the call created both descriptors, and nothing else owns them.
        unsafe { (File::from_raw_fd(master), File::from_raw_fd(terminal)) }
    }

    /// Returns the input, output and local modes.
    fn modes(of: &File) -> [libc::tcflag_t; 3] {
        // SAFETY: all-zero bytes are a valid `termios`.
        let mut termios = unsafe { std::mem::zeroed::<libc::termios>() };
        // SAFETY: the file is open, and the structure outlives the call.
        assert_eq!(unsafe { libc::tcgetattr(of.as_raw_fd(), &raw mut termios) }, 0);
        [termios.c_iflag, termios.c_oflag, termios.c_lflag]
    }

    /// Runs this test in a child process with its own terminal. There, a thread panics that did not take the terminal,
    /// and the thread that did draws again.
    #[test]
    fn a_panic_restores_the_terminal_before_its_message() {
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
                    panic!("the child does not end");
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(!status.success());
        assert_eq!(modes(&terminal), before, "line mode and echo are restored");
        drop((command, terminal));
        let mut written = Vec::new();
        // The other end is closed, so the read ends with an error after the last byte.
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
