//! A dump of the listeners and of the half-open handshakes.

use hashbrown::{HashMap, HashSet};

use crate::event::{AcceptQueue, CgroupId, Endpoint, Netns, SocketCookie};

/// A network namespace, and an address and port in it.
pub type ListenAddress = (Option<Netns>, Endpoint);

/// Counts by address.
pub type AddressCounts = HashMap<ListenAddress, u64, foldhash::fast::RandomState>;

/// A set of network namespaces.
pub type NetnsSet = HashSet<Option<Netns>, foldhash::fast::RandomState>;

/// A listening socket in a socket dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerSnapshot {
    /// The kernel's socket cookie.
    pub cookie: SocketCookie,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The address and port it listens on.
    pub local: Endpoint,
    /// The accept queue.
    pub accept_queue: Option<AcceptQueue>,
    /// The kernel's count of drops since the socket was created (`sk_drops`). It wraps.
    pub drops: Option<u32>,
    /// The cgroup that the socket was created in.
    pub cgroup_id: Option<CgroupId>,
}

/// A dump of the listeners and of the half-open handshakes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerDump {
    /// The listeners.
    pub listeners: Vec<ListenerSnapshot>,
    /// The request sockets by their local endpoint; endpoints without request sockets are omitted.
    pub half_open: AddressCounts,
    /// The namespaces whose listeners are complete.
    pub complete: NetnsSet,
    /// The namespaces whose request sockets are complete.
    pub half_open_complete: NetnsSet,
}
