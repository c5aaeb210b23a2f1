//! The process behind an event.

/// A process, as the kernel named it when the event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process (thread group) id in the initial pid namespace.
    pub pid: u32,
    /// User id of the process in the initial user namespace.
    pub uid: u32,
    /// Its name, NUL-padded: at most 15 bytes, of any content (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
}

impl Process {
    /// The name without its padding. The bytes are untrusted: a process names itself.
    pub fn name(&self) -> &[u8] {
        let end = self.comm.iter().position(|&byte| byte == 0).unwrap_or(self.comm.len());
        &self.comm[..end]
    }
}
