//! A process that holds sockets.

use tracer_core::event::Process;

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process id in the pid namespace of the scanned procfs.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// The name, NUL-padded: at most 15 bytes of any value.
    pub comm: [u8; 16],
    /// Start time, clock ticks since boot. Together with `pid` it identifies a process.
    pub start_time_ticks: u64,
    /// Process id of the parent; 0 for none.
    pub parent: u32,
}

impl ProcessInfo {
    /// Returns the process in the form of events.
    pub const fn process(&self) -> Process {
        Process { pid: self.pid, uid: self.uid, comm: self.comm }
    }

    /// Returns whether it holds sockets for other processes: the first process, or a user's systemd.
    pub(super) fn is_service_manager(&self) -> bool {
        self.pid == 1 || self.comm.starts_with(b"systemd\0")
    }
}
