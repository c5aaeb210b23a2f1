//! Generates events: valid lifecycles as random walks over the kernel's edges, and arbitrary transitions.

use proptest::{collection::vec, prelude::*, sample::select};
use tracer_core::event::{
    Micros, Millis, SocketFlags, TcpInfo,
    TcpState::{
        self, CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived,
        SynSent,
    },
    Timestamp, Transition,
};

use crate::script::{CLIENT, SERVER, START, process, transition};

/// Returns the successors of a state in the kernel (the pairs of `inet_sock_set_state`). A state is its own successor
/// where `close()` after `shutdown()` repeats it.
fn edges(state: TcpState) -> &'static [TcpState] {
    match state {
        SynSent => &[Established, Established, SynReceived, Closed],
        SynReceived => &[Established, Established, Established, FinWait1, CloseWait, Closed],
        Established => &[FinWait1, CloseWait, Closed],
        FinWait1 => &[FinWait1, FinWait2, Closing, Closed],
        FinWait2 => &[FinWait2, Closed],
        Closing => &[Closing, Closed],
        CloseWait | LastAck => &[LastAck, Closed],
        other => panic!("no lifecycle contains {other:?}"),
    }
}

/// Generates a complete lifecycle on one socket, its events in order, starting at [`START`] plus an offset.
///
/// A child that never becomes ESTABLISHED is a Fast Open child, with a real SYN_RECV.
///
/// # Panics
///
/// Never: the last step of the random walk closes the socket.
pub fn lifecycle(socket: u64) -> impl Strategy<Value = Vec<Transition>> {
    (
        any::<bool>(),
        0..1_000_000_u64,
        vec((any::<prop::sample::Index>(), 0..5_000_000_000_u64), 12),
        prop::option::of((prop::option::of(1..2_000_000_u32), 0..4_u32)),
        flags(),
    )
        .prop_map(move |(client, begin, walk, statistics, flags)| {
            let mut time = START + begin;
            let (mut from, mut to) = if client { (Closed, SynSent) } else { (Listen, SynReceived) };
            let mut events = Vec::new();
            let mut walk = walk.into_iter();
            loop {
                let mut event = transition(socket, Timestamp(time), from, to);
                (event.local, event.remote) = (SERVER, CLIENT);
                if matches!(to, Established | Closed) {
                    event.info = statistics.map(|(srtt, retransmits)| TcpInfo {
                        srtt: srtt.map(Micros),
                        retransmits,
                        ..TcpInfo::default()
                    });
                    event.flags = Some(flags);
                }
                if matches!((from, to), (Closed | Established, SynSent | FinWait1) | (CloseWait, LastAck)) {
                    event.process = Some(process(7, "app"));
                }
                events.push(event);
                if to == Closed {
                    return events;
                }
                let (pick, wait) = walk.next().expect("the last step of the walk closes the socket");
                let next = edges(to);
                // The last step goes to CLOSE.
                let next = if walk.len() == 0 { Closed } else { next[pick.index(next.len())] };
                time += wait;
                (from, to) = (to, next);
            }
        })
}

fn flags() -> impl Strategy<Value = SocketFlags> {
    let errors = select(vec![0, 0, 0, 12, 13, 32, 101, 103, 104, 110, 111, 113]);
    (errors, any::<[bool; 5]>()).prop_map(|(error, [receive, send, peer_fin, linger_zero, attached])| {
        SocketFlags {
            error,
            shutdown_receive: receive,
            shutdown_send: send,
            peer_fin,
            linger_zero,
            attached,
            ..SocketFlags::default()
        }
    })
}

fn info() -> impl Strategy<Value = TcpInfo> {
    (any::<[u32; 2]>(), any::<[Option<u32>; 2]>(), any::<u8>()).prop_map(
        |([retransmits, unacked_bytes], [srtt, user_timeout], pending_retransmits)| TcpInfo {
            retransmits,
            unacked_bytes,
            srtt: srtt.map(Micros),
            user_timeout: user_timeout.map(Millis),
            pending_retransmits,
            ..TcpInfo::default()
        },
    )
}

fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..10_000_000_u64, 2 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
}

fn any_state() -> impl Strategy<Value = TcpState> {
    select(TcpState::ALL.to_vec())
}

/// Generates transitions that only a damaged recording contains.
pub fn arbitrary_transitions() -> impl Strategy<Value = Vec<Transition>> {
    let one = (
        0..6_u64,
        any_time(),
        any_state(),
        any_state(),
        prop::option::of(flags()),
        prop::option::of(info()),
        prop::option::of(1..4_u32),
        any::<bool>(),
    )
        .prop_map(|(socket, time, from, to, flags, info, pid, bound)| {
            let mut event = transition(socket, Timestamp(time), from, to);
            event.flags = flags;
            event.info = info;
            event.process = pid.map(|pid| process(pid, if pid == 3 { "kworker/0:1" } else { "app" }));
            if bound {
                (event.local, event.remote) = (SERVER, CLIENT);
            }
            event
        });
    vec(one, 0..80)
}
