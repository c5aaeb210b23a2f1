//! What names a socket and its two ends.

use std::net::IpAddr;

/// The identity of a kernel socket, unique among the sockets that exist at one moment.
///
/// Derived from the socket's address, which the kernel reuses within a millisecond of the socket's
/// end: a lifecycle begins at CLOSE→SYN_SENT, CLOSE→LISTEN or LISTEN→SYN_RECV, not at a new identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// One end of a connection. An unspecified address or port 0 means that the kernel had none then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; a v4-mapped IPv6 address is given as the IPv4 address it stands for.
    pub address: IpAddr,
    /// The port, host order; 0 when not bound or not known yet.
    pub port: u16,
}
