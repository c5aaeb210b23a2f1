//! The listening sockets, so that an accepted connection can be told its listener's process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::event::{Endpoint, Process, SocketId, Timestamp, Transition};

/// Most listeners kept; a host with more has some connections without an owner until they are read
/// or closed.
const MAX_LISTENERS: usize = 65_536;

/// Most listeners that a look at the host adds to one address and port.
const MAX_FOUND: usize = 1024;

/// Where connections arrive: a network namespace, an address and a port.
type Key = (Option<u32>, Endpoint);

/// A listener.
#[derive(Clone, Copy, Debug)]
struct Listener {
    /// Unknown for one that was there before tracing began.
    socket: Option<SocketId>,
    process: Option<Process>,
    /// The last look at the host that told of it; 0 for none.
    look: u64,
}

/// Listening sockets by namespace, address and port. Several may share a port (`SO_REUSEPORT`).
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_endpoint: HashMap<Key, Vec<Listener>, foldhash::fast::RandomState>,
    by_socket: HashMap<SocketId, (Key, Timestamp), foldhash::fast::RandomState>,
    /// How many looks at the host have been told.
    looks: u64,
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
        let listener = Listener { socket: Some(socket), process: transition.process, look: 0 };
        self.by_endpoint.entry(key).or_default().push(listener);
    }

    /// A look at the host begins to be told.
    pub(super) fn look(&mut self) {
        self.looks += 1;
    }

    /// A listener that a look at the host found, unless it is known already.
    ///
    /// A look tells of each once. So each stands for one that is known there and that the look has not told of
    /// yet: of the same process, or of any when the look is without processes.
    pub(super) fn found(&mut self, netns: Option<u32>, local: Endpoint, process: Option<Process>) {
        if self.by_endpoint.len() >= MAX_LISTENERS {
            return;
        }
        let look = self.looks;
        let group = self.by_endpoint.entry((netns, local)).or_default();
        let is_it = |known: &&mut Listener| {
            known.look != look
                && process.is_none_or(|process| known.process.is_some_and(|it| it.pid == process.pid))
        };
        if let Some(known) = group.iter_mut().find(is_it) {
            known.look = look;
        } else if group.len() < MAX_FOUND {
            group.push(Listener { socket: None, process, look });
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
            thread: None,
            netns: None,
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            unaccepted_segments: None,
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
    fn a_look_adds_only_the_listeners_that_are_more_than_known() {
        let mut listeners = Listeners::default();
        let local = endpoint("0.0.0.0:80");
        let pids = |listeners: &Listeners| -> Vec<_> {
            listeners.iter().map(|(.., process)| process.map(|process| process.pid)).collect()
        };
        // Two sockets of one process, and one of nobody.
        listeners.look();
        for pid in [Some(1), Some(1), None] {
            listeners.found(None, local, pid.map(process));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None]);
        // A later look does not tell processes.
        listeners.look();
        for _ in 0..3 {
            listeners.found(None, local, None);
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None]);
        listeners.look();
        for _ in 0..4 {
            listeners.found(None, local, None);
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None, None]);
        // Another process's is another one.
        listeners.look();
        for pid in [2, 1] {
            listeners.found(None, local, Some(process(pid)));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None, None, Some(2)]);
    }

    #[test]
    fn a_port_does_not_grow_without_bound() {
        let mut listeners = Listeners::default();
        listeners.look();
        for _ in 0..2 * MAX_FOUND {
            listeners.found(None, endpoint("0.0.0.0:80"), None);
        }
        assert_eq!(listeners.len(), MAX_FOUND);
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
