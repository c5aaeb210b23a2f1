//! The keys that handshakes are grouped by.

use std::{net::IpAddr, sync::Arc};

use crate::{
    analysis::HandshakeAttempt,
    event::Endpoint,
    lifecycle::{ClosedConnection, Role},
};

/// The attribute that handshakes are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakesBy {
    /// The service: the remote address and port of a client, the local port of a server.
    #[default]
    Service,
    /// The service, with the backend instead of the remote address and port of a client where it is known.
    Backend,
    /// The remote address.
    Remote,
    /// The remote port.
    RemotePort,
    /// The local port.
    LocalPort,
    /// The name of the process.
    Process,
    /// The container of the socket.
    Container,
    /// The Kubernetes pod of the socket.
    Pod,
    /// The Kubernetes namespace of the socket.
    Namespace,
    /// The Kubernetes workload of the socket.
    Workload,
    /// The side that opened the connection.
    Role,
    /// No grouping: one group of all handshakes.
    None,
}

impl HandshakesBy {
    /// Returns whether the groups share the container, pod, namespace or workload of the socket.
    pub const fn is_owner(self) -> bool {
        matches!(self, Self::Container | Self::Pod | Self::Namespace | Self::Workload)
    }
}

/// The attribute that the handshakes of a group share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// The service at a remote endpoint.
    Service(Endpoint),
    /// The service on a local port.
    Served(u16),
    /// A local port on which nobody listens.
    Unserved(u16),
    /// A remote address.
    Remote(IpAddr),
    /// A remote port.
    RemotePort(u16),
    /// A local port; 0 for a client that failed before the kernel bound one.
    LocalPort(u16),
    /// A process name, NUL-padded; none if the process is unknown.
    Process(Option<[u8; 16]>),
    /// The id of a container; none outside of a container, or if unknown.
    Container(Option<Arc<str>>),
    /// The namespace and the name of a pod; none outside of a pod, or if unknown.
    Pod(Option<Arc<str>>),
    /// The Kubernetes namespace of a pod; none outside of a pod, or if unknown.
    Namespace(Option<Arc<str>>),
    /// The namespace and the name of a workload; none outside of a pod, or if unknown.
    Workload(Option<Arc<str>>),
    /// The side that opened the connection.
    Role(Role),
    /// All handshakes.
    All,
    /// The handshakes of all groups over the limit.
    Other,
}

impl GroupKey {
    /// Returns the group key of an attempt. `owner` is the container, pod, namespace or workload of its socket, if `by` asks
    /// for one.
    pub fn of(attempt: &HandshakeAttempt, by: HandshakesBy, owner: Option<Arc<str>>) -> Self {
        match by {
            HandshakesBy::Service | HandshakesBy::Backend if attempt.unserved => {
                Self::Unserved(attempt.local.port)
            }
            HandshakesBy::Service | HandshakesBy::Backend if attempt.role == Role::Server => {
                Self::Served(attempt.local.port)
            }
            HandshakesBy::Service => Self::Service(attempt.remote),
            HandshakesBy::Backend => Self::Service(attempt.backend.unwrap_or(attempt.remote)),
            HandshakesBy::Remote => Self::Remote(attempt.remote.address),
            HandshakesBy::RemotePort => Self::RemotePort(attempt.remote.port),
            HandshakesBy::LocalPort => Self::LocalPort(attempt.local.port),
            HandshakesBy::Process => Self::Process(attempt.process.map(|process| process.comm)),
            HandshakesBy::Container => Self::Container(owner),
            HandshakesBy::Pod => Self::Pod(owner),
            HandshakesBy::Namespace => Self::Namespace(owner),
            HandshakesBy::Workload => Self::Workload(owner),
            HandshakesBy::Role => Self::Role(attempt.role),
            HandshakesBy::None => Self::All,
        }
    }

    /// Returns the group key of a closed connection: that of its handshake.
    pub fn of_closed(closed: &ClosedConnection<'_>, by: HandshakesBy, owner: Option<Arc<str>>) -> Self {
        let attempt = HandshakeAttempt {
            backend: closed.backend,
            ..HandshakeAttempt::of(closed.connection, closed.closed)
        };
        Self::of(&attempt, by, owner)
    }
}
