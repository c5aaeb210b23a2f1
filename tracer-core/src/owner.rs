//! Where the answer "this process owns the connection" came from.

use std::fmt;

use crate::event::Process;

/// Where an owner came from. The module page of [`owner`](crate::host) says how each can be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OwnerSource {
    /// The process that called `connect()`.
    Connect,
    /// The process that called `listen()` on the socket this one was accepted from.
    Listener,
    /// The first process that read from the socket.
    Reader,
    /// The process that closed or shut down the socket.
    Closer,
    /// The process that `accept()` gave the socket to.
    Accept,
    /// A process that held a descriptor of the socket when `/proc` was read.
    Scan,
    /// Nobody could be named.
    #[default]
    Unknown,
}

impl OwnerSource {
    /// Every source.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Listener, Self::Reader, Self::Closer, Self::Accept, Self::Scan, Self::Unknown];

    /// The name that machine output uses (`owner_source`); part of the contract.
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

/// The process a connection belongs to, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process; none while unknown.
    pub process: Option<Process>,
    /// How it is known.
    pub source: OwnerSource,
}

impl Owner {
    /// Nobody known.
    pub const UNKNOWN: Self = Self { process: None, source: OwnerSource::Unknown };

    /// A process that is known in this way, or nobody.
    pub fn from_process(process: Option<Process>, source: OwnerSource) -> Self {
        match process {
            Some(_) => Self { process, source },
            None => Self::UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OwnerSource;

    #[test]
    fn names_are_the_contract() {
        let names: Vec<&str> = OwnerSource::ALL.into_iter().map(OwnerSource::name).collect();
        assert_eq!(names, ["connect", "listener", "reader", "closer", "accept", "scan", "unknown"]);
        assert_eq!(format!("{:>8}", OwnerSource::Scan), "    scan");
    }
}
