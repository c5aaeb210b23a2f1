//! The table of listening sockets, which gives an accepted connection its owner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::event::{Endpoint, Netns, Process, SocketId, Timestamp, Transition};

/// Capacity of the table. Connections of further listeners have no owner until a process reads from them or closes
/// them.
const MAX_LISTENERS: usize = 65_536;

/// Listeners on one address and port beyond which socket dumps add none. Each dumped listener is compared with all of
/// them.
const MAX_DUMPED: usize = 1024;

/// A network namespace, and the address and port a socket listens on.
type ListenAddress = (Option<Netns>, Endpoint);

/// A listener.
#[derive(Clone, Copy, Debug)]
struct Listener {
    /// None for a listener that was found by a socket dump.
    socket: Option<SocketId>,
    process: Option<Process>,
    /// The number of the last socket dump that contained it; 0 for none.
    last_dump: u64,
}

/// The listeners on one address. Several may share it (`SO_REUSEPORT`).
#[derive(Debug, Default)]
struct Group {
    listeners: Vec<Listener>,
    /// The time of the last event of a listener on this address.
    changed: Timestamp,
}

/// The listening sockets by namespace, address and port.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_endpoint: HashMap<ListenAddress, Group, foldhash::fast::RandomState>,
    by_socket: HashMap<SocketId, (ListenAddress, Timestamp), foldhash::fast::RandomState>,
    /// The number of listeners in all groups.
    len: usize,
    /// The number of socket dumps so far.
    dumps: u64,
}

impl Listeners {
    /// Adds the socket that `transition` moves to LISTEN. Returns false if the table is full.
    #[must_use]
    pub(super) fn insert(&mut self, transition: &Transition) -> bool {
        let socket = transition.socket;
        self.remove(socket, transition.time);
        if self.len >= MAX_LISTENERS {
            return false;
        }
        let key = (transition.netns, transition.local);
        self.by_socket.insert(socket, (key, transition.time));
        let listener = Listener { socket: Some(socket), process: transition.process, last_dump: 0 };
        let group = self.by_endpoint.entry(key).or_default();
        group.listeners.push(listener);
        group.changed = transition.time;
        self.len += 1;
        true
    }

    /// Starts a new socket dump.
    pub(super) fn begin_dump(&mut self) {
        self.dumps += 1;
    }

    /// Adds a listener from a socket dump, unless the table already contains it. Returns false if the table or the
    /// address is at its limit.
    ///
    /// A dump contains each listener once. A dumped listener therefore matches one known listener on the same
    /// address that this dump has not matched yet: of the same process, or of any process if the dump names none.
    #[must_use]
    pub(super) fn dumped(&mut self, netns: Option<Netns>, local: Endpoint, process: Option<Process>) -> bool {
        let dump = self.dumps;
        let same_listener = |known: &&mut Listener| {
            known.last_dump != dump
                && process.is_none_or(|process| known.process.is_some_and(|it| it.pid == process.pid))
        };
        let group = self.by_endpoint.get_mut(&(netns, local));
        let known = group.as_ref().map_or(0, |group| group.listeners.len());
        if let Some(known) = group.and_then(|group| group.listeners.iter_mut().find(same_listener)) {
            known.last_dump = dump;
            return true;
        }
        if self.len >= MAX_LISTENERS || known >= MAX_DUMPED {
            return false;
        }
        let listener = Listener { socket: None, process, last_dump: dump };
        self.by_endpoint.entry((netns, local)).or_default().listeners.push(listener);
        self.len += 1;
        true
    }

    /// Removes the listeners in the scope of a socket dump that began at `started` and did not contain them: their close
    /// was missed. An address with an event since then is newer than the dump and stays as it is.
    pub(super) fn end_dump(&mut self, started: Timestamp, in_scope: impl Fn(Option<Netns>) -> bool) {
        let Self { by_endpoint, by_socket, len, dumps } = self;
        by_endpoint.retain(|&(netns, _), group| {
            if in_scope(netns) && group.changed < started {
                group.listeners.retain(|listener| {
                    let listens = listener.last_dump == *dumps;
                    if !listens {
                        *len -= 1;
                        listener.socket.map(|socket| by_socket.remove(&socket));
                    }
                    listens
                });
            }
            !group.listeners.is_empty()
        });
    }

    /// Removes the listener that `transition` closes and returns when it began listening, if that was seen.
    pub(super) fn close(&mut self, transition: &Transition) -> Option<Timestamp> {
        if let Some(since) = self.remove(transition.socket, transition.time) {
            return Some(since);
        }
        // A dumped listener has no socket id. Dumped listeners on one port are interchangeable, so remove any.
        self.take(&(transition.netns, transition.local), None, transition.time);
        None
    }

    /// Removes a listener at `time` and returns when it began listening.
    pub(super) fn remove(&mut self, socket: SocketId, time: Timestamp) -> Option<Timestamp> {
        let (key, since) = self.by_socket.remove(&socket)?;
        self.take(&key, Some(socket), time);
        Some(since)
    }

    /// Removes a listener from its group.
    fn take(&mut self, key: &ListenAddress, socket: Option<SocketId>, time: Timestamp) {
        let Some(group) = self.by_endpoint.get_mut(key) else { return };
        group.changed = time;
        if let Some(index) = group.listeners.iter().position(|listener| listener.socket == socket) {
            group.listeners.remove(index);
            self.len -= 1;
        }
        if group.listeners.is_empty() {
            self.by_endpoint.remove(key);
        }
    }

    /// Iterates over the namespace, the address and the process of each listener.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Option<Netns>, Endpoint, Option<Process>)> + '_ {
        self.by_endpoint.iter().flat_map(|(&(netns, local), group)| {
            group.listeners.iter().map(move |listener| (netns, local, listener.process))
        })
    }

    /// Returns the process that listens on `local`: on the exact address, else on a wildcard address.
    ///
    /// Returns none when several processes share the port, because the events do not identify the listener.
    pub(super) fn owner(&self, netns: Option<Netns>, local: Endpoint) -> Option<Process> {
        let group = &self.group_at(netns, local)?.listeners;
        let first = group.first()?.process?;
        group.iter().all(|listener| listener.process.is_some_and(|it| it.pid == first.pid)).then_some(first)
    }

    /// Returns the number of listeners.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn group_at(&self, netns: Option<Netns>, local: Endpoint) -> Option<&Group> {
        // A listener on `::` accepts IPv4 too, unless `IPV6_V6ONLY` is set; one on `0.0.0.0` never accepts IPv6.
        let wildcards: &[IpAddr] = if local.address.is_ipv4() {
            &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        } else {
            &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
        };
        std::iter::once(local.address)
            .chain(wildcards.iter().copied())
            .find_map(|address| self.by_endpoint.get(&(netns, Endpoint { address, port: local.port })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TcpState;

    const fn process(pid: u32) -> Process {
        Process { pid, uid: 0, comm: [0; 16] }
    }

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn listen_transition(socket: u64, local: &str, pid: u32) -> Transition {
        Transition {
            process: Some(process(pid)),
            ..Transition::new(
                Timestamp(5),
                SocketId(socket),
                TcpState::Closed,
                TcpState::Listen,
                endpoint(local),
                endpoint("0.0.0.0:0"),
            )
        }
    }

    #[test]
    fn the_exact_address_takes_precedence_over_the_wildcard() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:80", 1)));
        assert!(listeners.insert(&listen_transition(2, "127.0.0.2:80", 2)));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.2:80")), Some(process(2)));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.3:80")), Some(process(1)));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.3:81")), None);
        assert_eq!(listeners.owner(Some(Netns(9)), endpoint("127.0.0.3:80")), None);
    }

    #[test]
    fn a_port_shared_by_two_processes_has_no_certain_owner() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "[::]:80", 1)));
        assert!(listeners.insert(&listen_transition(2, "[::]:80", 2)));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.1:80")), None);
        listeners.remove(SocketId(2), Timestamp(6));
        assert_eq!(listeners.owner(None, endpoint("127.0.0.1:80")), Some(process(1)));
    }

    #[test]
    fn a_dump_adds_only_unknown_listeners() {
        let mut listeners = Listeners::default();
        let local = endpoint("0.0.0.0:80");
        let pids = |listeners: &Listeners| -> Vec<_> {
            listeners.iter().map(|(.., process)| process.map(|process| process.pid)).collect()
        };
        // Two sockets of one process, and one without a known process.
        listeners.begin_dump();
        for pid in [Some(1), Some(1), None] {
            assert!(listeners.dumped(None, local, pid.map(process)));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None]);
        // A later dump names no processes.
        listeners.begin_dump();
        for _ in 0..3 {
            assert!(listeners.dumped(None, local, None));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None]);
        listeners.begin_dump();
        for _ in 0..4 {
            assert!(listeners.dumped(None, local, None));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None, None]);
        // A listener of another process is a new listener.
        listeners.begin_dump();
        for pid in [2, 1] {
            assert!(listeners.dumped(None, local, Some(process(pid))));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None, None, Some(2)]);
    }

    #[test]
    fn dumped_listeners_of_one_port_are_bounded() {
        let mut listeners = Listeners::default();
        listeners.begin_dump();
        let mut dump = |_| listeners.dumped(None, endpoint("0.0.0.0:80"), None);
        assert_eq!((0..2 * MAX_DUMPED).map(&mut dump).filter(|&added| added).count(), MAX_DUMPED);
        assert_eq!(listeners.len(), MAX_DUMPED);
        // The next dump finds the listeners that the table contains.
        listeners.begin_dump();
        assert!(listeners.dumped(None, endpoint("0.0.0.0:80"), None));
    }

    #[test]
    fn a_full_table_refuses_listeners_until_one_closes() {
        let mut listeners = Listeners::default();
        for socket in 0..MAX_LISTENERS as u64 {
            assert!(listeners.insert(&listen_transition(socket, "0.0.0.0:80", 1)));
        }
        assert!(!listeners.insert(&listen_transition(u64::MAX, "0.0.0.0:80", 1)));
        assert!(!listeners.dumped(None, endpoint("0.0.0.0:81"), None));
        listeners.begin_dump();
        assert!(listeners.dumped(None, endpoint("0.0.0.0:80"), Some(process(1))), "the table contains it");
        assert_eq!(listeners.remove(SocketId(7), Timestamp(6)), Some(Timestamp(5)));
        assert!(listeners.dumped(None, endpoint("0.0.0.0:81"), None));
        assert_eq!(listeners.len(), MAX_LISTENERS);
    }

    #[test]
    fn a_socket_that_listens_again_leaves_its_old_port() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:80", 1)));
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:81", 1)));
        assert_eq!(listeners.owner(None, endpoint("10.0.0.1:80")), None);
        assert_eq!(listeners.owner(None, endpoint("10.0.0.1:81")), Some(process(1)));
    }

    #[test]
    fn a_dump_removes_the_listeners_that_it_does_not_contain() {
        let mut listeners = Listeners::default();
        for (socket, local) in [(1, "0.0.0.0:80"), (2, "0.0.0.0:80"), (3, "0.0.0.0:81")] {
            assert!(listeners.insert(&listen_transition(socket, local, 1)));
        }
        let elsewhere = Transition { netns: Some(Netns(9)), ..listen_transition(4, "0.0.0.0:82", 1) };
        assert!(listeners.insert(&elsewhere));
        listeners.begin_dump();
        assert!(listeners.dumped(None, endpoint("0.0.0.0:80"), None));
        // An event at the start of the dump is newer than the dump; all listeners have one at 5.
        listeners.end_dump(Timestamp(5), |netns| netns.is_none());
        assert_eq!(listeners.len(), 4);
        listeners.end_dump(Timestamp(6), |netns| netns.is_none());
        let mut left: Vec<_> = listeners.iter().map(|(_, local, _)| local.port).collect();
        left.sort_unstable();
        assert_eq!((left, listeners.len()), (vec![80, 82], 2));
        assert_eq!(listeners.remove(SocketId(3), Timestamp(7)), None);
        // A dump without any listener.
        listeners.begin_dump();
        listeners.end_dump(Timestamp(6), |_| true);
        assert_eq!((listeners.len(), listeners.by_socket.len()), (0, 0));
    }
}
