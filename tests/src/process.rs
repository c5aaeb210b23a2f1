//! Processes of their own: sockets with other owners than the test program.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use crate::{Namespace, speed::limit};

/// The longest that a process lives, also when nobody ends it.
const LIFE_SECONDS: u32 = 300;

/// A copy of the test program that does one thing; killed when dropped.
///
/// It has copies of every descriptor that was open, so only a test that is alone may start one: another
/// test's sockets would not close while it lives.
#[derive(Debug)]
pub struct Process {
    id: libc::pid_t,
    status: Option<i32>,
}

impl Process {
    /// Starts one of this name in the namespace. It ends when `work` returns, without any clean-up but
    /// the kernel's.
    pub fn start(namespace: &Namespace, comm: &str, work: impl FnOnce() + Send) -> Self {
        let id = namespace.run(comm, || {
            // SAFETY: the child has this thread only. It makes system calls, and allocates, which the C
            // library allows after a fork; it never returns to its caller.
            let id = unsafe { libc::fork() };
            if id == 0 {
                // SAFETY: these have no conditions.
                unsafe {
                    libc::alarm(LIFE_SECONDS);
                    let outcome = catch_unwind(AssertUnwindSafe(work));
                    libc::_exit(i32::from(outcome.is_err()));
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

    /// Waits until it has ended, which it must do well.
    pub fn wait(mut self) {
        let end = Instant::now() + limit();
        while !self.ended(libc::WNOHANG) {
            assert!(Instant::now() < end, "process {} does not end", self.id);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.status, Some(0), "the process failed");
    }

    fn ended(&mut self, options: i32) -> bool {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: the status lives across the call.
            if unsafe { libc::waitpid(self.id, &raw mut status, options) } == self.id {
                self.status = Some(status);
            }
        }
        self.status.is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended(libc::WNOHANG) {
            // SAFETY: a child that has not been waited for keeps its number.
            unsafe { libc::kill(self.id, libc::SIGKILL) };
            self.ended(0);
        }
    }
}

/// A gate between processes: who waits goes on when it is opened, or when the one who could has ended.
#[derive(Debug)]
pub struct Gate {
    read: io::PipeReader,
    write: io::PipeWriter,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        let (read, write) = io::pipe().expect("descriptors are left");
        Self { read, write }
    }

    /// Lets one waiting process through.
    pub fn open(&self) {
        io::Write::write_all(&mut (&self.write), &[1]).expect("a pipe takes a byte");
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

/// Does nothing until it is killed.
pub fn stay() {
    loop {
        thread::sleep(limit());
    }
}
