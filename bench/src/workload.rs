//! Generates events of a busy host from a fixed seed, so every run has the same events.
//!
//! The number of open connections is constant. Each event belongs to a randomly chosen connection. When one
//! closes, the next opens on the same socket, as the kernel reuses its memory. Half are clients that close
//! first and leave a TIME_WAIT, half are servers that their peers close.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tracer_core::event::{
    AcceptQueue, CgroupId, Endpoint, Event, Micros, Nanos, Netns, Process, SocketFlags, SocketId, TcpInfo,
    TcpState::{
        self, CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
    },
    Timestamp, Transition,
};

/// Time between two events of a busy host: 20,000 transitions a second, which leads to about 140,000
/// connections in TIME_WAIT.
pub const BUSY: Duration = Duration::from_micros(50);

/// Number of events after which the connection table and the time_wait table have their final size: slightly
/// more than the 68.5 s after which the last TIME_WAIT ends.
pub fn events_to_steady_state(spacing: Duration) -> u64 {
    Nanos::from_secs(70).0 / nanos(spacing).0
}

fn nanos(spacing: Duration) -> Nanos {
    Nanos::from_duration(spacing).max(Nanos(1))
}

const NETNS: Netns = Netns(4_026_531_840);
const LISTENER: SocketId = SocketId(1);
const SERVICE: Endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port: 443 };

const CLIENT_STATES: [TcpState; 6] = [Closed, SynSent, Established, FinWait1, FinWait2, Closed];
const SERVER_STATES: [TcpState; 6] = [Listen, SynReceived, Established, CloseWait, LastAck, Closed];

/// An endless source of events.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Number of past transitions of each connection.
    steps: Vec<u8>,
    /// Serial number of each current connection.
    serials: Vec<u64>,
    next_serial: u64,
    time: Timestamp,
    spacing: Nanos,
    random: u64,
}

impl Workload {
    /// Creates a host with `live` open connections, at least 1, and the given time between two events.
    pub fn new(live: usize, spacing: Duration) -> Self {
        let live = live.max(1);
        Self {
            steps: vec![0; live],
            serials: (0..live as u64).collect(),
            next_serial: live as u64,
            time: Timestamp(1_000_000_000_000),
            spacing: nanos(spacing),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Returns the first event: the listener of the servers.
    pub fn listener(&mut self) -> Event {
        let mut event = self.transition(LISTENER, Closed, Listen);
        event.local = Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: SERVICE.port };
        event.process = Some(process(b"nginx", 800));
        Event::Transition(event)
    }

    /// Returns the events that establish every connection, in order.
    pub fn establish(&mut self) -> impl Iterator<Item = Event> + '_ {
        (0..self.steps.len() * 2).map(|step| self.step(step / 2))
    }

    /// Returns the next event of a randomly chosen connection.
    pub fn next_event(&mut self) -> Event {
        // xorshift64* (Marsaglia 2003, Vigna 2016), which costs little compared to the measured code.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let slot = (high * self.steps.len() as u64) >> 32;
        self.step(slot as usize)
    }

    /// Replaces the content of `events` with the next `count` events.
    pub fn fill(&mut self, events: &mut Vec<Event>, count: usize) {
        events.clear();
        events.extend(std::iter::repeat_with(|| self.next_event()).take(count));
    }

    fn transition(&mut self, socket: SocketId, from: TcpState, to: TcpState) -> Transition {
        self.time = self.time.saturating_add(self.spacing);
        Transition {
            time: self.time,
            socket,
            cookie: None,
            from,
            to,
            local: SERVICE,
            remote: Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 },
            process: None,
            thread: None,
            netns: Some(NETNS),
            cgroup_id: Some(CgroupId(4711)),
            accept_queue: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            flags: None,
            info: None,
            sequences: None,
        }
    }

    fn step(&mut self, slot: usize) -> Event {
        let step = usize::from(self.steps[slot]);
        let serial = self.serials[slot];
        let client = slot.is_multiple_of(2);
        let states = if client { CLIENT_STATES } else { SERVER_STATES };
        let (from, to) = (states[step], states[step + 1]);
        // The kernel allocates sockets of one type next to each other.
        let mut event = self.transition(SocketId(0xffff_8880_0000_0000 + slot as u64 * 2368), from, to);
        let port = 10_000 + (serial % 50_000) as u16;
        let peer = Ipv4Addr::from_bits(0xc612_0000 + (serial % 0x1_0000) as u32);
        let peer = IpAddr::V4(peer);
        if client {
            event.local.port = if step == 0 { 0 } else { port };
            event.remote = Endpoint { address: peer, port: 5432 };
        } else {
            event.remote = Endpoint { address: peer, port };
        }
        match to {
            SynSent | FinWait1 => event.process = Some(process(b"worker", 900)),
            LastAck => event.process = Some(process(b"nginx", 801)),
            SynReceived => event.accept_queue = Some(AcceptQueue { length: 3, limit: 4096 }),
            Established | Closed => {
                event.flags = Some(SocketFlags {
                    peer_fin: to == Closed,
                    attached: to == Established,
                    ..SocketFlags::default()
                });
                event.info = Some(tcp_info(serial));
            }
            _ => {}
        }
        if to == Closed {
            self.steps[slot] = 0;
            self.serials[slot] = self.next_serial;
            self.next_serial += 1;
        } else {
            self.steps[slot] += 1;
        }
        Event::Transition(event)
    }
}

fn tcp_info(serial: u64) -> TcpInfo {
    TcpInfo {
        bytes_sent: 700 + serial % 100_000,
        bytes_received: 300 + serial % 1_000,
        segments_sent: 12,
        segments_received: 11,
        srtt: Some(Micros(523)),
        min_rtt: Some(Micros(498)),
        mss: 1448,
        ..TcpInfo::default()
    }
}

fn process(name: &[u8], pid: u32) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    Process { pid, uid: 33, comm }
}
