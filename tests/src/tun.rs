//! A relay between two namespaces that passes, holds, delays or drops each segment by a rule, and records
//! when each one passed.
//!
//! Each namespace has a TUN device. A thread of the test forwards packets from one device to the other. This
//! works on every kernel, because it uses no queueing discipline and no packet filter.

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

/// Direction of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the client's namespace to the server's.
    ToServer,
    /// From the server's namespace to the client's.
    ToClient,
}

/// Type of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
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

/// A segment received by the relay.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Its direction.
    pub direction: Direction,
    /// Its type.
    pub kind: SegmentKind,
    /// The server's port.
    pub port: u16,
    /// The number of earlier segments of this type in this direction.
    pub index: usize,
    /// When the relay received it.
    pub arrived: Instant,
    /// When the relay forwarded it; `None` while it is held, or if it was dropped.
    pub passed: Option<Instant>,
}

/// What the relay does with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forwards it immediately.
    Pass,
    /// Forwards it after a delay.
    Delay(Duration),
    /// Holds it until [`Relay::release`].
    Hold,
    /// Drops it.
    Drop,
}

/// Returns the verdict on a segment.
pub type Rule = Box<dyn Fn(&Segment) -> Verdict + Send>;

struct RelayState {
    segments: Vec<Segment>,
    held: Vec<(usize, Vec<u8>)>,
    release: bool,
    rule: Rule,
}

/// Two namespaces and the relay between them. The relay stops on drop.
pub struct Relay {
    /// The client's namespace.
    pub client: Namespace,
    /// The server's namespace.
    pub server: Namespace,
    shared: Arc<Mutex<RelayState>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Connects two new namespaces.
    pub fn new(rule: impl Fn(&Segment) -> Verdict + Send + 'static) -> Self {
        Self::between(Namespace::new(), rule)
    }

    /// Connects two new namespaces for a test that runs exclusively.
    pub fn alone(rule: impl Fn(&Segment) -> Verdict + Send + 'static) -> Self {
        Self::between(Namespace::alone(), rule)
    }

    fn between(client: Namespace, rule: impl Fn(&Segment) -> Verdict + Send + 'static) -> Self {
        let server = client.beside();
        let devices =
            [(&client, CLIENT, SERVER), (&server, SERVER, CLIENT)].map(|(namespace, local, peer)| {
                let device = namespace.run("tun", || open_device("tun0"));
                namespace.ip(&format!("address add {local} peer {peer} dev tun0"));
                namespace.ip("link set tun0 up");
                device
            });
        let shared = Arc::new(Mutex::new(RelayState {
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
                .spawn(move || RelayThread { devices, shared, due: BinaryHeap::new(), serial: 0 }.run(&stop))
                .expect("a thread can be started")
        };
        Self { client, server, shared, stop, thread: Some(thread) }
    }

    /// Replaces the rule.
    pub fn rule(&self, rule: impl Fn(&Segment) -> Verdict + Send + 'static) {
        self.lock().rule = Box::new(rule);
    }

    /// Forwards the held segments.
    pub fn release(&self) {
        self.lock().release = true;
    }

    /// Returns the segments so far, in order of arrival.
    pub fn segments(&self) -> Vec<Segment> {
        self.lock().segments.clone()
    }

    /// Returns the `index`th segment of a type in a direction, if it has arrived.
    pub fn segment(&self, direction: Direction, kind: SegmentKind, index: usize) -> Option<Segment> {
        let matches =
            |segment: &&Segment| (segment.direction, segment.kind, segment.index) == (direction, kind, index);
        self.lock().segments.iter().find(matches).copied()
    }

    /// Returns when the `index`th segment of a type in a direction was forwarded. Panics if it was not.
    pub fn passed(&self, direction: Direction, kind: SegmentKind, index: usize) -> Instant {
        let passed = self.segment(direction, kind, index).and_then(|segment| segment.passed);
        passed.unwrap_or_else(|| panic!("no {kind:?} {index} {direction:?}: {:#?}", self.segments()))
    }

    fn lock(&self) -> MutexGuard<'_, RelayState> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || thread::panicking(), "the relay panicked");
        }
    }
}

/// A delayed segment: due time, serial number, index in the list of segments, bytes. Orders by due time, then
/// by arrival.
type Delayed = (Instant, u64, usize, Vec<u8>);

/// The relay's thread.
struct RelayThread {
    devices: [File; 2],
    shared: Arc<Mutex<RelayState>>,
    due: BinaryHeap<Reverse<Delayed>>,
    serial: u64,
}

impl RelayThread {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            for (index, direction) in [Direction::ToServer, Direction::ToClient].into_iter().enumerate() {
                // The devices do not block: an error means that no packet is left.
                while let Ok(length) = self.devices[index].read(&mut buffer) {
                    self.receive(direction, &buffer[..length]);
                }
            }
            self.forward_due();
        }
    }

    /// Waits for a packet, for a delayed packet to become due, or for a millisecond, after which `release` is
    /// checked.
    fn wait(&self) {
        let now = Instant::now();
        let due = self.due.peek().map(|Reverse((due, ..))| due.saturating_duration_since(now));
        let time = due.unwrap_or(Duration::MAX).min(Duration::from_millis(1));
        let timeout = Timespec::try_from(time).expect("a millisecond at most");
        let [first, second] = &self.devices;
        let mut polled = [PollFd::new(first, PollFlags::IN), PollFd::new(second, PollFlags::IN)];
        // A signal only ends the wait early.
        let _ = poll(&mut polled, Some(&timeout));
    }

    fn receive(&mut self, direction: Direction, packet: &[u8]) {
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
        let position = shared.segments.len();
        let verdict = (shared.rule)(&segment);
        shared.segments.push(segment);
        match verdict {
            Verdict::Pass => self.schedule(arrived, position, packet.to_vec()),
            Verdict::Delay(time) => self.schedule(arrived + time, position, packet.to_vec()),
            Verdict::Hold => shared.held.push((position, packet.to_vec())),
            Verdict::Drop => {}
        }
    }

    fn schedule(&mut self, due: Instant, position: usize, packet: Vec<u8>) {
        self.serial += 1;
        self.due.push(Reverse((due, self.serial, position, packet)));
    }

    fn forward_due(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if std::mem::take(&mut shared.release) {
            for (position, packet) in shared.held.drain(..) {
                self.schedule(now, position, packet);
            }
        }
        while self.due.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, position, packet))) = self.due.pop() else { return };
            let to = match shared.segments[position].direction {
                Direction::ToServer => 1,
                Direction::ToClient => 0,
            };
            shared.segments[position].passed = Some(Instant::now());
            self.devices[to].write_all(&packet).expect("a device accepts a packet from the other device");
        }
    }
}

/// Adds the address [`SERVER`] on a TUN device that drops everything sent to it. Both last as long as the
/// returned file, which [`flood`] uses.
pub fn sink(namespace: &Namespace) -> File {
    let device = namespace.run("tun", || open_device("tun0"));
    namespace.ip(&format!("address add {SERVER}/8 dev tun0"));
    namespace.ip("link set tun0 up");
    device
}

/// Sends SYNs from `clients` different addresses without hosts behind them to a port of [`SERVER`]. At most
/// 2^21 clients.
pub fn flood(device: &File, port: u16, clients: u32) {
    let server: Ipv4Addr = SERVER.parse().expect("the constant is an address");
    let mut device = device;
    for client in 0..clients {
        let [_, net, high, low] = client.to_be_bytes();
        let syn = PacketBuilder::ipv4([10, 100 + net, high, low], server.octets(), 64)
            .tcp(40_000, port, client, 65_535)
            .syn();
        let mut packet = Vec::with_capacity(syn.size(0));
        syn.write(&mut packet, &[]).expect("writing to a vector cannot fail");
        device.write_all(&packet).expect("the device accepts a packet");
    }
}

/// Returns a packet's type and its source and destination ports; `None` if it is not a TCP segment, such as a
/// router solicitation.
fn kind(packet: &[u8]) -> Option<(SegmentKind, [u16; 2])> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (Some(NetSlice::Ipv4(_)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport) else {
        return None;
    };
    let kind = match (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst()) {
        (_, _, _, true) => SegmentKind::Reset,
        (true, false, ..) => SegmentKind::Syn,
        (true, true, ..) => SegmentKind::SynAck,
        (_, _, true, _) => SegmentKind::Fin,
        _ if !tcp.payload().is_empty() => SegmentKind::Data,
        _ => SegmentKind::Ack,
    };
    Some((kind, [tcp.source_port(), tcp.destination_port()]))
}

/// Creates a TUN device in this thread's namespace. It lasts as long as the file.
fn open_device(name: &str) -> File {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .unwrap_or_else(|error| panic!("/dev/net/tun: {error}; is the kernel module tun loaded?"));
    // SAFETY: an all-zero `ifreq` is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("the flags are low bits");
    // SAFETY: TUNSETIFF reads an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    assert_eq!(result, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    device
}
