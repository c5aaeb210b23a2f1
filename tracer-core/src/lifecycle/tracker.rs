//! The table of live connections.

mod calls;
mod socket_dump;
mod transitions;

use hashbrown::{HashMap, HashSet, HashTable};
use slab::Slab;

use crate::{
    event::{
        ConnKey, Endpoint, Event, ExistingTimewait, Netns, Process, ResetSent, SocketId, SynAckRetransmit,
        Timestamp, Transition, Translated,
    },
    lifecycle::{
        Age, CloseCause, ClosedConnection, Connection, HalfOpen, Observation, ObservedDrops, TimeWaitModel,
        TimewaitSocket,
        abandoned::AbandonedHandshakes,
        backends::Backends,
        drop_places::DropPlaces,
        half_open::{HalfOpens, Recorded},
        listeners::Listeners,
        resets::Resets,
        segment_drops::DroppedSegments,
        time_wait_table::TimeWaitTable,
    },
};

/// The limits and the model of a [`Tracker`].
#[derive(Clone, Copy, Debug)]
pub struct TrackerOptions {
    /// Capacity of the connection table, at least 1. When the table is full, each new connection evicts the least
    /// recently active of a small sample.
    pub max_connections: usize,
    /// The lifetime of the timewait socket of a closed connection.
    pub time_wait: TimeWaitModel,
    /// Which dropped segments of handshakes the source reports.
    pub drops: ObservedDrops,
    /// The source reports the resets that this host sends. The report of a connection that this host resets then waits up to
    /// 20 ms for the reset.
    pub resets: bool,
}

/// The default capacity of the connection table. A full table takes about 280 MB.
pub const DEFAULT_MAX_CONNECTIONS: usize = 1_000_000;

impl Default for TrackerOptions {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_MAX_CONNECTIONS,
            time_wait: TimeWaitModel::default(),
            drops: ObservedDrops::None,
            resets: false,
        }
    }
}

/// Counters of the tracker, including everything that was missed or evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerCounts {
    /// Transitions observed.
    pub transitions: u64,
    /// Connections that closed.
    pub closed: u64,
    /// Connections evicted because the table was full.
    pub evicted: u64,
    /// First transitions of connections whose start was not seen.
    pub unmatched: u64,
    /// Transitions from a state other than the tracked one: at least one transition was missed.
    pub gaps: u64,
    /// Connections whose close was not seen: a new connection started on the same socket, or a later socket dump did
    /// not contain them.
    pub unseen_closes: u64,
    /// Connections that a socket dump added to the table.
    pub existing: u64,
    /// Retransmitted SYN-ACKs.
    pub syn_ack_retransmits: u64,
    /// Handshakes that this host answered and the client never completed.
    pub abandoned_handshakes: u64,
    /// Half-open handshakes, timewait sockets and listeners not tracked because their table was full. Listeners and
    /// timewait sockets count again in each socket dump.
    pub unfollowed: u64,
    /// Connections that reused the 4-tuple of a socket in TIME_WAIT before that state had expired.
    pub time_wait_reused: u64,
    /// SYNs that this host refused because nobody listens on their port.
    pub inbound_refused: u64,
    /// Segments of handshakes that this host dropped.
    pub segments_dropped: u64,
}

struct Entry {
    socket: SocketId,
    last_event: Timestamp,
    connection: Connection,
}

// A million live connections must take less than 300 MB; the index adds about ten bytes to each.
const _: () = assert!(size_of::<Entry>() <= 256);

/// How many entries an eviction compares.
const EVICTION_SAMPLE: usize = 8;

/// Tracks every socket from its first event to CLOSE.
///
/// See [the crate page](crate) for the model and an example.
pub struct Tracker {
    options: TrackerOptions,
    entries: Slab<Entry>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    listeners: Listeners,
    half_opens: HalfOpens,
    abandoned: AbandonedHandshakes,
    drop_places: DropPlaces,
    time_wait_table: TimeWaitTable,
    resets: Resets,
    dropped_segments: DroppedSegments,
    backends: Backends,
    /// Connections from a socket dump, whose socket id is unknown until their next transition.
    dumped: HashMap<ConnKey, SocketId, foldhash::fast::FixedState>,
    /// During a socket dump: the connections that the dump has not confirmed yet.
    unconfirmed: Option<HashMap<ConnKey, SocketId, foldhash::fast::FixedState>>,
    /// During a socket dump: the network namespaces it covers; empty for all.
    scope: HashSet<Netns, foldhash::fast::FixedState>,
    /// During a socket dump: the timewait sockets that it has found.
    dumped_timewait: Vec<ExistingTimewait>,
    now: Timestamp,
    eviction_hand: usize,
    counts: TrackerCounts,
}

impl Tracker {
    /// Creates a tracker with an empty table.
    pub fn new(options: TrackerOptions) -> Self {
        Self {
            options: TrackerOptions {
                max_connections: options.max_connections.clamp(1, u32::MAX as usize),
                ..options
            },
            entries: Slab::new(),
            index: HashTable::new(),
            // A fixed seed makes replays deterministic. Peers cannot choose socket ids.
            hasher: foldhash::fast::FixedState::with_seed(0x7463_7074),
            listeners: Listeners::default(),
            half_opens: HalfOpens::default(),
            abandoned: AbandonedHandshakes::default(),
            drop_places: DropPlaces::default(),
            time_wait_table: TimeWaitTable::default(),
            resets: Resets::default(),
            dropped_segments: DroppedSegments::new(options.drops),
            backends: Backends::default(),
            dumped: HashMap::default(),
            unconfirmed: None,
            scope: HashSet::default(),
            dumped_timewait: Vec::new(),
            now: Timestamp(0),
            eviction_hand: 0,
            counts: TrackerCounts::default(),
        }
    }

    /// Returns the counters.
    pub fn counts(&self) -> TrackerCounts {
        self.counts
    }

    /// Returns the number of connections in the table.
    pub fn live(&self) -> usize {
        self.entries.len()
    }

    /// Iterates over the live connections, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = (SocketId, &Connection)> {
        self.entries.iter().map(|(_, entry)| (entry.socket, &entry.connection))
    }

    /// Returns the number of table slots that [`walk`](Self::walk) covers; at least the number of connections.
    pub fn slots(&self) -> usize {
        self.entries.capacity()
    }

    /// Visits the connections in `count` table slots, starting at slot `from`.
    ///
    /// Returns the slot to continue from, or none at the end of the table.
    pub fn walk(&self, from: usize, count: usize, visit: &mut dyn FnMut(&Connection)) -> Option<usize> {
        let end = from.saturating_add(count).min(self.entries.capacity());
        for entry in (from..end).filter_map(|slot| self.entries.get(slot)) {
            visit(&entry.connection);
        }
        (end < self.entries.capacity()).then_some(end)
    }

    /// Returns the number of known listening sockets.
    pub fn listening(&self) -> usize {
        self.listeners.len()
    }

    /// Returns the number of timewait sockets in TIME_WAIT and in FIN_WAIT2.
    pub fn timewait_counts(&self) -> (usize, usize) {
        self.time_wait_table.counts()
    }

    /// Returns the counts of dropped handshake segments by service and cause.
    pub fn drop_places(&self) -> &DropPlaces {
        &self.drop_places
    }

    /// Returns the counts of abandoned handshakes by listener.
    pub fn abandoned(&self) -> &AbandonedHandshakes {
        &self.abandoned
    }

    /// Iterates over the network namespace, the address and the process of each listener, in no particular order.
    pub fn listeners(&self) -> impl Iterator<Item = (Option<Netns>, Endpoint, Option<Process>)> + '_ {
        self.listeners.iter()
    }

    /// Iterates over the timewait sockets, in no particular order.
    pub fn timewait_sockets(&self) -> impl Iterator<Item = TimewaitSocket> + '_ {
        self.time_wait_table.iter()
    }

    /// Returns the time that a timewait socket has spent in its state.
    pub fn timewait_age(&self, socket: &TimewaitSocket, now: Timestamp) -> Age {
        socket.age(self.options.time_wait, now)
    }

    /// Iterates over the translations of open connections, in no particular order.
    pub fn translations(&self) -> impl Iterator<Item = Translated> + '_ {
        self.backends.held()
    }

    /// Iterates over the half-open handshakes whose SYN-ACK was retransmitted, in no particular order.
    pub fn half_opens(&self) -> impl Iterator<Item = &HalfOpen> + '_ {
        self.half_opens.iter()
    }

    /// Processes one event and passes the resulting observations to `report`.
    pub fn observe(&mut self, event: &Event, report: &mut dyn FnMut(Observation<'_>)) {
        match event {
            Event::Transition(transition) => {
                self.advance_to(transition.time, report);
                self.transition(transition, report);
            }
            Event::Existing(socket) => self.existing(socket, report),
            Event::DumpScope { netns, .. } => self.dump_scope(*netns),
            Event::ExistingTimewait(socket) => self.existing_timewait(socket),
            Event::DumpEnd { started, timewait } => self.dump_end(*started, *timewait, report),
            Event::SynAckRetransmit(event) => self.syn_ack_retransmitted(event, report),
            Event::FirstRead(call) => self.first_read(call, report),
            Event::FirstWrite(call) => self.first_write(call),
            Event::TimewaitEnd(event) => {
                self.advance_to(event.time, report);
                if let Some(end) = self.time_wait_table.end(event) {
                    report(Observation::TimewaitEnd { event, end });
                }
            }
            Event::Time(time) => self.advance_to(*time, report),
            Event::Accepted(event) => self.accepted(event, report),
            Event::ResetSent(event) => {
                self.advance_to(event.time, report);
                self.reset_sent(event, report);
            }
            Event::ResetReceived(event) => self.resets.received(event),
            Event::Translated(event) => self.counts.unfollowed += u64::from(!self.backends.add(event)),
            Event::SegmentDropped(event) => {
                if event.is_loss() {
                    self.counts.segments_dropped += 1;
                    self.drop_places.count(event);
                    self.dropped_segments.add(event);
                    report(Observation::SegmentDropped(event));
                }
            }
        }
    }

    /// Reports what still waits for a later event. Call it after the last event.
    pub fn finish(&mut self, report: &mut dyn FnMut(Observation<'_>)) {
        while let Some(held) = self.resets.pop() {
            report(Observation::Closed(held.report()));
        }
    }

    /// Advances the time to `now` and reports everything that is overdue. [`observe`](Self::observe) does
    /// this for each event.
    fn advance_to(&mut self, now: Timestamp, report: &mut dyn FnMut(Observation<'_>)) {
        if now <= self.now {
            return;
        }
        self.now = now;
        while let Some(half_open) = self.half_opens.pop_overdue(now) {
            self.abandon(half_open, report);
        }
        while self.time_wait_table.pop_expired(now).is_some() {}
        while let Some(held) = self.resets.pop_overdue(now) {
            report(Observation::Closed(held.report()));
        }
    }

    fn syn_ack_retransmitted(&mut self, event: &SynAckRetransmit, report: &mut dyn FnMut(Observation<'_>)) {
        self.advance_to(event.time, report);
        self.counts.syn_ack_retransmits += 1;
        match self.half_opens.retransmitted(event) {
            Recorded::Followed(Some(superseded)) => self.abandon(superseded, report),
            Recorded::Followed(None) => {}
            Recorded::Full => self.counts.unfollowed += 1,
        }
    }

    fn reset_sent(&mut self, event: &ResetSent, report: &mut dyn FnMut(Observation<'_>)) {
        let Some(socket) = event.socket else {
            self.counts.inbound_refused += 1;
            report(Observation::Refused(event));
            return;
        };
        if let Some(held) = self.resets.sent(socket, event) {
            report(Observation::Closed(held.report()));
        }
    }

    /// Returns the slot of the transition's connection. Adds an unknown connection, and marks a gap if the
    /// tracked state differs from `transition.from`.
    fn find_or_adopt(&mut self, transition: &Transition, report: &mut dyn FnMut(Observation<'_>)) -> usize {
        let Some(slot) = self.find(transition.socket).or_else(|| self.bind_dumped(transition)) else {
            self.counts.unmatched += 1;
            let connection = Connection::adopt(transition);
            return self.insert(transition.socket, transition.time, connection, report);
        };
        let entry = &mut self.entries[slot];
        entry.last_event = transition.time;
        let connection = &mut entry.connection;
        if connection.state() != transition.from {
            self.counts.gaps += 1;
            connection.gap = true;
            connection.history.push(transition.from, None);
        }
        slot
    }

    fn hash(&self, socket: SocketId) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one(socket)
    }

    fn find(&self, socket: SocketId) -> Option<usize> {
        self.index
            .find(self.hash(socket), |&slot| self.entries[slot as usize].socket == socket)
            .map(|&slot| slot as usize)
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
        let slot = self.entries.insert(Entry { socket, last_event: time, connection });
        self.index_entry(socket, slot);
        slot
    }

    fn index_entry(&mut self, socket: SocketId, slot: usize) {
        let small = u32::try_from(slot).expect("the table is limited to u32::MAX entries");
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(self.hash(socket), small, |&slot| {
            use std::hash::BuildHasher as _;
            hasher.hash_one(entries[slot as usize].socket)
        });
    }

    fn remove(&mut self, socket: SocketId) -> Option<Entry> {
        let hash = self.hash(socket);
        let entries = &self.entries;
        let occupied = self.index.find_entry(hash, |&slot| entries[slot as usize].socket == socket).ok()?;
        let (slot, _) = occupied.remove();
        self.entries.try_remove(slot as usize)
    }

    /// Evicts the least recently active connection of a sample. Samples go round the table.
    fn evict(&mut self, report: &mut dyn FnMut(Observation<'_>)) {
        let capacity = self.entries.capacity();
        let mut least_recent: Option<(SocketId, Timestamp)> = None;
        let mut sampled = 0;
        for _ in 0..capacity {
            self.eviction_hand = (self.eviction_hand + 1) % capacity.max(1);
            let Some(entry) = self.entries.get(self.eviction_hand) else { continue };
            if least_recent.is_none_or(|(_, time)| entry.last_event < time) {
                least_recent = Some((entry.socket, entry.last_event));
            }
            sampled += 1;
            if sampled == EVICTION_SAMPLE {
                break;
            }
        }
        if let Some((socket, _)) = least_recent
            && let Some(entry) = self.remove(socket)
        {
            self.dropped_segments.closed(socket, &entry.connection, entry.last_event);
            self.backends.closed(&entry.connection);
            self.resets.take(socket);
            self.dumped.remove(&entry.connection.key());
            self.counts.evicted += 1;
            report(Observation::Evicted { connection: &entry.connection });
        }
    }

    fn report_unseen_close(&mut self, entry: &Entry, report: &mut dyn FnMut(Observation<'_>)) {
        self.counts.unseen_closes += 1;
        self.counts.closed += 1;
        report(Observation::Closed(ClosedConnection {
            connection: &entry.connection,
            id: entry.connection.id(entry.socket),
            closed: entry.last_event,
            close_seen: false,
            close_cause: CloseCause::UNSEEN,
            after: None,
            info: None,
            reset: self.resets.take(entry.socket),
            drops: self.dropped_segments.closed(entry.socket, &entry.connection, entry.last_event),
            accepted: entry.connection.accept_wait().map(|_| true),
            sequences: None,
            backend: self.backends.closed(&entry.connection),
        }));
    }
}
