//! The table of listening sockets, which gives an accepted connection its owner.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::event::{
    CgroupId, Endpoint, ExistingSocket, Netns, Process, SocketCookie, SocketId, ThreadName, Timestamp,
    Transition,
};

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
    cookie: Option<SocketCookie>,
    process: Option<Process>,
    thread: Option<ThreadName>,
    cgroup_id: Option<CgroupId>,
    /// It had `IP_TRANSPARENT` when it began to listen. Socket dumps do not show the option.
    transparent: bool,
    /// It had `TCP_DEFER_ACCEPT` when it began to listen. Socket dumps do not show the option.
    defer_accept: bool,
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

impl Listener {
    /// Returns whether the kernel may have copied `child` from this listener: an accepted socket is created in its
    /// listener's cgroup and has its options.
    ///
    /// With TPROXY and `sk_lookup` the local endpoint of a connection is not its listener's, but may be another's.
    fn may_accept(&self, child: &Transition) -> bool {
        let same_cgroup = self.cgroup_id.zip(child.cgroup_id).is_none_or(|(its, childs)| its == childs);
        // Up to 6.14 the child still has its listener's endpoint, and no remote port.
        let is_redirected = child.transparent && child.remote.port != 0;
        same_cgroup && (self.transparent || !is_redirected)
    }
}

/// The properties of a listener that its connections need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ListenerProperties {
    pub(super) process: Option<Process>,
    pub(super) thread: Option<ThreadName>,
    pub(super) defer_accept: bool,
}

/// The listening sockets by namespace, address and port.
///
/// A listener without `bind()` has port 0: the kernel binds it after the transition to LISTEN (`inet_csk_listen_start`,
/// 6.18 inet_connection_sock.c).
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
        let listener = Listener {
            socket: Some(socket),
            cookie: transition.cookie,
            process: transition.process,
            thread: transition.thread,
            cgroup_id: transition.cgroup_id,
            transparent: transition.transparent,
            defer_accept: transition.defer_accept,
            last_dump: 0,
        };
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
    pub(super) fn dumped(&mut self, existing: &ExistingSocket) -> bool {
        let &ExistingSocket { netns, local, process, .. } = existing;
        let dump = self.dumps;
        self.bind_port(existing);
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
        let listener = Listener {
            socket: None,
            cookie: Some(existing.cookie),
            process,
            thread: None,
            cgroup_id: existing.cgroup_id,
            transparent: false,
            defer_accept: false,
            last_dump: dump,
        };
        self.by_endpoint.entry((netns, local)).or_default().listeners.push(listener);
        self.len += 1;
        true
    }

    /// Assigns the port of a dumped listener to the same listener without a port: of the same cookie, or if its cookie
    /// is unknown, of the same process.
    fn bind_port(&mut self, existing: &ExistingSocket) {
        let &ExistingSocket { netns, local, process, cookie, .. } = existing;
        let unbound = (netns, Endpoint { port: 0, ..local });
        let Some(group) = self.by_endpoint.get_mut(&unbound) else { return };
        let is_same = |known: &Listener| match known.cookie {
            Some(known) => known == cookie,
            None => process.zip(known.process).is_some_and(|(one, other)| one.pid == other.pid),
        };
        let Some(index) = group.listeners.iter().position(is_same) else { return };
        let listener = group.listeners.swap_remove(index);
        let changed = group.changed;
        if group.listeners.is_empty() {
            self.by_endpoint.remove(&unbound);
        }
        if let Some((key, _)) = listener.socket.and_then(|socket| self.by_socket.get_mut(&socket)) {
            *key = (netns, local);
        }
        let group = self.by_endpoint.entry((netns, local)).or_default();
        group.listeners.push(listener);
        group.changed = group.changed.max(changed);
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

    /// Returns the properties of the listener from which the kernel copied `child`, at LISTEN→SYN_RECV: of the one on the
    /// exact address, else on a wildcard address, else without a port.
    ///
    /// The process is none when listeners of several processes are possible, because the events do not identify the
    /// listener.
    pub(super) fn of_child(&self, child: &Transition) -> ListenerProperties {
        let unbound = Endpoint { port: 0, ..child.local };
        let Some(group) =
            self.group_at(child.netns, child.local).or_else(|| self.group_at(child.netns, unbound))
        else {
            return ListenerProperties::default();
        };
        let mut possible = group.listeners.iter().filter(|listener| listener.may_accept(child));
        let Some(first) = possible.next() else { return ListenerProperties::default() };
        let Listener { mut process, mut thread, mut defer_accept, .. } = *first;
        for other in possible {
            process = process.filter(|first| other.process.is_some_and(|it| it.pid == first.pid));
            thread = thread.filter(|first| other.thread == Some(*first));
            defer_accept |= other.defer_accept;
        }
        ListenerProperties { process, thread: thread.filter(|_| process.is_some()), defer_accept }
    }

    /// Returns the number of listeners.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn group_at(&self, netns: Option<Netns>, local: Endpoint) -> Option<&Group> {
        listening_endpoints(local).find_map(|endpoint| self.by_endpoint.get(&(netns, endpoint)))
    }
}

/// Iterates over the endpoints whose listener accepts a connection to `local`, in the order of precedence: the exact
/// address, then the wildcard addresses.
pub(crate) fn listening_endpoints(local: Endpoint) -> impl Iterator<Item = Endpoint> {
    // A listener on `::` accepts IPv4 too, unless `IPV6_V6ONLY` is set; one on `0.0.0.0` never accepts IPv6.
    let wildcards: &[IpAddr] = if local.address.is_ipv4() {
        &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
    } else {
        &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
    };
    std::iter::once(local.address)
        .chain(wildcards.iter().copied())
        .map(move |address| Endpoint { address, port: local.port })
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

    /// A connection that the kernel has copied from a listener, as 6.15 and newer report it.
    fn child(local: &str) -> Transition {
        Transition::new(
            Timestamp(6),
            SocketId(100),
            TcpState::Listen,
            TcpState::SynReceived,
            endpoint(local),
            endpoint("10.0.0.9:4000"),
        )
    }

    fn owner(listeners: &Listeners, child: &Transition) -> Option<u32> {
        listeners.of_child(child).process.map(|process| process.pid)
    }

    fn existing(cookie: u64, local: &str, process: Option<Process>) -> ExistingSocket {
        ExistingSocket {
            time: Timestamp(7),
            cookie: SocketCookie(cookie),
            state: TcpState::Listen,
            state_age: None,
            local: endpoint(local),
            remote: endpoint("0.0.0.0:0"),
            process,
            netns: None,
            cgroup_id: None,
            info: None,
            interface: None,
        }
    }

    #[test]
    fn the_exact_address_takes_precedence_over_the_wildcard() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:80", 1)));
        assert!(listeners.insert(&listen_transition(2, "127.0.0.2:80", 2)));
        assert_eq!(owner(&listeners, &child("127.0.0.2:80")), Some(2));
        assert_eq!(owner(&listeners, &child("127.0.0.3:80")), Some(1));
        assert_eq!(owner(&listeners, &child("127.0.0.3:81")), None);
        assert_eq!(owner(&listeners, &Transition { netns: Some(Netns(9)), ..child("127.0.0.3:80") }), None);
    }

    #[test]
    fn a_port_shared_by_two_processes_has_no_certain_owner() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "[::]:80", 1)));
        assert!(listeners.insert(&listen_transition(2, "[::]:80", 2)));
        assert_eq!(owner(&listeners, &child("127.0.0.1:80")), None);
        listeners.remove(SocketId(2), Timestamp(6));
        assert_eq!(owner(&listeners, &child("127.0.0.1:80")), Some(1));
    }

    #[test]
    fn a_dump_adds_only_unknown_listeners() {
        let mut listeners = Listeners::default();
        let local = "0.0.0.0:80";
        let pids = |listeners: &Listeners| -> Vec<_> {
            listeners.iter().map(|(.., process)| process.map(|process| process.pid)).collect()
        };
        // Two sockets of one process, and one without a known process.
        listeners.begin_dump();
        for pid in [Some(1), Some(1), None] {
            assert!(listeners.dumped(&existing(1, local, pid.map(process))));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None]);
        // A later dump names no processes.
        listeners.begin_dump();
        for _ in 0..3 {
            assert!(listeners.dumped(&existing(1, local, None)));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None]);
        listeners.begin_dump();
        for _ in 0..4 {
            assert!(listeners.dumped(&existing(1, local, None)));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None, None]);
        // A listener of another process is a new listener.
        listeners.begin_dump();
        for pid in [2, 1] {
            assert!(listeners.dumped(&existing(1, local, Some(process(pid)))));
        }
        assert_eq!(pids(&listeners), [Some(1), Some(1), None, None, Some(2)]);
    }

    #[test]
    fn dumped_listeners_of_one_port_are_bounded() {
        let mut listeners = Listeners::default();
        listeners.begin_dump();
        let mut dump = |_| listeners.dumped(&existing(1, "0.0.0.0:80", None));
        assert_eq!((0..2 * MAX_DUMPED).map(&mut dump).filter(|&added| added).count(), MAX_DUMPED);
        assert_eq!(listeners.len(), MAX_DUMPED);
        // The next dump finds the listeners that the table contains.
        listeners.begin_dump();
        assert!(listeners.dumped(&existing(1, "0.0.0.0:80", None)));
    }

    #[test]
    fn a_full_table_refuses_listeners_until_one_closes() {
        let mut listeners = Listeners::default();
        for socket in 0..MAX_LISTENERS as u64 {
            assert!(listeners.insert(&listen_transition(socket, "0.0.0.0:80", 1)));
        }
        assert!(!listeners.insert(&listen_transition(u64::MAX, "0.0.0.0:80", 1)));
        assert!(!listeners.dumped(&existing(1, "0.0.0.0:81", None)));
        listeners.begin_dump();
        assert!(listeners.dumped(&existing(1, "0.0.0.0:80", Some(process(1)))), "the table contains it");
        assert_eq!(listeners.remove(SocketId(7), Timestamp(6)), Some(Timestamp(5)));
        assert!(listeners.dumped(&existing(1, "0.0.0.0:81", None)));
        assert_eq!(listeners.len(), MAX_LISTENERS);
    }

    #[test]
    fn a_socket_that_listens_again_leaves_its_old_port() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:80", 1)));
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:81", 1)));
        assert_eq!(owner(&listeners, &child("10.0.0.1:80")), None);
        assert_eq!(owner(&listeners, &child("10.0.0.1:81")), Some(1));
    }

    #[test]
    fn a_redirected_connection_belongs_to_no_listener_on_its_own_endpoint() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:8080", 1)));
        let redirected = Transition { transparent: true, ..child("10.0.0.1:8080") };
        assert_eq!(owner(&listeners, &child("10.0.0.1:8080")), Some(1));
        assert_eq!(owner(&listeners, &redirected), None);
        assert!(
            listeners.insert(&Transition { transparent: true, ..listen_transition(2, "0.0.0.0:15006", 2) })
        );
        assert_eq!(owner(&listeners, &Transition { transparent: true, ..child("10.0.0.1:15006") }), Some(2));
        // Up to 6.14 the child has its listener's endpoint.
        let copy = Transition { remote: endpoint("0.0.0.0:0"), ..child("0.0.0.0:15006") };
        assert_eq!(owner(&listeners, &Transition { transparent: true, ..copy }), Some(2));
    }

    #[test]
    fn a_connection_of_another_cgroup_belongs_to_another_listener() {
        let mut listeners = Listeners::default();
        for (socket, cgroup) in [(1, 11), (2, 12)] {
            let listens = listen_transition(socket, "0.0.0.0:80", u32::try_from(socket).unwrap());
            assert!(listeners.insert(&Transition { cgroup_id: Some(CgroupId(cgroup)), ..listens }));
        }
        let in_cgroup = |id| Transition { cgroup_id: Some(CgroupId(id)), ..child("10.0.0.1:80") };
        assert_eq!(owner(&listeners, &in_cgroup(12)), Some(2));
        assert_eq!(owner(&listeners, &in_cgroup(13)), None);
        assert_eq!(owner(&listeners, &child("10.0.0.1:80")), None);
    }

    #[test]
    fn a_listener_without_bind_owns_the_connections_that_no_other_does() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:0", 1)));
        assert!(listeners.insert(&listen_transition(2, "0.0.0.0:80", 2)));
        assert_eq!(owner(&listeners, &child("10.0.0.1:40001")), Some(1));
        assert_eq!(owner(&listeners, &child("10.0.0.1:80")), Some(2));
        assert!(listeners.insert(&listen_transition(3, "0.0.0.0:0", 3)));
        assert_eq!(owner(&listeners, &child("10.0.0.1:40001")), None, "one of two");
    }

    #[test]
    fn a_dump_binds_the_port_of_a_listener_without_bind() {
        let mut listeners = Listeners::default();
        assert!(
            listeners.insert(&Transition {
                cookie: Some(SocketCookie(7)),
                ..listen_transition(1, "0.0.0.0:0", 1)
            })
        );
        assert!(listeners.insert(&listen_transition(2, "0.0.0.0:0", 2)));
        listeners.begin_dump();
        for (cookie, port) in [(8, "0.0.0.0:40002"), (7, "0.0.0.0:40001")] {
            let pid = if cookie == 7 { 1 } else { 2 };
            assert!(listeners.dumped(&existing(cookie, port, Some(process(pid)))));
        }
        assert_eq!(owner(&listeners, &child("10.0.0.1:40001")), Some(1));
        assert_eq!(owner(&listeners, &child("10.0.0.1:40002")), Some(2));
        assert_eq!(owner(&listeners, &child("10.0.0.1:40003")), None);
        assert_eq!(listeners.len(), 2);
        assert_eq!(listeners.close(&listen_transition(1, "0.0.0.0:40001", 1)), Some(Timestamp(5)));
        assert_eq!(owner(&listeners, &child("10.0.0.1:40001")), None);
    }

    #[test]
    fn any_possible_listener_that_defers_is_noted() {
        let mut listeners = Listeners::default();
        assert!(listeners.insert(&listen_transition(1, "0.0.0.0:80", 1)));
        assert!(!listeners.of_child(&child("10.0.0.1:80")).defer_accept);
        assert!(
            listeners.insert(&Transition { defer_accept: true, ..listen_transition(2, "0.0.0.0:80", 1) })
        );
        assert!(listeners.of_child(&child("10.0.0.1:80")).defer_accept);
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
        assert!(listeners.dumped(&existing(1, "0.0.0.0:80", None)));
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
