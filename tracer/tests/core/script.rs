//! A small language for the events of a socket's life.
//!
//! Times are microseconds after [`START`]. A step leaves the state that the step before has entered.

use std::net::{IpAddr, Ipv4Addr};

use tcptrace_bpf::{
    event::{Endpoint, Event, Process, SocketFlags, SocketId, TcpInfo, Timestamp, Transition},
    lifecycle::TcpState,
};

/// Late enough that a handshake can be counted back from it.
pub(crate) const START: u64 = 1_000_000_000_000;

/// A second, in the microseconds of the scripts.
pub(crate) const SECOND: u64 = 1_000_000;

pub(crate) const CLIENT: Endpoint = endpoint(Ipv4Addr::new(10, 0, 0, 1), 40_000);
pub(crate) const SERVER: Endpoint = endpoint(Ipv4Addr::new(10, 0, 0, 2), 443);
/// The address that the scripts' listeners are bound to.
pub(crate) const BOUND: Endpoint = endpoint(Ipv4Addr::UNSPECIFIED, 443);
const NOWHERE: Endpoint = endpoint(Ipv4Addr::UNSPECIFIED, 0);

pub(crate) const NETNS: u32 = 4_026_531_840;
pub(crate) const CGROUP: u64 = 4_711;

const fn endpoint(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint { address: IpAddr::V4(address), port }
}

pub(crate) fn at(address: &str, port: u16) -> Endpoint {
    Endpoint { address: address.parse().expect("an address"), port }
}

pub(crate) fn process(pid: u32, name: &str) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Process { pid, uid: 1000, comm }
}

/// When, as the core counts.
pub(crate) const fn time(us: u64) -> Timestamp {
    Timestamp(START + us * 1000)
}

/// The one place that names every field of an event.
pub(crate) fn transition(socket: u64, time: Timestamp, from: TcpState, to: TcpState) -> Transition {
    Transition {
        time,
        socket: SocketId(socket),
        cookie: None,
        from,
        to,
        local: NOWHERE,
        remote: NOWHERE,
        process: None,
        thread: None,
        netns: Some(NETNS),
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

/// The events of one socket, in order.
#[derive(Clone)]
pub(crate) struct Life {
    socket: u64,
    state: TcpState,
    local: Endpoint,
    remote: Endpoint,
    transitions: Vec<Transition>,
}

impl Life {
    fn new(socket: u64, state: TcpState, local: Endpoint, remote: Endpoint) -> Self {
        Self { socket, state, local, remote, transitions: Vec::new() }
    }

    /// A socket that nobody has connected yet: CLOSE.
    pub(crate) fn client(socket: u64) -> Self {
        Self::new(socket, TcpState::Closed, CLIENT, SERVER)
    }

    /// A child, which the kernel makes as a copy of its listener: LISTEN.
    pub(crate) fn server(socket: u64) -> Self {
        Self::new(socket, TcpState::Listen, SERVER, CLIENT)
    }

    /// A socket that listens from `us` on.
    pub(crate) fn listener(socket: u64, us: u64, owner: Option<Process>) -> Self {
        let mut life = Self::new(socket, TcpState::Closed, BOUND, NOWHERE).step(us, TcpState::Listen);
        life.last().process = owner;
        life
    }

    /// A socket whose earlier events were not seen.
    pub(crate) fn existing(socket: u64, state: TcpState) -> Self {
        Self::new(socket, state, CLIENT, SERVER)
    }

    /// A client that connects at 0 and is established at 200.
    pub(crate) fn connected_client(socket: u64, owner: Process) -> Self {
        Self::client(socket).step(0, TcpState::SynSent).by(owner).step(200, TcpState::Established)
    }

    /// A child made at 0 and established at 10, whose peer took 523 µs to acknowledge the SYN-ACK.
    pub(crate) fn accepted(socket: u64) -> Self {
        let rtt = TcpInfo { srtt_us: Some(523), ..TcpInfo::default() };
        Self::server(socket).step(0, TcpState::SynReceived).step(10, TcpState::Established).info(rtt)
    }

    /// The events that lead to `state` as a client would get there, the last at 1000 at the latest.
    pub(crate) fn client_in(socket: u64, owner: Process, state: TcpState) -> Self {
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
            other => panic!("no client is in {other:?}"),
        }
    }

    /// Goes to `to`, with the endpoints that the kernel gives for that edge.
    pub(crate) fn step(mut self, us: u64, to: TcpState) -> Self {
        let mut next = transition(self.socket, time(us), self.state, to);
        (next.local, next.remote) = match (self.state, to) {
            // The port is bound after the transition.
            (TcpState::Closed, TcpState::SynSent) => (Endpoint { port: 0, ..self.local }, self.remote),
            // Still a raw copy of the listener, up to 6.14.
            (TcpState::Listen, TcpState::SynReceived) => (BOUND, NOWHERE),
            _ => (self.local, self.remote),
        };
        if matches!(self.state, TcpState::Closed | TcpState::Listen) || to == TcpState::Established {
            next.cgroup_id = Some(CGROUP);
        }
        self.transitions.push(next);
        self.state = to;
        self
    }

    /// The step before, to be changed.
    pub(crate) fn last(&mut self) -> &mut Transition {
        self.transitions.last_mut().expect("a life begins with a step")
    }

    /// Names the process of the step before.
    pub(crate) fn by(mut self, process: Process) -> Self {
        self.last().process = Some(process);
        self
    }

    /// What the socket knew at the step before.
    pub(crate) fn flags(mut self, flags: SocketFlags) -> Self {
        self.last().flags = Some(flags);
        self
    }

    /// The kernel's figures at the step before.
    pub(crate) fn info(mut self, info: TcpInfo) -> Self {
        self.last().info = Some(info);
        self
    }

    /// Changes the step before.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Transition)) -> Self {
        change(self.last());
        self
    }

    /// Changes every step.
    pub(crate) fn with_all(mut self, change: impl FnMut(&mut Transition)) -> Self {
        self.transitions.iter_mut().for_each(change);
        self
    }

    pub(crate) fn transitions(self) -> Vec<Transition> {
        self.transitions
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.transitions.iter().copied().map(Event::Transition).collect()
    }
}

/// The flags of a socket whose application called `close()`.
pub(crate) fn shut() -> SocketFlags {
    SocketFlags { shutdown_receive: true, shutdown_send: true, ..SocketFlags::default() }
}

/// The flags of a socket that still has its application.
pub(crate) fn open() -> SocketFlags {
    SocketFlags { attached: true, ..SocketFlags::default() }
}

/// The flags of a socket that ends with an error.
pub(crate) fn error(error: u16) -> SocketFlags {
    SocketFlags { error, ..open() }
}

/// The flags at the hand-over to TIME_WAIT: both FINs were seen.
pub(crate) fn fins() -> SocketFlags {
    SocketFlags { peer_fin: true, ..shut() }
}
