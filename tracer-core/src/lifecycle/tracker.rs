//! The table of live connections.

mod socket_dump;

use hashbrown::{HashMap, HashSet, HashTable};
use slab::Slab;

use crate::{
    event::{
        Endpoint, Event, FirstRead, Process, SocketId, SynAckRetransmit, TcpState, Timestamp, Transition,
    },
    lifecycle::{
        CloseCause, CloseReason, ClosedConnection, Connection, HalfOpen, Handshake, Observation, Role,
        TimeWaitModel, TimewaitSocket,
        abandoned::AbandonedHandshakes,
        half_open::{ConnKey, HalfOpens},
        listeners::Listeners,
        time_wait_table::TimeWaitTable,
    },
    owner::{Owner, OwnerSource},
};

/// How a [`Tracker`] works.
#[derive(Clone, Copy, Debug)]
pub struct TrackerOptions {
    /// Most connections in the table; at least 1. When it is full, the one that has been silent for the
    /// longest among a few is forgotten for each new one.
    pub max_connections: usize,
    /// How long the kernel keeps what time_wait_table of a closed connection.
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
    /// Connections whose end was not seen: another life began on the same socket, or a later look
    /// at the host did not find them.
    pub unseen_closes: u64,
    /// Connections that a look at the host found and no transition had shown.
    pub existing: u64,
    /// SYN-ACKs that were sent again.
    pub syn_ack_retransmits: u64,
    /// Handshakes that were answered and never completed.
    pub abandoned_handshakes: u64,
    /// Half-open connections and mini-sockets that were too many to follow.
    pub unfollowed: u64,
    /// Connections that took the ends of one in TIME_WAIT before its time was over.
    pub time_wait_reused: u64,
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
    half_opens: HalfOpens,
    abandoned: AbandonedHandshakes,
    time_wait_table: TimeWaitTable,
    /// Connections found by a look at the host, whose socket is not known before their next transition.
    found: HashMap<ConnKey, SocketId, foldhash::fast::FixedState>,
    /// While a look at the host is told: the connections it has not confirmed yet.
    unconfirmed: Option<HashMap<ConnKey, SocketId, foldhash::fast::FixedState>>,
    /// While a look at the host is told: the network namespaces it is of; none for all.
    scope: HashSet<u32, foldhash::fast::FixedState>,
    now: Timestamp,
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
            half_opens: HalfOpens::default(),
            abandoned: AbandonedHandshakes::default(),
            time_wait_table: TimeWaitTable::default(),
            found: HashMap::default(),
            unconfirmed: None,
            scope: HashSet::default(),
            now: Timestamp(0),
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

    /// How many places [`walk`](Self::walk) goes through; at least as many as there are connections.
    pub fn places(&self) -> usize {
        self.entries.capacity()
    }

    /// Visits the connections in `count` places of the table from `from` on. Gives the place to go on from,
    /// or none at the end.
    pub fn walk(&self, from: usize, count: usize, visit: &mut dyn FnMut(&Connection)) -> Option<usize> {
        let end = from.saturating_add(count).min(self.entries.capacity());
        for entry in (from..end).filter_map(|place| self.entries.get(place)) {
            visit(&entry.connection);
        }
        (end < self.entries.capacity()).then_some(end)
    }

    /// How many listening sockets are known.
    pub fn listening(&self) -> usize {
        self.listeners.len()
    }

    /// How many mini-sockets closed connections have left: in TIME_WAIT, and in FIN_WAIT2.
    pub fn timewait_counts(&self) -> (usize, usize) {
        self.time_wait_table.counts()
    }

    /// How many handshakes wait for their final ACK after a resend.
    pub fn half_open(&self) -> usize {
        self.half_opens.len()
    }

    /// The handshakes that were answered and never completed, by listener.
    pub fn abandoned(&self) -> &AbandonedHandshakes {
        &self.abandoned
    }

    /// Where somebody listens, and who: once for each listener, in no particular order.
    pub fn listeners(&self) -> impl Iterator<Item = (Option<u32>, Endpoint, Option<Process>)> + '_ {
        self.listeners.iter()
    }

    /// The mini-sockets that closed connections have left, in no particular order.
    pub fn timewait_sockets(&self) -> impl Iterator<Item = TimewaitSocket> + '_ {
        self.time_wait_table.iter()
    }

    /// The handshakes that wait for their final ACK after a resend, in no particular order.
    pub fn half_opens(&self) -> impl Iterator<Item = &HalfOpen> + '_ {
        self.half_opens.iter()
    }

    /// Takes in one event and reports what follows from it.
    pub fn observe(&mut self, event: &Event, report: &mut dyn FnMut(Observation<'_>)) {
        match event {
            Event::Transition(transition) => {
                self.advance_to(transition.time, report);
                self.transition(transition, report);
            }
            Event::Existing(socket) => self.existing(socket, report),
            Event::SnapshotScope { netns, .. } => {
                self.scope.insert(*netns);
            }
            Event::SnapshotEnd { started } => self.snapshot_end(*started, report),
            Event::SynAckRetransmit(event) => self.syn_ack_resent(event, report),
            Event::FirstRead(event) => self.first_read(event),
            Event::TimewaitEnd(event) => {
                self.advance_to(event.time, report);
                if let Some(end) = self.time_wait_table.ended(event) {
                    report(Observation::TimewaitEnd { event, end });
                }
            }
            Event::Time(time) => self.advance_to(*time, report),
        }
    }

    /// Lets time pass without an event, so that what is overdue is reported. Events do it by themselves.
    pub fn advance_to(&mut self, now: Timestamp, report: &mut dyn FnMut(Observation<'_>)) {
        if now <= self.now {
            return;
        }
        self.now = now;
        while let Some(half_open) = self.half_opens.overdue(now) {
            self.counts.abandoned_handshakes += 1;
            self.abandoned.count(&half_open);
            report(Observation::Abandoned(half_open));
        }
        while self.time_wait_table.expired(now).is_some() {}
    }

    fn syn_ack_resent(&mut self, event: &SynAckRetransmit, report: &mut dyn FnMut(Observation<'_>)) {
        self.advance_to(event.time, report);
        self.counts.syn_ack_retransmits += 1;
        if !self.half_opens.resent(event) {
            self.counts.unfollowed += 1;
        }
    }

    fn first_read(&mut self, event: &FirstRead) {
        if let Some(key) = self.find(event.socket) {
            let owner = &mut self.entries[key].connection.owner;
            if matches!(owner.source, OwnerSource::Listener | OwnerSource::Unknown) {
                *owner = Owner { process: Some(event.process), source: OwnerSource::Reader };
            }
        }
    }

    fn transition(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) {
        self.counts.transitions += 1;
        match (transition.from, transition.to) {
            (TcpState::Closed, TcpState::Listen) => self.listen(transition, report),
            (TcpState::Listen, TcpState::Closed) => {
                let since = self.listeners.close(transition.socket, transition.netns, transition.local);
                let duration_ns = since.map(|since| transition.time.since(since));
                self.close_previous_connection(transition, report);
                report(Observation::Transition { transition, duration_ns, connection: None });
            }
            // `ss -K` on a listener, and MPTCP: no life behind it, unless that life's end was missed.
            (TcpState::Closed, TcpState::Closed) => {
                self.close_previous_connection(transition, report);
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
        self.close_previous_connection(transition, report);
        self.listeners.insert(transition);
        report(Observation::Transition { transition, duration_ns: None, connection: None });
    }

    fn begin(
        &mut self,
        transition: &Transition,
        role: Role,
        owner: Owner,
        report: &mut dyn FnMut(Observation<'_>),
    ) {
        self.close_previous_connection(transition, report);
        let connection = Connection::begin(transition, role, owner);
        let key = self.insert(transition.socket, transition.time, connection, report);
        report(Observation::Transition {
            transition,
            duration_ns: None,
            connection: Some(&self.entries[key].connection),
        });
    }

    /// A socket begins a new life, or ends one that was no connection's, while an old one is in the table: that
    /// one's end was missed.
    fn close_previous_connection(
        &mut self,
        transition: &Transition,
        report: &mut dyn FnMut(Observation<'_>),
    ) {
        self.listeners.remove(transition.socket);
        if let Some(mut old) = self.remove(transition.socket) {
            old.connection.gap = true;
            self.report_unseen_close(&old, report);
        }
        if !self.found.is_empty() {
            let ends = (transition.netns, transition.local, transition.remote);
            if let Some(mut old) = self.found.remove(&ends).and_then(|socket| self.remove(socket)) {
                old.connection.gap = true;
                self.report_unseen_close(&old, report);
            }
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
                let ends = connection.ends();
                let resent = self.half_opens.completed(&ends);
                connection.handshake = Handshake::completed(connection, transition, resent.as_ref());
                if self.time_wait_table.reused(&ends) {
                    self.counts.time_wait_reused += 1;
                    connection.reused_time_wait = true;
                }
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
        let close_cause = CloseCause::classify(connection, transition);
        if connection.never_established() {
            connection.handshake = Handshake::failed(connection, transition.info.as_ref());
        }
        if close_cause.reason != CloseReason::Killed {
            correct_owner(connection, transition.process);
        }
        let after = (close_cause.reason == CloseReason::Closed)
            .then(|| {
                let peer_fin = transition.flags.map(|flags| flags.peer_fin);
                self.options.time_wait.after_close(transition.from, peer_fin)
            })
            .flatten();
        report(Observation::Transition { transition, duration_ns, connection: Some(connection) });
        self.counts.closed += 1;
        if let Some(entry) = self.remove(transition.socket) {
            if !self.found.is_empty() {
                // One that a look found under the identity it still had.
                self.found.remove(&entry.connection.ends());
            }
            if let Some(after) = after
                && !self.time_wait_table.insert(entry.connection.ends(), transition.time, after)
            {
                self.counts.unfollowed += 1;
            }
            report(Observation::Closed(ClosedConnection {
                connection: &entry.connection,
                closed: transition.time,
                close_seen: true,
                close_cause,
                after,
                info: transition.info.as_ref(),
            }));
        }
    }

    /// The entry the transition belongs to, in the state it leaves.
    fn find_or_adopt(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) -> usize {
        let Some(key) = self.find(transition.socket).or_else(|| self.bind_found(transition)) else {
            self.counts.unmatched += 1;
            let connection = Connection::adopt(transition);
            return self.insert(transition.socket, transition.time, connection, report);
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
        socket: SocketId,
        time: Timestamp,
        connection: Connection,
        report: &mut dyn FnMut(Observation<'_>),
    ) -> usize {
        if self.entries.len() >= self.options.max_connections {
            self.evict(report);
        }
        let key = self.entries.insert(Entry { socket, last_event: time, connection });
        self.index_entry(socket, key);
        key
    }

    fn index_entry(&mut self, socket: SocketId, key: usize) {
        let small = u32::try_from(key).expect("the table is limited to u32::MAX entries");
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(self.hash(socket), small, |&key| {
            use std::hash::BuildHasher as _;
            hasher.hash_one(entries[key as usize].socket)
        });
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
            self.found.remove(&entry.connection.ends());
            self.counts.evicted += 1;
            report(Observation::Evicted { connection: &entry.connection });
        }
    }

    fn report_unseen_close(&mut self, entry: &Entry, report: &mut dyn FnMut(Observation<'_>)) {
        self.counts.unseen_closes += 1;
        self.counts.closed += 1;
        report(Observation::Closed(ClosedConnection {
            connection: &entry.connection,
            closed: entry.last_event,
            close_seen: false,
            close_cause: CloseCause::UNSEEN,
            after: None,
            info: None,
        }));
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
