//! The process that caused an event.

/// A process at the time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process (thread group) id in the initial PID namespace.
    pub pid: u32,
    /// User id of the process in the initial user namespace.
    pub uid: u32,
    /// The command name of its thread-group leader, NUL-padded: at most 15 bytes of any value (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
}

impl Process {
    /// Returns the command name without padding. The bytes are untrusted: every process sets its own name.
    pub fn name(&self) -> &[u8] {
        unpadded(&self.comm)
    }
}

/// The name of a thread that is not its process's main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadName(
    /// NUL-padded: at most 15 bytes of any value (`TASK_COMM_LEN`).
    pub [u8; 16],
);

impl ThreadName {
    /// Returns the name without padding. The bytes are untrusted.
    pub fn name(&self) -> &[u8] {
        unpadded(&self.0)
    }
}

fn unpadded(comm: &[u8; 16]) -> &[u8] {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    &comm[..end]
}
