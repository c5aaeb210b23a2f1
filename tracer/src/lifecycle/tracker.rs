//! The table of live connections.

use hashbrown::HashTable;
use slab::Slab;

use super::{
    CloseReason, ClosedConnection, Connection, Ending, Handshake, Observation, Owner, Role, TcpState,
    TimeWaitModel, listeners::Listeners,
};
use crate::{
    event::{Event, Process, SocketId, Timestamp, Transition},
    owner::OwnerSource,
};

/// How a [`Tracker`] works.
#[derive(Clone, Copy, Debug)]
pub struct TrackerOptions {
    /// Most connections in the table; at least 1. When it is full, the one that has been silent for the
    /// longest among a few is forgotten for each new one.
    pub max_connections: usize,
    /// How long the kernel keeps what remains of a closed connection.
    pub time_wait: TimeWaitModel,
}

/// The most connections unless told otherwise: about 280 MB when all are there.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1_000_000;

impl Default for TrackerOptions {
    fn default() -> Self {
        Self { max_connections: DEFAULT_MAX_CONNECTIONS, time_wait: TimeWaitModel::default() }
    }
}

/// What the tracker has seen, and what did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerCounts {
    /// Transitions taken in.
    pub transitions: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Connections forgotten because the table was full.
    pub evicted: u64,
    /// Transitions of sockets whose beginning was not seen.
    pub unmatched: u64,
    /// Transitions that did not follow from the one before: at least one between them was missed.
    pub gaps: u64,
    /// Connections whose end was not seen: another life began on the same socket.
    pub unseen_ends: u64,
}

struct Entry {
    socket: SocketId,
    last_event: Timestamp,
    connection: Connection,
}

// The target is 250 bytes per live connection; the index takes some ten more.
const _: () = assert!(size_of::<Entry>() <= 248);

/// How many entries are looked at to find one to forget.
const EVICTION_SAMPLE: usize = 8;

/// Tracks every socket from its first event to CLOSE.
pub struct Tracker {
    options: TrackerOptions,
    entries: Slab<Entry>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    listeners: Listeners,
    eviction_hand: usize,
    counts: TrackerCounts,
}

impl Tracker {
    /// An empty table.
    pub fn new(options: TrackerOptions) -> Self {
        Self {
            options: TrackerOptions {
                max_connections: options.max_connections.clamp(1, u32::MAX as usize),
                ..options
            },
            entries: Slab::new(),
            index: HashTable::new(),
            // Fixed, so that a replay is the same every time; socket identities are not chosen by peers.
            hasher: foldhash::fast::FixedState::with_seed(0x7463_7074),
            listeners: Listeners::default(),
            eviction_hand: 0,
            counts: TrackerCounts::default(),
        }
    }

    /// What was seen so far.
    pub fn counts(&self) -> TrackerCounts {
        self.counts
    }

    /// How many connections are in the table.
    pub fn live(&self) -> usize {
        self.entries.len()
    }

    /// The live connections, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = (SocketId, &Connection)> {
        self.entries.iter().map(|(_, entry)| (entry.socket, &entry.connection))
    }

    /// Takes in one event and reports what follows from it.
    pub fn observe(&mut self, event: &Event, report: &mut dyn FnMut(Observation<'_>)) {
        match event {
            Event::Transition(transition) => self.transition(transition, report),
        }
    }

    fn transition(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        self.counts.transitions += 1;
        match (transition.from, transition.to) {
            (TcpState::Closed, TcpState::Listen) => self.listen(transition, report),
            (TcpState::Listen, TcpState::Closed) => {
                self.listeners.remove(transition.socket);
                report(Observation::Transition { transition, duration_ns: None, connection: None });
            }
            // `ss -K` on a listener, and MPTCP: no life behind it.
            (TcpState::Closed, TcpState::Closed) => {
                report(Observation::Transition { transition, duration_ns: None, connection: None });
            }
            (TcpState::Closed, TcpState::SynSent) => {
                let owner = Owner::from_process(transition.process, OwnerSource::Connect);
                self.begin(transition, Role::Client, owner, report);
            }
            (TcpState::Listen, TcpState::SynReceived) => {
                let process = self.listeners.owner(transition.netns, transition.local);
                let owner = Owner::from_process(process, OwnerSource::Listener);
                self.begin(transition, Role::Server, owner, report);
            }
            (_, TcpState::Closed) => self.close(transition, report),
            (from, to) if from == to => self.repeat(transition, report),
            _ => self.advance(transition, report),
        }
    }

    fn listen(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        self.forget_previous_life(transition, report);
        self.listeners.insert(transition.socket, transition.netns, transition.local, transition.process);
        report(Observation::Transition { transition, duration_ns: None, connection: None });
    }

    fn begin(
        &mut self,
        transition: &Transition,
        role: Role,
        owner: Owner,
        report: &mut dyn FnMut(Observation<'_>),
    ) {
        self.forget_previous_life(transition, report);
        let key = self.insert(transition, Connection::begin(transition, role, owner), report);
        report(Observation::Transition {
            transition,
            duration_ns: None,
            connection: Some(&self.entries[key].connection),
        });
    }

    /// A socket begins a new life while an old one is in the table: its end was missed.
    fn forget_previous_life(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        self.listeners.remove(transition.socket);
        if let Some(mut old) = self.remove(transition.socket) {
            self.counts.unseen_ends += 1;
            self.counts.closed += 1;
            old.connection.gap = true;
            report(Observation::Closed(ClosedConnection {
                connection: &old.connection,
                closed: old.last_event,
                ending: Ending::UNSEEN,
                after: None,
                info: None,
            }));
        }
    }

    /// The same state again: the application called `close()` after `shutdown()`.
    fn repeat(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        let key = self.find_or_adopt(transition, report);
        let connection = &mut self.entries[key].connection;
        connection.learn(transition);
        correct_owner(connection, transition.process);
        let duration_ns = connection.history.since().map(|since| transition.time.since(since));
        report(Observation::Transition { transition, duration_ns, connection: Some(connection) });
    }

    fn advance(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        let key = self.find_or_adopt(transition, report);
        let connection = &mut self.entries[key].connection;
        connection.learn(transition);
        let duration_ns = connection.history.since().map(|since| transition.time.since(since));
        match (transition.from, transition.to) {
            (TcpState::SynSent, TcpState::SynReceived) if connection.role == Role::Client => {
                connection.role = Role::Simultaneous;
            }
            (_, TcpState::Established) => {
                connection.handshake = Handshake::completed(connection, transition.time, transition);
            }
            _ => {}
        }
        connection.history.push(transition.to, Some(transition.time));
        correct_owner(connection, transition.process);
        report(Observation::Transition { transition, duration_ns, connection: Some(connection) });
    }

    fn close(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        let key = self.find_or_adopt(transition, report);
        let connection = &mut self.entries[key].connection;
        connection.learn(transition);
        let duration_ns = connection.history.since().map(|since| transition.time.since(since));
        let ending = Ending::classify(connection, transition);
        if connection.never_established() {
            connection.handshake = Handshake::failed(connection, transition.info.as_ref());
        }
        if ending.reason != CloseReason::Killed {
            correct_owner(connection, transition.process);
        }
        let after = (ending.reason == CloseReason::Closed)
            .then(|| {
                let peer_fin = transition.flags.map(|flags| flags.peer_fin);
                self.options.time_wait.after_close(transition.from, peer_fin)
            })
            .flatten();
        report(Observation::Transition { transition, duration_ns, connection: Some(connection) });
        self.counts.closed += 1;
        if let Some(entry) = self.remove(transition.socket) {
            report(Observation::Closed(ClosedConnection {
                connection: &entry.connection,
                closed: transition.time,
                ending,
                after,
                info: transition.info.as_ref(),
            }));
        }
    }

    /// The entry the transition belongs to, in the state it leaves.
    fn find_or_adopt(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) -> usize {
        let Some(key) = self.find(transition.socket) else {
            self.counts.unmatched += 1;
            return self.insert(transition, Connection::adopt(transition), report);
        };
        let entry = &mut self.entries[key];
        entry.last_event = transition.time;
        let connection = &mut entry.connection;
        if connection.state() != transition.from {
            self.counts.gaps += 1;
            connection.gap = true;
            connection.history.push(transition.from, None);
        }
        key
    }

    fn hash(&self, socket: SocketId) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one(socket)
    }

    fn find(&self, socket: SocketId) -> Option<usize> {
        self.index
            .find(self.hash(socket), |&key| self.entries[key as usize].socket == socket)
            .map(|&key| key as usize)
    }

    fn insert(
        &mut self,
        transition: &Transition,
        connection: Connection,
        report: &mut dyn FnMut(Observation<'_>),
    ) -> usize {
        if self.entries.len() >= self.options.max_connections {
            self.evict(report);
        }
        let socket = transition.socket;
        let key = self.entries.insert(Entry { socket, last_event: transition.time, connection });
        let small = u32::try_from(key).expect("the table is limited to u32::MAX entries");
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(self.hash(socket), small, |&key| {
            use std::hash::BuildHasher as _;
            hasher.hash_one(entries[key as usize].socket)
        });
        key
    }

    fn remove(&mut self, socket: SocketId) -> Option<Entry> {
        let hash = self.hash(socket);
        let entries = &self.entries;
        let found = self.index.find_entry(hash, |&key| entries[key as usize].socket == socket).ok()?;
        let (key, _) = found.remove();
        self.entries.try_remove(key as usize)
    }

    /// Forgets the connection that has been silent for the longest among a few, going round the table.
    fn evict(&mut self, report: &mut dyn FnMut(Observation<'_>)) {
        let capacity = self.entries.capacity();
        let mut silent: Option<(SocketId, Timestamp)> = None;
        let mut sampled = 0;
        for _ in 0..capacity {
            self.eviction_hand = (self.eviction_hand + 1) % capacity.max(1);
            let Some(entry) = self.entries.get(self.eviction_hand) else { continue };
            if silent.is_none_or(|(_, time)| entry.last_event < time) {
                silent = Some((entry.socket, entry.last_event));
            }
            sampled += 1;
            if sampled == EVICTION_SAMPLE {
                break;
            }
        }
        if let Some((socket, _)) = silent
            && let Some(entry) = self.remove(socket)
        {
            self.counts.evicted += 1;
            report(Observation::Evicted { connection: &entry.connection });
        }
    }
}

/// A later process knows better than the listener's: it closed the connection itself. A client keeps
/// the process that connected, and the kernel's own threads own nothing.
fn correct_owner(connection: &mut Connection, process: Option<Process>) {
    let Some(process) = process else { return };
    let replaceable = matches!(connection.owner.source, OwnerSource::Listener | OwnerSource::Unknown);
    if replaceable && !process.name().starts_with(b"kworker/") {
        connection.owner = Owner { process: Some(process), source: OwnerSource::Closer };
    }
}
