//! Forked child processes: sockets whose owner is not the test program.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use crate::{Namespace, speed::limit};

/// Maximum lifetime of a child process, even if nobody kills it.
const LIFETIME_SECONDS: u32 = 300;

/// A forked copy of the test program that runs one closure; killed on drop.
///
/// It inherits every open descriptor, so another test's sockets would not close while it runs. Only exclusive
/// tests may start one.
#[derive(Debug)]
pub struct ChildProcess {
    id: libc::pid_t,
    status: Option<i32>,
}

impl ChildProcess {
    /// Starts a child with the given name in the namespace. It exits when `work` returns, without running
    /// destructors.
    pub fn start(namespace: &Namespace, comm: &str, work: impl FnOnce() + Send) -> Self {
        let id = namespace.run(comm, || {
            // SAFETY: the child has only this thread. It makes system calls and allocates, which the C
            // library allows after a fork. It never returns to its caller.
            let id = unsafe { libc::fork() };
            if id == 0 {
                // SAFETY: these functions have no preconditions.
                unsafe {
                    libc::alarm(LIFETIME_SECONDS);
                    let result = catch_unwind(AssertUnwindSafe(work));
                    libc::_exit(i32::from(result.is_err()));
                }
            }
            id
        });
        assert!(id > 0, "fork: {}", io::Error::last_os_error());
        Self { id, status: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.id.cast_unsigned()
    }

    /// Waits for the process to exit successfully.
    pub fn wait(mut self) {
        let end = Instant::now() + limit();
        while !self.has_exited(libc::WNOHANG) {
            assert!(Instant::now() < end, "process {} did not exit", self.id);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.status, Some(0), "the process failed");
    }

    fn has_exited(&mut self, options: i32) -> bool {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            if unsafe { libc::waitpid(self.id, &raw mut status, options) } == self.id {
                self.status = Some(status);
            }
        }
        self.status.is_some()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.has_exited(libc::WNOHANG) {
            // SAFETY: a child that has not been reaped keeps its process id.
            unsafe { libc::kill(self.id, libc::SIGKILL) };
            self.has_exited(0);
        }
    }
}

/// Returns the name of the test program: the process of all its threads.
pub fn own_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").expect("a process can read its own name");
    name.trim_end().to_owned()
}

/// A gate between processes: a waiting process continues when the gate is opened, and panics when the opener
/// has exited.
#[derive(Debug)]
pub struct Gate {
    read: io::PipeReader,
    write: io::PipeWriter,
}

impl Gate {
    /// Creates a closed gate.
    pub fn new() -> Self {
        let (read, write) = io::pipe().expect("a pipe can be created");
        Self { read, write }
    }

    /// Lets one waiting process through.
    pub fn open(&self) {
        io::Write::write_all(&mut (&self.write), &[1]).expect("a byte fits into the pipe");
    }

    /// Waits for the gate to open.
    pub fn wait(&self) {
        io::Read::read_exact(&mut (&self.read), &mut [0]).expect("the gate is opened");
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Sleeps until the process is killed.
pub fn sleep_until_killed() {
    loop {
        thread::sleep(limit());
    }
}
