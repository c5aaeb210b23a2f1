//! The state of one live connection.

use std::num::NonZeroU32;

use crate::{
    event::{
        AcceptQueue, CgroupId, ConnKey, ConnectionId, Endpoint, ExistingSocket, Nanos, Netns, SocketId,
        TcpState, Timestamp, Transition,
    },
    lifecycle::{AcceptWait, Handshake, History, close_reason::sent_nothing},
    owner::{Owner, OwnerSource},
};

/// The side that opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// This side sent the first SYN.
    Client,
    /// The peer sent the first SYN.
    Server,
    /// Both sent a SYN at once (RFC 9293, section 3.5).
    Simultaneous,
    /// The handshake was not seen.
    Unknown,
}

impl Role {
    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Simultaneous => "simultaneous",
            Self::Unknown => "unknown",
        }
    }
}

/// What a count of received segments covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    Unknown,
    /// All segments until ESTABLISHED.
    UntilEstablished,
    /// Segments with payload until the application closed or shut down both directions.
    WithDataUntilClose,
}

/// A time from ESTABLISHED to a later event, in 4 bytes: microseconds up to 71 minutes. A longer one is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait(u32);

impl Wait {
    const UNKNOWN: Self = Self(u32::MAX);

    fn new(wait: Nanos) -> Self {
        u32::try_from(wait.as_micros()).map_or(Self::UNKNOWN, Self)
    }

    fn get(self) -> Option<Nanos> {
        (self != Self::UNKNOWN).then(|| Nanos::from_micros(u64::from(self.0)))
    }
}

/// A connection that has not closed.
///
/// The fields hold what the events have shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The local endpoint. The port is 0 until the kernel has bound one.
    pub local: Endpoint,
    /// The remote endpoint.
    pub remote: Endpoint,
    /// The states entered so far.
    pub history: History,
    /// The time of the first event. For a connection from a socket dump, the earliest time at which it was certainly
    /// in the dumped state.
    pub first_seen: Timestamp,
    /// The owning process.
    pub owner: Owner,
    /// The handshake, once it has completed or failed.
    pub handshake: Option<Handshake>,
    /// The listener's accept queue when the handshake completed.
    pub accept_queue: Option<AcceptQueue>,
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The cgroup of the socket.
    pub cgroup_id: Option<CgroupId>,
    /// The index of the interface that the socket is bound to: the zone of a link-local address (RFC 4007, section 11).
    pub interface: Option<NonZeroU32>,
    /// The side that opened the connection.
    pub role: Role,
    /// The listener has `TCP_DEFER_ACCEPT`.
    pub(super) defer_accept: bool,
    /// What `received_segments` covers; apart from it, because together they would take 8 bytes.
    received: Received,
    /// Segments received until an earlier transition, for comparison with a later one.
    received_segments: u32,
    /// The time from ESTABLISHED to `accept()`.
    accepted: Wait,
    /// The time from ESTABLISHED to the first read.
    first_read: Wait,
    /// The time from ESTABLISHED to the first write.
    first_write: Wait,
    /// The start of the connection was not seen.
    pub incomplete: bool,
    /// At least one transition was missed.
    pub gap: bool,
    /// The connection reused the 4-tuple of a socket in TIME_WAIT before that state had expired.
    pub reused_time_wait: bool,
}

// One million live connections must fit in 300 MB, with the index.
const _: () = assert!(size_of::<Connection>() <= 240);

impl Connection {
    /// Creates a connection from the transition into its first state.
    pub(super) fn begin(transition: &Transition, role: Role, owner: Owner) -> Self {
        Self {
            local: transition.local,
            remote: transition.remote,
            history: History::new(transition.to, Some(transition.time)),
            first_seen: transition.time,
            owner,
            handshake: None,
            accept_queue: transition.accept_queue,
            netns: transition.netns,
            cgroup_id: transition.cgroup_id,
            interface: transition.interface.and_then(NonZeroU32::new),
            role,
            defer_accept: transition.defer_accept,
            received: Received::Unknown,
            received_segments: 0,
            accepted: Wait::UNKNOWN,
            first_read: Wait::UNKNOWN,
            first_write: Wait::UNKNOWN,
            incomplete: false,
            gap: false,
            reused_time_wait: false,
        }
    }

    /// Creates a connection from a transition whose predecessors were not seen.
    pub(super) fn adopt(transition: &Transition) -> Self {
        Self {
            history: History::new(transition.from, None),
            incomplete: true,
            ..Self::begin(transition, Role::Unknown, Owner::UNKNOWN)
        }
    }

    /// Creates a connection from a socket dump.
    pub(super) fn existing(socket: &ExistingSocket) -> Self {
        Self {
            local: socket.local,
            remote: socket.remote,
            history: History::new(socket.state, None),
            first_seen: socket.time.saturating_sub(socket.state_age.unwrap_or_default()),
            owner: Owner::from_process(socket.process, OwnerSource::Scan),
            handshake: None,
            accept_queue: None,
            netns: socket.netns,
            cgroup_id: socket.cgroup_id,
            interface: socket.interface.and_then(NonZeroU32::new),
            role: Role::Unknown,
            defer_accept: false,
            received: Received::Unknown,
            received_segments: 0,
            accepted: Wait::UNKNOWN,
            first_read: Wait::UNKNOWN,
            first_write: Wait::UNKNOWN,
            incomplete: true,
            gap: false,
            reused_time_wait: false,
        }
    }

    /// Returns the connection key.
    pub const fn key(&self) -> ConnKey {
        ConnKey { netns: self.netns, local: self.local, remote: self.remote }
    }

    /// Returns the identity of the connection, which is on `socket`.
    pub const fn id(&self, socket: SocketId) -> ConnectionId {
        ConnectionId::new(socket, self.first_seen)
    }

    /// Returns when the handshake started; none when that was not seen.
    ///
    /// The kernel creates a server's socket at the end of the handshake. The start is therefore the time of
    /// ESTABLISHED minus the measured duration of the handshake.
    pub fn opened(&self) -> Option<Timestamp> {
        if self.incomplete {
            return None;
        }
        let measured = self
            .handshake
            .filter(|handshake| handshake.replaces(TcpState::SynReceived))
            .and_then(|handshake| handshake.duration);
        match (measured, self.history.entered(TcpState::Established)) {
            (Some(handshake), Some(established)) => Some(established.saturating_sub(handshake)),
            _ => Some(self.first_seen),
        }
    }

    /// Returns the current state.
    pub fn state(&self) -> TcpState {
        self.history.current()
    }

    /// Returns whether the start was seen and the connection was certainly never established.
    ///
    /// A Fast Open child may close in SYN_RECV. A state that only an acknowledged SYN-ACK or a FIN of the peer leads to
    /// proves that its handshake completed.
    pub fn never_established(&self) -> bool {
        self.role != Role::Unknown
            && !self.gap
            && !self.history.contains(TcpState::Established)
            && !self.skipped_established()
    }

    /// Returns whether a Fast Open child completed its handshake without entering ESTABLISHED: its application closed it
    /// in SYN_RECV.
    pub fn completed_unseen(&self) -> bool {
        self.role == Role::Server && !self.gap && self.skipped_established()
    }

    fn skipped_established(&self) -> bool {
        !self.history.contains(TcpState::Established)
            && self.history.contains(TcpState::SynReceived)
            && [TcpState::FinWait2, TcpState::Closing, TcpState::LastAck]
                .into_iter()
                .any(|state| self.history.contains(state))
    }

    /// Notes when `accept()` returned the connection.
    pub(super) fn accept(&mut self, time: Timestamp) {
        self.accepted = self.wait(time);
    }

    /// Notes the first read.
    pub(super) fn read(&mut self, time: Timestamp) {
        self.first_read = self.wait(time);
    }

    /// Notes the first write.
    pub(super) fn write(&mut self, time: Timestamp) {
        self.first_write = self.wait(time);
    }

    fn wait(&self, until: Timestamp) -> Wait {
        let established = self.history.entered(TcpState::Established);
        established.map_or(Wait::UNKNOWN, |since| Wait::new(until.since(since)))
    }

    /// Returns how long the connection waited for `accept()`, to the microsecond and at most 71 minutes; none when that was
    /// not seen, and for a client.
    pub fn accept_wait(&self) -> Option<AcceptWait> {
        if self.role != Role::Server {
            return None;
        }
        let at_most = || self.first_read.get().map(AcceptWait::AtMost);
        self.accepted.get().map(AcceptWait::Observed).or_else(at_most)
    }

    /// Returns the time from ESTABLISHED to the first read of a process, to the microsecond and at most 71 minutes; none when
    /// that was not seen.
    pub fn first_read(&self) -> Option<Nanos> {
        self.first_read.get()
    }

    /// Returns the time from ESTABLISHED until the first write of a process returned, to the microsecond and at most 71
    /// minutes; none when that was not seen.
    pub fn first_write(&self) -> Option<Nanos> {
        self.first_write.get()
    }

    /// Returns the segments with payload received when the application closed or shut down both directions.
    pub(super) fn data_segments_at_close(&self) -> Option<u32> {
        (self.received == Received::WithDataUntilClose).then_some(self.received_segments)
    }

    /// Returns whether the segment that completed the handshake carried the FIN: the peer's FIN arrived with no further
    /// segment.
    pub(super) fn handshake_ended_by_fin(&self, fin: &Transition) -> bool {
        self.received == Received::UntilEstablished && fin.unaccepted_segments == Some(self.received_segments)
    }

    /// Fills in what earlier events did not carry: endpoints, network namespace, cgroup.
    pub(super) fn update(&mut self, transition: &Transition) {
        // A client that sent nothing has the port of the descriptor's earlier connection, if any.
        if transition.local.port != 0 && !sent_nothing(transition) {
            self.local = transition.local;
        }
        if transition.remote.port != 0 {
            self.remote = transition.remote;
        }
        self.netns = self.netns.or(transition.netns);
        self.cgroup_id = transition.cgroup_id.or(self.cgroup_id);
        self.interface = transition.interface.and_then(NonZeroU32::new).or(self.interface);
        if let Some(segments) = transition.data_segments {
            (self.received, self.received_segments) = (Received::WithDataUntilClose, segments);
        } else if let (TcpState::Established, Some(info)) = (transition.to, transition.info) {
            (self.received, self.received_segments) = (Received::UntilEstablished, info.segments_received);
        }
    }
}
