//! What handshakes are grouped by.

use std::{net::IpAddr, sync::Arc};

use crate::{analysis::HandshakeAttempt, event::Endpoint, lifecycle::Role};

/// What handshakes are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakesBy {
    /// The service: of a client the remote address and port, of a server its local port
    #[default]
    Service,
    /// The remote address
    Remote,
    /// The remote port
    RemotePort,
    /// The local port
    LocalPort,
    /// The name of the process
    Process,
    /// The container of the socket
    Container,
    /// Which side opened the connection
    Role,
    /// Nothing: all of them together
    None,
}

/// What the handshakes of a group share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// The service at a remote end.
    Service(Endpoint),
    /// The service on a local port.
    Served(u16),
    /// A remote address.
    Remote(IpAddr),
    /// A remote port.
    RemotePort(u16),
    /// A local port; of a client that failed before it had one, 0.
    LocalPort(u16),
    /// A process name, NUL-padded; none where nobody is known.
    Process(Option<[u8; 16]>),
    /// A container's id; none outside of one, or where it is not known.
    Container(Option<Arc<str>>),
    /// A role.
    Role(Role),
    /// All of them.
    All,
    /// All whose group found no place.
    Other,
}

impl GroupKey {
    /// The group of an opening; `container` is its socket's.
    pub fn of(opening: &HandshakeAttempt, by: HandshakesBy, container: Option<Arc<str>>) -> Self {
        match by {
            HandshakesBy::Service if opening.role == Role::Server => Self::Served(opening.local.port),
            HandshakesBy::Service => Self::Service(opening.remote),
            HandshakesBy::Remote => Self::Remote(opening.remote.address),
            HandshakesBy::RemotePort => Self::RemotePort(opening.remote.port),
            HandshakesBy::LocalPort => Self::LocalPort(opening.local.port),
            HandshakesBy::Process => Self::Process(opening.process.map(|process| process.comm)),
            HandshakesBy::Container => Self::Container(container),
            HandshakesBy::Role => Self::Role(opening.role),
            HandshakesBy::None => Self::All,
        }
    }
}
