//! A program on a terminal of its own.

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

/// The traced program on a pseudo-terminal, with what it has drawn; killed when dropped.
pub struct Pty {
    child: Child,
    /// None once it has hung up.
    master: Option<File>,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Every byte, also of what was erased again.
    written: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    before: Termios,
}

impl Pty {
    /// Starts the program on a terminal of this size.
    pub fn start<S: AsRef<OsStr>>(columns: u16, rows: u16, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::start_command(columns, rows, command)
    }

    /// Starts a command that runs the program.
    pub fn start_command(columns: u16, rows: u16, mut command: Command) -> Self {
        let (master, terminal) = open();
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a terminal has a size");
        let before = tcgetattr(&terminal).expect("a terminal has attributes");
        let end = || Stdio::from(terminal.try_clone().expect("a descriptor is left"));
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls may be made between fork and exec.
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
            let (mut from, into) = (master.try_clone().expect("a descriptor is left"), Arc::clone(&screen));
            let all = Arc::clone(&written);
            let stopped = Arc::clone(&stop);
            // Keeps the terminal open, so that its attributes can be read after the program's end.
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
                    into.lock().unwrap_or_else(PoisonError::into_inner).process(&buffer[..count]);
                }
            })
        };
        Self { child, master: Some(master), screen, written, reader: Some(reader), stop, before }
    }

    /// Types.
    pub fn type_keys(&self, keys: &str) {
        self.master().write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    fn master(&self) -> &File {
        self.master.as_ref().expect("it has not hung up")
    }

    /// Hangs up, as a terminal does whose window is closed, and waits for the program's end.
    pub fn hang_up(mut self) -> ExitStatus {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.master = None;
        wait::until("the program's end", || self.child.try_wait().expect("it is a child"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).expect("the program has not been waited for");
    }

    /// Makes the terminal as large as this, which tells the program.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(rows, columns);
        tcsetwinsize(self.master(), size).expect("a terminal has a size");
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// All that was written, what was erased again included.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a signal has stopped the program, and asserts that the terminal is as it was before.
    pub fn wait_for_stop(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        wait::until("the program is stopped", || {
            let stat = std::fs::read_to_string(&stat).expect("the program is there");
            // After the name, which ends in a parenthesis.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')).then_some(())
        });
        self.assert_restored();
    }

    fn assert_restored(&self) {
        let after = tcgetattr(self.master()).expect("a terminal has attributes");
        assert_eq!(after.local_modes, self.before.local_modes, "echo and lines are as before");
        assert_eq!(after.input_modes, self.before.input_modes);
        wait::until("the usual screen", || {
            let parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            let screen = parser.screen();
            let restored = !screen.alternate_screen()
                && !screen.hide_cursor()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None;
            restored.then_some(())
        });
    }

    /// Waits until the screen shows this.
    pub fn wait_for(&self, text: &str) -> String {
        wait::until(&format!("`{text}` on the screen"), || Some(self.text()).filter(|it| it.contains(text)))
    }

    /// Waits for the program's end, and asserts that the terminal is as it was before.
    pub fn wait_for_end(mut self) -> (ExitStatus, String) {
        let status = wait::until("the program's end", || self.child.try_wait().expect("it is a child"));
        self.assert_restored();
        (status, self.text())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The reader ends when nobody has the terminal any more.
        drop(self.reader.take());
    }
}

/// Both ends of a new terminal.
fn open() -> (File, File) {
    let (mut master, mut terminal) = (-1, -1);
    // SAFETY: both numbers outlive the call, and the other arguments may be null.
    let result = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut terminal,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(result, 0, "no terminal can be made: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just made both, and nothing else has them.
    let (master, terminal) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(terminal)) };
    // A program that holds its own terminal's other end would never see it go.
    for end in [&master, &terminal] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).expect("a descriptor takes flags");
    }
    (master, terminal)
}
