//! The listening sockets, so that an accepted connection can be told its listener's process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::event::{Endpoint, Process, SocketId, Timestamp, Transition};

/// Most listeners kept; a host with more has some connections without an owner until they are read
/// or closed.
const MAX_LISTENERS: usize = 65_536;

/// Where connections arrive: a network namespace, an address and a port.
type Key = (Option<u32>, Endpoint);

/// A listener.
#[derive(Clone, Copy, Debug)]
struct Listener {
    /// Unknown for one that was there before tracing began.
    socket: Option<SocketId>,
    process: Option<Process>,
}

/// Listening sockets by namespace, address and port. Several may share a port (`SO_REUSEPORT`).
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_endpoint: HashMap<Key, Vec<Listener>, foldhash::fast::RandomState>,
    by_socket: HashMap<SocketId, (Key, Timestamp), foldhash::fast::RandomState>,
}

impl Listeners {
    /// A socket began to listen.
    pub(super) fn insert(&mut self, transition: &Transition) {
        let socket = transition.socket;
        self.remove(socket);
        if self.by_socket.len() >= MAX_LISTENERS {
            return;
        }
        let key = (transition.netns, transition.local);
        self.by_socket.insert(socket, (key, transition.time));
        let listener = Listener { socket: Some(socket), process: transition.process };
        self.by_endpoint.entry(key).or_default().push(listener);
    }

    /// A listener that was there before tracing began, unless it is known already.
    pub(super) fn found(&mut self, netns: Option<u32>, local: Endpoint, process: Option<Process>) {
        if self.by_endpoint.len() >= MAX_LISTENERS {
            return;
        }
        let group = self.by_endpoint.entry((netns, local)).or_default();
        let pid = process.map(|process| process.pid);
        if !group.iter().any(|known| known.process.map(|process| process.pid) == pid) {
            group.push(Listener { socket: None, process });
        }
    }

    /// A listener closed: since when it listened, if that was seen.
    pub(super) fn close(
        &mut self,
        socket: SocketId,
        netns: Option<u32>,
        local: Endpoint,
    ) -> Option<Timestamp> {
        if let Some(since) = self.remove(socket) {
            return Some(since);
        }
        // One that was there before: those on a port are alike, so any of them stands for it.
        if let Some(group) = self.by_endpoint.get_mut(&(netns, local)) {
            if let Some(index) = group.iter().position(|known| known.socket.is_none()) {
                group.swap_remove(index);
            }
            if group.is_empty() {
                self.by_endpoint.remove(&(netns, local));
            }
        }
        None
    }

    /// A socket that listened, if it did, does so no more: since when it had.
    pub(super) fn remove(&mut self, socket: SocketId) -> Option<Timestamp> {
        let (key, since) = self.by_socket.remove(&socket)?;
        if let Some(group) = self.by_endpoint.get_mut(&key) {
            group.retain(|listener| listener.socket != Some(socket));
            if group.is_empty() {
                self.by_endpoint.remove(&key);
            }
        }
        Some(since)
    }

    /// Where each listens, and its process.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Option<u32>, Endpoint, Option<Process>)> + '_ {
        self.by_endpoint.iter().flat_map(|(&(netns, local), group)| {
            group.iter().map(move |listener| (netns, local, listener.process))
        })
    }

    /// The process that listens where a connection arrived: on its address, else on any address.
    /// None when several processes share the port, because nothing tells which one it was.
    pub(super) fn owner(&self, netns: Option<u32>, local: Endpoint) -> Option<Process> {
        let group = self.at(netns, local)?;
        let first = group.first()?.process?;
        group.iter().all(|listener| listener.process.is_some_and(|it| it.pid == first.pid)).then_some(first)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_endpoint.values().map(Vec::len).sum()
    }

    fn at(&self, netns: Option<u32>, local: Endpoint) -> Option<&Vec<Listener>> {
        // A listener on `::` takes IPv4 too, unless it is told not to; one on `0.0.0.0` never IPv6.
        let any: &[IpAddr] = if local.address.is_ipv4() {
            &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        } else {
            &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        };
        std::iter::once(local.address)
            .chain(any.iter().copied())
            .find_map(|address| self.by_endpoint.get(&(netns, Endpoint { address, port: local.port })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::TcpState;

    const fn process(pid: u32) -> Process {
        Process { pid, uid: 0, comm: [0; 16] }
    }

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn listens(socket: u64, local: &str, pid: u32) -> Transition {
        Transition {
            time: Timestamp(5),
            socket: SocketId(socket),
            cookie: None,
            from: TcpState::Closed,
            to: TcpState::Listen,
            local: endpoint(local),
            remote: endpoint("0.0.0.0:0"),
            process: Some(process(pid)),
            netns: None,
            cgroup_id: None,
            accept_queue: None,
            flags: None,
            info: None,
        }
    }

    #[test]
    fn the_exact_address_is_preferred_to_any() {
        let mut listeners = Listeners::default();
        listeners.insert(&listens(1, "0.0.0.0:80", 1));
        listeners.insert(&listens(2, "127.0.0.2:80", 2));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.2:80")), Some(process(2)));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.3:80")), Some(process(1)));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.3:81")), None);
        assert_eq!(listeners.owner(Some(9), endpoint("127.0.0.3:80")), None);
    }

    #[test]
    fn a_port_shared_by_two_processes_has_no_certain_owner() {
        let mut listeners = Listeners::default();
        listeners.insert(&listens(1, "[::]:80", 1));
        listeners.insert(&listens(2, "[::]:80", 2));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.1:80")), None);
        listeners.remove(SocketId(2));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.1:80")), Some(process(1)));
    }

    #[test]
    fn a_reused_socket_leaves_its_old_port() {
        let mut listeners = Listeners::default();
        listeners.insert(&listens(1, "0.0.0.0:80", 1));
        listeners.insert(&listens(1, "0.0.0.0:81", 1));
        assert_eq!(listeners.owner(None, endpoint("10.0.0.1:80")), None);
        assert_eq!(listeners.owner(None, endpoint("10.0.0.1:81")), Some(process(1)));
    }
}
