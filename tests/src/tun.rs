//! A relay between two namespaces that holds, delays and drops segments as a rule says, and notes when
//! each one passed.
//!
//! Each namespace has a TUN device; what one sends into its device the relay, a thread of the test, hands
//! out of the other's. It works on every kernel: it takes no queueing discipline and no packet filter.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Namespace;

/// The client's address.
pub const CLIENT: &str = "10.78.0.1";
/// The server's address.
pub const SERVER: &str = "10.78.0.2";

/// Which way a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the client's namespace to the server's.
    ToServer,
    /// From the server's namespace to the client's.
    ToClient,
}

/// What a segment is in the life of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SYN without ACK.
    Syn,
    /// A SYN with ACK.
    SynAck,
    /// An ACK without data.
    Ack,
    /// Data.
    Data,
    /// A FIN.
    Fin,
    /// A reset.
    Reset,
}

/// A segment that the relay has been given.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Which way it goes.
    pub direction: Direction,
    /// What it is.
    pub kind: Kind,
    /// The port at the server's end.
    pub port: u16,
    /// How many of this kind went this way before it.
    pub index: usize,
    /// When the relay got it.
    pub arrived: Instant,
    /// When the relay handed it on; none while it is held, or when it was dropped.
    pub passed: Option<Instant>,
}

/// What happens to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes at once.
    Pass,
    /// It passes after this time.
    Delay(Duration),
    /// It is held until [`Relay::release`].
    Hold,
    /// It is lost.
    Drop,
}

/// Decides about a segment.
pub type Rule = Box<dyn Fn(&Segment) -> Verdict + Send>;

struct Shared {
    segments: Vec<Segment>,
    held: Vec<(usize, Vec<u8>)>,
    release: bool,
    rule: Rule,
}

/// Two namespaces and the relay between them; the relay ends when dropped.
pub struct Relay {
    /// Where the client is.
    pub client: Namespace,
    /// Where the server is.
    pub server: Namespace,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Joins two new namespaces.
    pub fn new(rule: impl Fn(&Segment) -> Verdict + Send + 'static) -> Self {
        Self::between(Namespace::new(), rule)
    }

    /// Joins two new namespaces for a test during which no other may make traffic.
    pub fn alone(rule: impl Fn(&Segment) -> Verdict + Send + 'static) -> Self {
        Self::between(Namespace::alone(), rule)
    }

    fn between(client: Namespace, rule: impl Fn(&Segment) -> Verdict + Send + 'static) -> Self {
        let server = client.beside();
        let devices = [(&client, CLIENT, SERVER), (&server, SERVER, CLIENT)].map(|(namespace, own, peer)| {
            let device = namespace.run("tun", || open_device("tun0"));
            namespace.ip(&format!("address add {own} peer {peer} dev tun0"));
            namespace.ip("link set tun0 up");
            device
        });
        let shared = Arc::new(Mutex::new(Shared {
            segments: Vec::new(),
            held: Vec::new(),
            release: false,
            rule: Box::new(rule),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::Builder::new()
                .name("relay".to_owned())
                .spawn(move || EventLoop { devices, shared, due: BinaryHeap::new(), serial: 0 }.run(&stop))
                .expect("a thread can be started")
        };
        Self { client, server, shared, stop, thread: Some(thread) }
    }

    /// Replaces the rule.
    pub fn rule(&self, rule: impl Fn(&Segment) -> Verdict + Send + 'static) {
        self.lock().rule = Box::new(rule);
    }

    /// Lets the held segments pass.
    pub fn release(&self) {
        self.lock().release = true;
    }

    /// The segments so far, in the order of their arrival.
    pub fn segments(&self) -> Vec<Segment> {
        self.lock().segments.clone()
    }

    /// The `index`th segment of a kind in a direction, if it has arrived.
    pub fn segment(&self, direction: Direction, kind: Kind, index: usize) -> Option<Segment> {
        let is_it =
            |segment: &&Segment| (segment.direction, segment.kind, segment.index) == (direction, kind, index);
        self.lock().segments.iter().find(is_it).copied()
    }

    /// When the `index`th segment of a kind in a direction was handed on, which it must have been.
    pub fn passed(&self, direction: Direction, kind: Kind, index: usize) -> Instant {
        let passed = self.segment(direction, kind, index).and_then(|segment| segment.passed);
        passed.unwrap_or_else(|| panic!("no {kind:?} {index} {direction:?}: {:#?}", self.segments()))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(outcome.is_ok() || thread::panicking(), "the relay panicked");
        }
    }
}

/// A segment by the time it is due, then by arrival; with its place among the segments, and its bytes.
type Delayed = (Instant, u64, usize, Vec<u8>);

/// The relay's thread.
struct EventLoop {
    devices: [File; 2],
    shared: Arc<Mutex<Shared>>,
    due: BinaryHeap<Reverse<Delayed>>,
    serial: u64,
}

impl EventLoop {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            for (index, direction) in [Direction::ToServer, Direction::ToClient].into_iter().enumerate() {
                // The devices do not block: an error means that there is no more.
                while let Ok(length) = self.devices[index].read(&mut buffer) {
                    self.take(direction, &buffer[..length]);
                }
            }
            self.hand_on();
        }
    }

    /// Waits for a packet, for a delayed one to be due, or for a millisecond, in which a release may come.
    fn wait(&self) {
        let now = Instant::now();
        let due = self.due.peek().map(|Reverse((due, ..))| due.saturating_duration_since(now));
        let time = due.unwrap_or(Duration::MAX).min(Duration::from_millis(1));
        let timeout = Timespec::try_from(time).expect("a millisecond at most");
        let [first, second] = &self.devices;
        let mut polled = [PollFd::new(first, PollFlags::IN), PollFd::new(second, PollFlags::IN)];
        // An interruption is only an early look.
        let _ = poll(&mut polled, Some(&timeout));
    }

    fn take(&mut self, direction: Direction, packet: &[u8]) {
        let arrived = Instant::now();
        let Some((kind, [source, destination])) = kind(packet) else { return };
        let port = match direction {
            Direction::ToServer => destination,
            Direction::ToClient => source,
        };
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let index = shared
            .segments
            .iter()
            .filter(|before| (before.direction, before.kind) == (direction, kind))
            .count();
        let segment = Segment { direction, kind, port, index, arrived, passed: None };
        let place = shared.segments.len();
        let verdict = (shared.rule)(&segment);
        shared.segments.push(segment);
        match verdict {
            Verdict::Pass => self.later(arrived, place, packet.to_vec()),
            Verdict::Delay(time) => self.later(arrived + time, place, packet.to_vec()),
            Verdict::Hold => shared.held.push((place, packet.to_vec())),
            Verdict::Drop => {}
        }
    }

    fn later(&mut self, due: Instant, place: usize, packet: Vec<u8>) {
        self.serial += 1;
        self.due.push(Reverse((due, self.serial, place, packet)));
    }

    fn hand_on(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if std::mem::take(&mut shared.release) {
            for (place, packet) in shared.held.drain(..) {
                self.later(now, place, packet);
            }
        }
        while self.due.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, place, packet))) = self.due.pop() else { return };
            let to = match shared.segments[place].direction {
                Direction::ToServer => 1,
                Direction::ToClient => 0,
            };
            shared.segments[place].passed = Some(Instant::now());
            self.devices[to].write_all(&packet).expect("the device takes what another gave");
        }
    }
}

/// Gives a namespace the address [`SERVER`] on a device that loses what is sent to it. Both last as long
/// as the file, which [`flood`] takes.
pub fn sink(namespace: &Namespace) -> File {
    let device = namespace.run("tun", || open_device("tun0"));
    namespace.ip(&format!("address add {SERVER}/8 dev tun0"));
    namespace.ip("link set tun0 up");
    device
}

/// Lets SYNs of that many clients, each with its own address and nobody behind it, come to a port of
/// [`SERVER`]; at most 2^21.
pub fn flood(device: &File, port: u16, clients: u32) {
    let server: Ipv4Addr = SERVER.parse().expect("it is an address");
    let mut device = device;
    for client in 0..clients {
        let [_, net, high, low] = client.to_be_bytes();
        let syn = PacketBuilder::ipv4([10, 100 + net, high, low], server.octets(), 64)
            .tcp(40_000, port, client, 65_535)
            .syn();
        let mut packet = Vec::with_capacity(syn.size(0));
        syn.write(&mut packet, &[]).expect("a vector takes everything");
        device.write_all(&packet).expect("the device takes a packet");
    }
}

/// What a packet is, and its ports; none for what is no TCP segment, such as router solicitations.
fn kind(packet: &[u8]) -> Option<(Kind, [u16; 2])> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport) else {
        return None;
    };
    let kind = match (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst()) {
        (_, _, _, true) => Kind::Reset,
        (true, false, ..) => Kind::Syn,
        (true, true, ..) => Kind::SynAck,
        (_, _, true, _) => Kind::Fin,
        _ if !tcp.payload().is_empty() => Kind::Data,
        _ => Kind::Ack,
    };
    Some((kind, [tcp.source_port(), tcp.destination_port()]))
}

/// Makes a TUN device in this thread's namespace; it lasts as long as the file.
fn open_device(name: &str) -> File {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .unwrap_or_else(|error| panic!("/dev/net/tun: {error}; is the kernel's tun driver there?"));
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("they are low bits");
    // SAFETY: TUNSETIFF reads an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    assert_eq!(result, 0, "a TUN device cannot be made: {}", std::io::Error::last_os_error());
    device
}
