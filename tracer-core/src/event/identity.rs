//! The identity of a socket and its endpoints.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Identifies a kernel socket among the sockets that exist at the same time.
///
/// The id is derived from the address of the socket, which the kernel may reuse within a millisecond. A lifecycle
/// therefore begins at CLOSE→SYN_SENT, CLOSE→LISTEN or LISTEN→SYN_RECV, not at a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A network namespace: the inode of its `/proc/PID/ns/net`, unique among the namespaces that exist at the same time.
///
/// BPF reads it from `net->ns.inum`. Socket dumps take it from the namespace of their netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Netns(pub u32);

impl fmt::Display for Netns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A cgroup v2: the id of its kernfs node, which is the inode of its directory (`cgroup->kn->id`).
///
/// Socket dumps report it as `INET_DIAG_CGROUP_ID`. Kernfs puts a generation into the upper half, so ids are not
/// reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupId(pub u64);

/// The kernel's socket cookie (`sk->sk_cookie`): a counter that the kernel never reuses before a reboot.
///
/// The kernel assigns the cookie on first use, so a socket may have none. A cookie is not a [`SocketId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketCookie(pub u64);

/// An endpoint of a connection. An unspecified address or a port of 0 means that the kernel had none at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address. A v4-mapped IPv6 address is represented as IPv4.
    pub address: IpAddr,
    /// The port in host byte order; 0 when not bound or not known.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip().to_canonical(), port: address.port() }
    }
}

/// Identifies a connection by network namespace and 4-tuple. No two live connections with a local port share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnKey {
    /// The network namespace, if known.
    pub netns: Option<Netns>,
    /// The local endpoint.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
}
