//! One live connection.

use crate::{
    event::{AcceptQueue, Endpoint, ExistingSocket, TcpState, Timestamp, Transition},
    lifecycle::{Handshake, History, half_open::ConnKey},
    owner::{Owner, OwnerSource},
};

/// Which side opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// This side sent the first SYN.
    Client,
    /// The peer sent the first SYN.
    Server,
    /// Both sent a SYN at once (RFC 9293, section 3.5).
    Simultaneous,
    /// The beginning was not seen.
    Unknown,
}

impl Role {
    /// The name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Simultaneous => "simultaneous",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of a connection that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The local end; its port is 0 until the kernel has bound one.
    pub local: Endpoint,
    /// The remote end.
    pub remote: Endpoint,
    /// Its states so far.
    pub history: History,
    /// When its first event was seen; for one that was there before, the latest moment at which it
    /// was certainly in the state it was found in.
    pub first_seen: Timestamp,
    /// Its process.
    pub owner: Owner,
    /// How the opening went, once it is over.
    pub handshake: Option<Handshake>,
    /// The listener's accept queue when the handshake completed.
    pub accept_queue: Option<AcceptQueue>,
    /// Inode of its network namespace.
    pub netns: Option<u32>,
    /// Id of its cgroup.
    pub cgroup_id: Option<u64>,
    /// Which side opened it.
    pub role: Role,
    /// Its beginning was not seen.
    pub incomplete: bool,
    /// At least one of its transitions was missed.
    pub gap: bool,
    /// It took the ends of a connection in TIME_WAIT before that one's time was over.
    pub reused_time_wait: bool,
}

// One million live connections must fit in 300 MB, with the index.
const _: () = assert!(size_of::<Connection>() <= 232);

impl Connection {
    /// A connection whose first event is `transition`, which leads into its first state.
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
            role,
            incomplete: false,
            gap: false,
            reused_time_wait: false,
        }
    }

    /// A connection that existed before its first event: the state it leaves was entered unseen.
    pub(super) fn adopt(transition: &Transition) -> Self {
        Self {
            history: History::new(transition.from, None),
            incomplete: true,
            ..Self::begin(transition, Role::Unknown, Owner::UNKNOWN)
        }
    }

    /// A connection that was there before tracing began.
    pub(super) fn existing(socket: &ExistingSocket) -> Self {
        Self {
            local: socket.local,
            remote: socket.remote,
            history: History::new(socket.state, None),
            first_seen: Timestamp(socket.time.0.saturating_sub(socket.state_age_ns.unwrap_or(0))),
            owner: Owner::from_process(socket.process, OwnerSource::Scan),
            handshake: None,
            accept_queue: None,
            netns: socket.netns,
            cgroup_id: socket.cgroup_id,
            role: Role::Unknown,
            incomplete: true,
            gap: false,
            reused_time_wait: false,
        }
    }

    /// Its ends in its network namespace.
    pub(super) fn ends(&self) -> ConnKey {
        (self.netns, self.local, self.remote)
    }

    /// The present state.
    pub fn state(&self) -> TcpState {
        self.history.current()
    }

    /// Takes from an event what earlier events could not know.
    pub(super) fn learn(&mut self, transition: &Transition) {
        if transition.local.port != 0 {
            self.local = transition.local;
        }
        if transition.remote.port != 0 {
            self.remote = transition.remote;
        }
        self.netns = self.netns.or(transition.netns);
        self.cgroup_id = transition.cgroup_id.or(self.cgroup_id);
    }
}
