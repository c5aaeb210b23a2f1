//! A process that may hold sockets.

use tracer_core::event::Process;

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process id in the pid namespace of the scanned procfs.
    pub pid: u32,
    /// Process id in its innermost pid namespace (as seen inside its container), when that differs.
    pub namespaced_pid: Option<u32>,
    /// Real user id.
    pub uid: u32,
    /// Its name, NUL-padded: at most 15 bytes, of any content.
    pub comm: [u8; 16],
    /// When it started, clock ticks since boot; with `pid` it names a process for good.
    pub start_time_ticks: u64,
    /// Process id of its parent; 0 for none.
    pub parent: u32,
}

impl ProcessInfo {
    /// The process as events carry it.
    pub const fn process(&self) -> Process {
        Process { pid: self.pid, uid: self.uid, comm: self.comm }
    }

    /// Whether it holds sockets on behalf of others: the first process, or systemd of a user.
    pub(super) fn is_service_manager(&self) -> bool {
        self.pid == 1 || self.comm.starts_with(b"systemd\0")
    }
}
