//! The owning process of a connection, and how it was determined.

use std::fmt;

use crate::event::{Process, ThreadName};

/// How the owner of a connection was determined, and how each source can be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OwnerSource {
    /// The process that called `connect()`. For MPTCP and NFS this is a kernel worker.
    Connect,
    /// The process that called `listen()` on the socket that accepted the connection. A pre-forking server shows its
    /// parent process until a worker closes or reads from the socket.
    Listener,
    /// The first process that read from the socket. A connection that is never read has none.
    Reader,
    /// The process that closed or shut down the socket. `ss -K` and a worker that performs a delayed close
    /// also appear here.
    Closer,
    /// The process whose `accept()` returned the socket. Another process that reads from the connection or closes it takes its
    /// place.
    Accept,
    /// A process that held a descriptor of the socket when `/proc` was read. Another process may share the
    /// descriptor.
    Scan,
    /// The owner is unknown.
    #[default]
    Unknown,
}

impl OwnerSource {
    /// All sources.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Listener, Self::Reader, Self::Closer, Self::Accept, Self::Scan, Self::Unknown];

    /// Returns the name in machine output (`owner_source`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listener => "listener",
            Self::Reader => "reader",
            Self::Closer => "closer",
            Self::Accept => "accept",
            Self::Scan => "scan",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for OwnerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The owning process of a connection, and how it was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process; none if unknown.
    pub process: Option<Process>,
    /// The thread of the process that made the call; none if it is the main thread, or unknown.
    pub thread: Option<ThreadName>,
    /// How the process was determined.
    pub source: OwnerSource,
}

impl Owner {
    /// No known owner.
    pub(crate) const UNKNOWN: Self = Self { process: None, thread: None, source: OwnerSource::Unknown };

    /// Creates an owner from `process`; [`UNKNOWN`](Self::UNKNOWN) if it is none.
    pub(crate) fn from_process(process: Option<Process>, source: OwnerSource) -> Self {
        match process {
            Some(_) => Self { process, thread: None, source },
            None => Self::UNKNOWN,
        }
    }

    /// Adds the thread that made the call.
    pub(crate) fn with_thread(self, thread: Option<ThreadName>) -> Self {
        Self { thread, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::OwnerSource;

    #[test]
    fn names_match_the_machine_contract() {
        let names: Vec<&str> = OwnerSource::ALL.into_iter().map(OwnerSource::name).collect();
        assert_eq!(names, ["connect", "listener", "reader", "closer", "accept", "scan", "unknown"]);
        assert_eq!(format!("{:>8}", OwnerSource::Scan), "    scan");
    }
}
