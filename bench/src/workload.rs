//! Events of a busy host, out of a fixed seed: the same every time.
//!
//! A fixed number of connections is open at once. Each event belongs to one of them, chosen at random; where one
//! ends, the next begins on the same socket, as the kernel reuses its memory. Half are clients that close first and
//! leave a TIME_WAIT, half are servers that their peers close.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tcptrace_bpf::{
    event::{AcceptQueue, Endpoint, Event, Process, SocketFlags, SocketId, TcpInfo, Timestamp, Transition},
    lifecycle::TcpState::{
        self, CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
    },
};

/// Time between two events that makes a busy host: 20,000 transitions a second, so that some 140,000 connections
/// are in TIME_WAIT once it is in balance.
pub const BUSY: Duration = Duration::from_micros(50);

/// Events after which the table, and what remains of closed connections, has its final size: a little more than the
/// 68.5 s after which the latest end of a TIME_WAIT is past.
pub fn balance(spacing: Duration) -> u64 {
    70_000_000_000 / nanoseconds(spacing)
}

fn nanoseconds(spacing: Duration) -> u64 {
    u64::try_from(spacing.as_nanos()).unwrap_or(u64::MAX).max(1)
}

const NETNS: u32 = 4_026_531_840;
const LISTENER: SocketId = SocketId(1);
const SERVICE: Endpoint = Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port: 443 };

const CLIENT_LIFE: [TcpState; 6] = [Closed, SynSent, Established, FinWait1, FinWait2, Closed];
const SERVER_LIFE: [TcpState; 6] = [Listen, SynReceived, Established, CloseWait, LastAck, Closed];

/// A source of events without an end.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How many transitions each connection has had.
    steps: Vec<u8>,
    /// The number of the life that each connection is in.
    lives: Vec<u64>,
    begun: u64,
    time: u64,
    spacing: u64,
    random: u64,
}

impl Workload {
    /// A host with `live` connections at once, at least 1, and so much time between two events.
    pub fn new(live: usize, spacing: Duration) -> Self {
        let live = live.max(1);
        Self {
            steps: vec![0; live],
            lives: (0..live as u64).collect(),
            begun: live as u64,
            time: 1_000_000_000_000,
            spacing: nanoseconds(spacing),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// The listener that the servers belong to; comes before everything else.
    pub fn listener(&mut self) -> Event {
        let mut event = self.transition(LISTENER, Closed, Listen);
        event.local = Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: SERVICE.port };
        event.process = Some(process(b"nginx", 800));
        Event::Transition(event)
    }

    /// Brings every connection to ESTABLISHED, in order.
    pub fn establish(&mut self) -> impl Iterator<Item = Event> + '_ {
        (0..self.steps.len() * 2).map(|step| self.step(step / 2))
    }

    /// The next event of a connection chosen at random.
    pub fn next_event(&mut self) -> Event {
        // xorshift64* (Marsaglia 2003, Vigna 2016): as fast as a load should be.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let slot = (high * self.steps.len() as u64) >> 32;
        self.step(slot as usize)
    }

    /// Replaces the content of `events` by the next `count`.
    pub fn fill(&mut self, events: &mut Vec<Event>, count: usize) {
        events.clear();
        events.extend(std::iter::repeat_with(|| self.next_event()).take(count));
    }

    fn transition(&mut self, socket: SocketId, from: TcpState, to: TcpState) -> Transition {
        self.time += self.spacing;
        Transition {
            time: Timestamp(self.time),
            socket,
            cookie: None,
            from,
            to,
            local: SERVICE,
            remote: Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 },
            process: None,
            thread: None,
            netns: Some(NETNS),
            cgroup_id: Some(4711),
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

    fn step(&mut self, slot: usize) -> Event {
        let step = usize::from(self.steps[slot]);
        let life = self.lives[slot];
        let client = slot.is_multiple_of(2);
        let states = if client { CLIENT_LIFE } else { SERVER_LIFE };
        let (from, to) = (states[step], states[step + 1]);
        // The kernel keeps sockets of one kind beside each other.
        let mut event = self.transition(SocketId(0xffff_8880_0000_0000 + slot as u64 * 2368), from, to);
        let port = 10_000 + (life % 50_000) as u16;
        let peer = Ipv4Addr::from_bits(0xc612_0000 + (life % 0x1_0000) as u32);
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
                event.info = Some(figures(life));
            }
            _ => {}
        }
        if to == Closed {
            self.steps[slot] = 0;
            self.lives[slot] = self.begun;
            self.begun += 1;
        } else {
            self.steps[slot] += 1;
        }
        Event::Transition(event)
    }
}

fn figures(life: u64) -> TcpInfo {
    TcpInfo {
        bytes_sent: 700 + life % 100_000,
        bytes_received: 300 + life % 1_000,
        segments_sent: 12,
        segments_received: 11,
        srtt_us: Some(523),
        min_rtt_us: Some(498),
        mss: 1448,
        ..TcpInfo::default()
    }
}

fn process(name: &[u8], pid: u32) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    Process { pid, uid: 33, comm }
}
