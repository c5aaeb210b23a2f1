//! Runs the program on a pseudo-terminal.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::FromRawFd as _, unix::process::CommandExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{program::program, wait};

/// The program on a pseudo-terminal, and the screen it has drawn; killed on drop.
pub struct Pty {
    child: Child,
    /// `None` after the hang-up.
    master: Option<File>,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Every byte written, including erased text.
    written: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    initial: Termios,
}

impl Pty {
    /// Starts the program on a terminal of the given size.
    pub fn start<S: AsRef<OsStr>>(columns: u16, rows: u16, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::start_command(columns, rows, command)
    }

    /// Starts a command on a terminal of the given size.
    pub fn start_command(columns: u16, rows: u16, mut command: Command) -> Self {
        let (master, terminal) = open();
        tcsetwinsize(&master, winsize(columns, rows)).expect("a terminal has a size");
        let initial = tcgetattr(&terminal).expect("a terminal has attributes");
        let stdio = || Stdio::from(terminal.try_clone().expect("the descriptor can be duplicated"));
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: both calls are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot start: {error}"));
        let stop = Arc::new(AtomicBool::new(false));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let reader = {
            let mut from = master.try_clone().expect("the descriptor can be duplicated");
            let parser = Arc::clone(&screen);
            let all = Arc::clone(&written);
            let stopped = Arc::clone(&stop);
            // `terminal` stays open, so that its attributes can be read after the program exits.
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while !stopped.load(Ordering::Relaxed) {
                    let mut ready = [PollFd::new(&from, PollFlags::IN)];
                    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                    if poll(&mut ready, Some(&tick)) == Ok(0) {
                        continue;
                    }
                    let Ok(count @ 1..) = from.read(&mut buffer) else { break };
                    all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
                    parser.lock().unwrap_or_else(PoisonError::into_inner).process(&buffer[..count]);
                }
            })
        };
        Self { child, master: Some(master), screen, written, reader: Some(reader), stop, initial }
    }

    /// Types keys.
    pub fn type_keys(&self, keys: &str) {
        self.master().write_all(keys.as_bytes()).expect("the terminal accepts input");
    }

    fn master(&self) -> &File {
        self.master.as_ref().expect("the terminal has not hung up")
    }

    /// Hangs up like a closed terminal window, and waits for the program to exit.
    pub fn hang_up(mut self) -> ExitStatus {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.master = None;
        wait::until("the program to exit", || self.child.try_wait().expect("the child can be waited for"))
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).expect("the program has not been waited for");
    }

    /// Resizes the terminal; the kernel notifies the program with SIGWINCH.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(rows, columns);
        tcsetwinsize(self.master(), winsize(columns, rows)).expect("a terminal has a size");
    }

    /// Returns the text on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// Returns everything written so far, including erased text.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a signal has stopped the program, and asserts that the terminal is restored.
    pub fn wait_for_stop(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        wait::until("the program to stop", || {
            let stat = std::fs::read_to_string(&stat).expect("the process exists");
            // The state follows the process name, which ends with a parenthesis.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')).then_some(())
        });
        self.assert_restored();
    }

    fn assert_restored(&self) {
        let after = tcgetattr(self.master()).expect("a terminal has attributes");
        assert_eq!(after.local_modes, self.initial.local_modes, "echo and canonical mode");
        assert_eq!(after.input_modes, self.initial.input_modes);
        wait::until("the primary screen", || {
            let parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            let screen = parser.screen();
            let restored = !screen.alternate_screen()
                && !screen.hide_cursor()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None;
            restored.then_some(())
        });
    }

    /// Waits until the screen shows a text, and returns the whole screen.
    pub fn wait_for(&self, text: &str) -> String {
        wait::until(&format!("`{text}` on the screen"), || {
            Some(self.text()).filter(|screen| screen.contains(text))
        })
    }

    /// Waits for the program to exit, asserts that the terminal is restored, and returns the final screen.
    pub fn wait_for_exit(mut self) -> (ExitStatus, String) {
        let status = wait::until("the program to exit", || {
            self.child.try_wait().expect("the child can be waited for")
        });
        self.assert_restored();
        (status, self.text())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The reader thread exits when the last descriptor of the terminal closes.
        drop(self.reader.take());
    }
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Creates a pseudo-terminal: the master and the terminal.
fn open() -> (File, File) {
    let (mut master, mut terminal) = (-1, -1);
    // SAFETY: both descriptors outlive the call, and the other arguments may be null.
    let result = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut terminal,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(result, 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just opened both descriptors, and nothing else owns them.
    let (master, terminal) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(terminal)) };
    // A program that inherits the master would never see the hang-up.
    for end in [&master, &terminal] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).expect("FD_CLOEXEC can be set");
    }
    (master, terminal)
}
