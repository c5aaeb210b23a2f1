//! The identity of a socket and its endpoints.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
};

use super::Timestamp;

/// Identifies a kernel socket among the sockets that exist at the same time.
///
/// The id is derived from the address of the socket, which the kernel may reuse within a millisecond. A lifecycle
/// therefore begins at CLOSE→SYN_SENT, CLOSE→LISTEN or LISTEN→SYN_RECV, not at a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Identifies a connection among all connections of all hosts and runs.
///
/// It is derived from the socket and the time of the connection's first event, so every replay of a recording gives the same
/// id. Connections on one socket have different ids; those on different sockets have the same with a probability of 2^-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(NonZeroU64);

impl ConnectionId {
    /// Returns the id of the connection that began on `socket` at this time.
    pub const fn new(socket: SocketId, began: Timestamp) -> Self {
        // Exports of one recording by different versions should agree, so this is no hash of a library, whose next version
        // may differ.
        let id = mixed(socket.0 ^ mixed(began.0));
        Self(NonZeroU64::MIN.saturating_add(id.saturating_sub(1)))
    }

    /// Returns the id as a number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Spreads a number over all 64 bits, reversibly: the step of SplitMix64 (Steele, Lea and Flood, 2014).
const fn mixed(number: u64) -> u64 {
    let sum = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let product = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let product = (product ^ (product >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    product ^ (product >> 31)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are part of exported files: a change separates exports of different versions.
    #[test]
    fn ids_of_connections_are_stable_and_distinct() {
        // The first two numbers of SplitMix64 with the seed 0.
        assert_eq!((mixed(0), mixed(0x9e37_79b9_7f4a_7c15)), (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4));
        let ids: std::collections::HashSet<ConnectionId> = (0..100)
            .flat_map(|socket| (0..100).map(move |time| ConnectionId::new(SocketId(socket), Timestamp(time))))
            .collect();
        assert_eq!(ids.len(), 10_000);
        let id = ConnectionId::new(SocketId(7), Timestamp(9));
        assert_eq!(id.get(), mixed(7 ^ mixed(9)));
    }
}
