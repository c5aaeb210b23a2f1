/// How the owner of a connection is known, from the surest to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerSource {
    /// It called `connect()`.
    Connect,
    /// It called `accept()`.
    Accept,
    /// It read from the accepted connection.
    Reader,
    /// It closed the connection.
    Closer,
    /// It owns the listener that the connection came in by.
    Listener,
    /// It held a descriptor of the socket when `/proc` was searched.
    Scan,
    /// Nobody is known.
    Unknown,
}

impl OwnerSource {
    /// The name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Reader => "reader",
            Self::Closer => "closer",
            Self::Listener => "listener",
            Self::Scan => "scan",
            Self::Unknown => "unknown",
        }
    }
}
