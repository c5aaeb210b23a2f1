//! Scripts the events of one socket.
//!
//! Times are microseconds after [`START`]. Each step starts in the state that the previous step entered.

use std::net::{IpAddr, Ipv4Addr};

use tracer_core::event::{
    CgroupId, Endpoint, Event, Micros, Netns, Process, SocketFlags, SocketId, TcpInfo, TcpState, Timestamp,
    Transition,
};

/// The origin of script times, late enough to subtract the duration of a handshake.
pub const START: u64 = 1_000_000_000_000;

/// A second in script time (microseconds).
pub const SECOND: u64 = 1_000_000;

/// The endpoint of the client.
pub const CLIENT: Endpoint = endpoint(Ipv4Addr::new(10, 0, 0, 1), 40_000);
/// The endpoint of the server.
pub const SERVER: Endpoint = endpoint(Ipv4Addr::new(10, 0, 0, 2), 443);
/// The wildcard address that scripted listeners are bound to.
pub const BOUND: Endpoint = endpoint(Ipv4Addr::UNSPECIFIED, 443);
const UNSPECIFIED: Endpoint = endpoint(Ipv4Addr::UNSPECIFIED, 0);

/// The network namespace of scripted sockets.
pub const NETNS: Netns = Netns(4_026_531_840);
/// The cgroup of scripted sockets.
pub const CGROUP: CgroupId = CgroupId(4_711);

const fn endpoint(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint { address: IpAddr::V4(address), port }
}

/// Creates an endpoint.
///
/// # Panics
///
/// When `address` is not an IP address.
pub fn at(address: &str, port: u16) -> Endpoint {
    Endpoint { address: address.parse().expect("a valid IP address"), port }
}

/// Creates a process of user 1000.
///
/// # Panics
///
/// When `name` is longer than 16 bytes.
pub fn process(pid: u32, name: &str) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Process { pid, uid: 1000, comm }
}

/// Converts a script time to a timestamp.
pub const fn time(us: u64) -> Timestamp {
    Timestamp(START + us * 1000)
}

/// Creates a transition without endpoints, process, flags and statistics.
pub fn transition(socket: u64, time: Timestamp, from: TcpState, to: TcpState) -> Transition {
    Transition {
        netns: Some(NETNS),
        ..Transition::new(time, SocketId(socket), from, to, UNSPECIFIED, UNSPECIFIED)
    }
}

/// A socket with its scripted transitions.
#[derive(Clone)]
pub struct ScriptedSocket {
    socket: u64,
    state: TcpState,
    local: Endpoint,
    remote: Endpoint,
    transitions: Vec<Transition>,
}

impl ScriptedSocket {
    fn new(socket: u64, state: TcpState, local: Endpoint, remote: Endpoint) -> Self {
        Self { socket, state, local, remote, transitions: Vec::new() }
    }

    /// Starts a client socket in CLOSE.
    pub fn client(socket: u64) -> Self {
        Self::new(socket, TcpState::Closed, CLIENT, SERVER)
    }

    /// Starts a child socket in LISTEN: the kernel creates it as a copy of its listener.
    pub fn server(socket: u64) -> Self {
        Self::new(socket, TcpState::Listen, SERVER, CLIENT)
    }

    /// Scripts a socket that listens from `us` on.
    pub fn listener(socket: u64, us: u64, owner: Option<Process>) -> Self {
        let mut socket_script =
            Self::new(socket, TcpState::Closed, BOUND, UNSPECIFIED).step(us, TcpState::Listen);
        socket_script.last().process = owner;
        socket_script
    }

    /// Starts a socket in `state`, whose earlier events were not seen.
    pub fn existing(socket: u64, state: TcpState) -> Self {
        Self::new(socket, state, CLIENT, SERVER)
    }

    /// Scripts a client that connects at 0 and is established at 200.
    pub fn connected_client(socket: u64, owner: Process) -> Self {
        Self::client(socket).step(0, TcpState::SynSent).by(owner).step(200, TcpState::Established)
    }

    /// Scripts a child that is created at 0 and established at 10. Its peer acknowledged the SYN-ACK after 523 µs.
    pub fn accepted(socket: u64) -> Self {
        let rtt = TcpInfo { srtt: Some(Micros(523)), ..TcpInfo::default() };
        Self::server(socket).step(0, TcpState::SynReceived).step(10, TcpState::Established).info(rtt)
    }

    /// Scripts a client up to `state`; the last step is at 1000 at the latest.
    ///
    /// # Panics
    ///
    /// When no client enters `state`.
    pub fn client_in(socket: u64, owner: Process, state: TcpState) -> Self {
        let established = || Self::connected_client(socket, owner);
        match state {
            TcpState::SynSent => Self::client(socket).step(0, TcpState::SynSent).by(owner),
            TcpState::SynReceived => Self::client_in(socket, owner, TcpState::SynSent).step(100, state),
            TcpState::Established => established(),
            TcpState::FinWait1 => established().step(700, state).by(owner),
            TcpState::FinWait2 | TcpState::Closing => {
                established().step(700, TcpState::FinWait1).by(owner).step(900, state)
            }
            TcpState::CloseWait => established().step(700, state),
            TcpState::LastAck => established().step(700, TcpState::CloseWait).step(900, state).by(owner),
            other => panic!("no client enters {other:?}"),
        }
    }

    /// Adds a transition to `to`, with the endpoints that the kernel reports for that edge.
    #[must_use]
    pub fn step(mut self, us: u64, to: TcpState) -> Self {
        let mut next = transition(self.socket, time(us), self.state, to);
        (next.local, next.remote) = match (self.state, to) {
            // The kernel binds the port after the transition.
            (TcpState::Closed, TcpState::SynSent) => (Endpoint { port: 0, ..self.local }, self.remote),
            // Up to 6.14 the child is still a raw copy of the listener.
            (TcpState::Listen, TcpState::SynReceived) => (BOUND, UNSPECIFIED),
            _ => (self.local, self.remote),
        };
        if matches!(self.state, TcpState::Closed | TcpState::Listen) || to == TcpState::Established {
            next.cgroup_id = Some(CGROUP);
        }
        self.transitions.push(next);
        self.state = to;
        self
    }

    /// Returns the last step for changes.
    ///
    /// # Panics
    ///
    /// When the script has no step.
    pub fn last(&mut self) -> &mut Transition {
        self.transitions.last_mut().expect("the script has a step")
    }

    /// Sets the process of the last step.
    #[must_use]
    pub fn by(mut self, process: Process) -> Self {
        self.last().process = Some(process);
        self
    }

    /// Sets the socket flags of the last step.
    #[must_use]
    pub fn flags(mut self, flags: SocketFlags) -> Self {
        self.last().flags = Some(flags);
        self
    }

    /// Sets the connection statistics of the last step.
    #[must_use]
    pub fn info(mut self, info: TcpInfo) -> Self {
        self.last().info = Some(info);
        self
    }

    /// Changes the last step.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Transition)) -> Self {
        change(self.last());
        self
    }

    /// Changes every step.
    #[must_use]
    pub fn with_all(mut self, change: impl FnMut(&mut Transition)) -> Self {
        self.transitions.iter_mut().for_each(change);
        self
    }

    /// Returns the transitions in order.
    pub fn transitions(self) -> Vec<Transition> {
        self.transitions
    }

    /// Returns the transitions as events, in order.
    pub fn events(&self) -> Vec<Event> {
        self.transitions.iter().copied().map(Event::Transition).collect()
    }
}

/// Returns the flags of a socket after `close()`.
pub fn shut() -> SocketFlags {
    SocketFlags { shutdown_receive: true, shutdown_send: true, ..SocketFlags::default() }
}

/// Returns the flags of a socket that an application holds.
pub fn open() -> SocketFlags {
    SocketFlags { attached: true, ..SocketFlags::default() }
}

/// Returns the flags of a socket with an error.
pub fn error(error: u16) -> SocketFlags {
    SocketFlags { error, ..open() }
}

/// Returns the flags at the hand-over to TIME_WAIT, after both FINs.
pub fn fins() -> SocketFlags {
    SocketFlags { peer_fin: true, ..shut() }
}
