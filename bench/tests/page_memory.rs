//! Limits the memory of the live page's last hour under traffic that is made to fill it.

use std::net::{IpAddr, Ipv4Addr};

use tcptrace_bench::allocations::{Counting, bytes_in_use};
use tcptrace_bpf::agent::overview::OverviewRecorder;
use tracer_core::{
    event::{
        Endpoint, Event, Process, SocketId,
        TcpState::{self, Closed, Established, SynSent},
        Timestamp, Transition,
    },
    lifecycle::{Thresholds, Tracker, TrackerOptions},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The limit that docs/page.md and the sizing in docs/operating.md state, with the copy for one request, bytes.
const LIMIT: u64 = 30_000_000;
/// Less would show that the traffic does not fill the tables.
const FILLED: u64 = 10_000_000;

const MINUTE: u64 = 60_000_000_000;
/// Handshakes in a minute.
const HANDSHAKES: u64 = 2_000;
/// Processes, remote addresses and ports: more than any table has places for.
const KEYS: u64 = 500;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// The transitions of a connection: its handshake, and the close of one that is established.
fn connection(serial: u64, minute: u64) -> [Transition; 3] {
    let key = serial % KEYS;
    // From a nanosecond to ten seconds, so that the quantiles of every group need all their bins.
    let handshake = 10_u64.pow(u32::try_from((serial / KEYS + minute) % 11).expect("below 11"));
    let begin = minute * MINUTE + serial % HANDSHAKES * 10_000_000;
    let mut comm = [0; 16];
    let name = format!("process {key}");
    comm[..name.len()].copy_from_slice(name.as_bytes());
    let address = Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(key).expect("below 500"));
    let port = 1000 + u16::try_from(key).expect("below 500");
    let step = |time: u64, from: TcpState, to: TcpState| {
        let mut step = Transition::new(
            Timestamp(time),
            SocketId(serial),
            from,
            to,
            Endpoint { address: LOCAL, port: 40_000 },
            Endpoint { address: address.into(), port },
        );
        step.process = (to == SynSent).then_some(Process { pid: 100, uid: 0, comm });
        step
    };
    let answered = begin + handshake;
    let entered = if serial.is_multiple_of(7) { Closed } else { Established };
    [step(begin, Closed, SynSent), step(answered, SynSent, entered), step(answered + 1, Established, Closed)]
}

#[test]
fn an_hour_of_hostile_traffic_stays_within_the_documented_memory() {
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut hour = OverviewRecorder::new(Thresholds::default());
    // An hour, and the minutes that it drops.
    for minute in 1..=75 {
        let mut events: Vec<Transition> = (0..HANDSHAKES)
            .flat_map(|index| {
                let [sent, answered, closed] = connection(minute * HANDSHAKES + index, minute);
                let closes = (answered.to == Established).then_some(closed);
                [Some(sent), Some(answered), closes].into_iter().flatten()
            })
            .collect();
        events.sort_by_key(|transition| transition.time);
        for transition in events {
            hour.advance(&tracker, transition.time);
            tracker.observe(&Event::Transition(transition), &mut |observation| hour.observe(&observation));
        }
    }
    let now = Timestamp(76 * MINUTE - 1);
    let snapshot = hour.snapshot(&tracker, now);
    let filled = bytes_in_use();
    drop(snapshot);
    let without_copy = bytes_in_use();
    drop(hour);
    let bytes = filled - bytes_in_use();
    eprintln!("{bytes} bytes, of these {} for the copy", filled - without_copy);
    assert!((FILLED..=LIMIT).contains(&bytes), "{bytes} bytes");
}
