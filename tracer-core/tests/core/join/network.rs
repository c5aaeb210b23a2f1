//! A simulated connection between two hosts: what the kernels of both do, and what their recordings contain.

use std::{cmp::Reverse, collections::BinaryHeap};

use tracer_core::event::{
    AcceptQueue, Endpoint, Event, InitialSequences, Micros, SocketFlags, SocketId, SynAckRetransmit, TcpInfo,
    TcpState::{self, Closed, Established, Listen, SynReceived, SynSent},
    Timestamp, Transition,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;
/// The client's clock starts here, so that the server's can be behind.
pub(crate) const START: u64 = 100_000 * SECOND;
/// The delay of a segment unless the network has another.
pub(crate) const DELAY: u64 = 20_000;

/// Parses an endpoint.
pub(crate) fn end(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().expect("it is an endpoint").into()
}

/// Which segments of each kind the network drops, in the order in which they are sent. Later ones arrive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) syns: Vec<bool>,
    pub(crate) syn_acks: Vec<bool>,
    pub(crate) acks: Vec<bool>,
    /// The delays of the segments in the order in which they are sent, nanoseconds; repeated.
    pub(crate) delays: Vec<u64>,
    /// The server's accept queue is full: it takes no ACK.
    pub(crate) full: bool,
}

/// A connection and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// When the client connects, after [`START`].
    pub(crate) at: u64,
    /// The client's and the server's initial sequence number.
    pub(crate) numbers: (u32, u32),
    /// The local and the remote endpoint, as the client sees them.
    pub(crate) client: (Endpoint, Endpoint),
    /// As the server sees them.
    pub(crate) server: (Endpoint, Endpoint),
    pub(crate) network: Network,
    /// The client gives up after this time.
    pub(crate) patience: u64,
}

impl Default for Script {
    fn default() -> Self {
        let (client, server) = (end("10.0.0.1:40000"), end("10.0.0.2:80"));
        Self {
            at: 0,
            numbers: (7, u32::MAX),
            client: (client, server),
            server: (server, client),
            network: Network::default(),
            patience: 60 * SECOND,
        }
    }
}

/// What the hosts record of a connection, and how many SYNs, SYN-ACKs and ACKs were lost.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) client: Vec<Event>,
    pub(crate) server: Vec<Event>,
    pub(crate) lost: [u32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    SynTimer,
    SynArrives { sent: u64 },
    SynAckTimer { number: u8 },
    SynAckArrives,
    AckArrives,
}

#[derive(Clone, Copy)]
enum Kind {
    Syn,
    SynAck,
    Ack,
}

struct Simulation<'a> {
    script: &'a Script,
    /// How far the server's clock is ahead of the client's, which is the true time.
    offset: i64,
    recorded: Recorded,
    queue: BinaryHeap<Reverse<(u64, Step)>>,
    sent: [usize; 3],
    /// When the first SYN that arrived was sent.
    first_arrived: Option<u64>,
    answered: Option<u64>,
    resent: u8,
    timer: u8,
    client_established: bool,
    server_established: bool,
}

/// Runs the handshake of a connection. The client's clock is the true time, and the server's is ahead by `offset`.
pub(crate) fn run(script: &Script, offset: i64) -> Recorded {
    let start = START + script.at;
    let mut simulation = Simulation {
        script,
        offset,
        recorded: Recorded::default(),
        queue: BinaryHeap::from([Reverse((start, Step::SynTimer))]),
        sent: [0; 3],
        first_arrived: None,
        answered: None,
        resent: 0,
        timer: 0,
        client_established: false,
        server_established: false,
    };
    simulation.client(start, Closed, SynSent, None, None);
    while let Some(Reverse((now, step))) = simulation.queue.pop() {
        if now > start + script.patience && !simulation.client_established {
            break;
        }
        simulation.step(now, step);
    }
    if !simulation.client_established {
        simulation.fail(start + script.patience);
    }
    simulation.recorded
}

impl Simulation<'_> {
    fn step(&mut self, now: u64, step: Step) {
        match step {
            Step::SynTimer if !self.client_established => {
                self.send(now, Kind::Syn, Step::SynArrives { sent: now });
                self.queue.push(Reverse((now + SECOND, Step::SynTimer)));
            }
            Step::SynArrives { sent } if !self.server_established => {
                self.first_arrived.get_or_insert(sent);
                self.answer(now);
            }
            Step::SynAckTimer { number } if number == self.timer && !self.server_established => {
                self.answer(now);
            }
            Step::SynAckArrives => {
                if !self.client_established {
                    self.establish_client(now);
                }
                self.send(now, Kind::Ack, Step::AckArrives);
            }
            Step::AckArrives if !self.server_established && !self.script.network.full => {
                self.establish_server(now);
            }
            _ => {}
        }
    }

    fn send(&mut self, now: u64, kind: Kind, arrival: Step) {
        let network = &self.script.network;
        let drops = match kind {
            Kind::Syn => &network.syns,
            Kind::SynAck => &network.syn_acks,
            Kind::Ack => &network.acks,
        };
        let all: usize = self.sent.iter().sum();
        let delay = network.delays.get(all % network.delays.len().max(1)).copied().unwrap_or(DELAY);
        if drops.get(self.sent[kind as usize]) == Some(&true) {
            self.recorded.lost[kind as usize] += 1;
        } else {
            self.queue.push(Reverse((now + delay, arrival)));
        }
        self.sent[kind as usize] += 1;
    }

    /// The server sends its SYN-ACK, again if it has sent one. After six times it gives up.
    fn answer(&mut self, now: u64) {
        match self.answered {
            Some(_) if self.resent == 6 => return,
            Some(first) => {
                self.resent += 1;
                self.record_resend(now, first);
            }
            None => self.answered = Some(now),
        }
        self.timer += 1;
        let next = now + (SECOND << self.resent.min(5));
        self.queue.push(Reverse((next, Step::SynAckTimer { number: self.timer })));
        self.send(now, Kind::SynAck, Step::SynAckArrives);
    }

    fn establish_client(&mut self, now: u64) {
        self.client_established = true;
        // The answer has the timestamp of the first SYN that arrived.
        let sample = (now - self.first_arrived.expect("the server answered a SYN")) / 1000;
        let info = info(Some(sample), self.sent[0] - 1);
        let (local, remote) = self.script.numbers;
        let numbers = InitialSequences { local, remote: Some(remote) };
        self.client(now, SynSent, Established, Some(info), Some(numbers));
    }

    fn establish_server(&mut self, now: u64) {
        self.server_established = true;
        let first = self.answered.expect("the client acknowledges a SYN-ACK");
        // The kernel takes its sample between the two transitions.
        let sample = (self.resent == 0).then(|| (now - 2_000) / 1000 - first / 1000);
        let (remote, local) = self.script.numbers;
        let numbers = InitialSequences { local, remote: Some(remote) };
        self.server(now - 3_000, Listen, SynReceived, None, None);
        self.server(now, SynReceived, Established, Some(info(sample, self.resent.into())), Some(numbers));
    }

    fn fail(&mut self, now: u64) {
        let numbers = InitialSequences { local: self.script.numbers.0, remote: None };
        let info = info(None, self.sent[0].saturating_sub(1));
        self.client(now, SynSent, Closed, Some(info), Some(numbers));
    }

    /// Returns a time of the server's clock.
    fn on_server(&self, time: u64) -> Timestamp {
        Timestamp(time.checked_add_signed(self.offset).expect("the clock starts late enough"))
    }

    fn client(
        &mut self,
        now: u64,
        from: TcpState,
        to: TcpState,
        info: Option<TcpInfo>,
        sequences: Option<InitialSequences>,
    ) {
        let (local, remote) = self.script.client;
        let error = if to == Closed { 110 } else { 0 };
        let flags = Some(SocketFlags { error, ..SocketFlags::default() });
        let transition = Transition::new(Timestamp(now), socket(1, local, remote), from, to, local, remote);
        self.recorded.client.push(Event::Transition(Transition { info, flags, sequences, ..transition }));
    }

    fn server(
        &mut self,
        now: u64,
        from: TcpState,
        to: TcpState,
        info: Option<TcpInfo>,
        sequences: Option<InitialSequences>,
    ) {
        let (local, remote) = self.script.server;
        let transition =
            Transition::new(self.on_server(now), socket(2, local, remote), from, to, local, remote);
        self.recorded.server.push(Event::Transition(Transition { info, sequences, ..transition }));
    }

    fn record_resend(&mut self, now: u64, first: u64) {
        let (local, remote) = self.script.server;
        let first_sent = Timestamp(self.on_server(first).0 / 1000 * 1000);
        let event = SynAckRetransmit {
            time: self.on_server(now),
            listener: SocketId(9),
            local,
            remote,
            netns: None,
            attempts: self.resent,
            first_sent: Some(first_sent),
            accept_queue: Some(AcceptQueue {
                length: if self.script.network.full { 2 } else { 0 },
                limit: 1,
            }),
            acked: false,
            sequences: Some(InitialSequences {
                local: self.script.numbers.1,
                remote: Some(self.script.numbers.0),
            }),
        };
        self.recorded.server.push(Event::SynAckRetransmit(event));
    }
}

/// Sockets of different connections differ.
fn socket(side: u64, local: Endpoint, remote: Endpoint) -> SocketId {
    SocketId(side << 32 | u64::from(local.port) << 16 | u64::from(remote.port))
}

fn info(sample_us: Option<u64>, retransmits: usize) -> TcpInfo {
    let srtt =
        sample_us.map(|us| Micros(u32::try_from(us.max(1)).expect("a handshake takes minutes at most")));
    let retransmits = u32::try_from(retransmits).expect("few segments are sent");
    TcpInfo { srtt, retransmits, segments_sent: 1, ..TcpInfo::default() }
}
