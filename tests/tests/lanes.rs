//! The paths of records to user space on the real kernel: lanes, the ring buffer, and both at once. Requires
//! root and fails without it.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
};

use rstest::rstest;
use rustix::thread::{CpuSet, sched_setaffinity};
use tcptrace_bpf::sources::{
    Source as _,
    live::{KernelOptions, KernelSource, lanes::Division},
};
use tcptrace_tests::{Namespace, sockets, speed, wait};
use tracer_core::event::{Event, Netns, SocketId, TcpState, Timestamp, Transition};

/// Five transitions at each end of a connection; two of the listener.
fn transitions(connections: u64) -> u64 {
    10 * connections + 2
}

/// Pins this thread to a CPU. Without such a CPU it stays on its own.
fn move_to(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    let _ = sched_setaffinity(None, &cpus);
}

/// Opens and closes connections whose two sockets are used on two CPUs.
fn churn(namespace: &Namespace, connections: u64) {
    let listener = namespace.run("server", || sockets::listen_with("0.0.0.0:5000", 1024, |_| {}));
    let (opened, to_accept) = mpsc::sync_channel(64);
    thread::scope(|scope| {
        scope.spawn(move || {
            namespace.run("client", move || {
                move_to(1);
                for index in 0..connections {
                    let host = Ipv4Addr::new(127, 0, 2, 1 + u8::try_from(index % 100).unwrap());
                    drop(sockets::connect(SocketAddr::new(host.into(), 5000)));
                    opened.send(()).unwrap();
                }
            });
        });
        namespace.run("server", || {
            move_to(0);
            for () in to_accept {
                sockets::wait_for_end(&sockets::accept(&listener));
            }
        });
    });
    drop(listener);
}

#[rstest]
#[case::all_lanes(None)]
#[case::ring_alone(Some(0))]
#[case::both(Some(1))]
fn every_transition_arrives_once_in_socket_order(#[case] cpus: Option<u32>) {
    let connections = speed::count(2_000, 200);
    let namespace = Namespace::new();
    let options = KernelOptions {
        only_netns: Some(Netns(namespace.inode())),
        cpus,
        snapshot: false,
        // The test checks order and totals: the buffer must be large enough that nothing is lost.
        buffer_bytes: Some(64 << 20),
        ..KernelOptions::default()
    };
    let mut source = KernelSource::start(options).unwrap();
    let mut seen: Vec<Transition> = Vec::new();
    let mut deliver = |event: &Event| {
        if let Event::Transition(transition) = event {
            seen.push(*transition);
        }
    };
    thread::scope(|scope| {
        let done = scope.spawn(|| churn(&namespace, connections));
        while !done.is_finished() {
            source.poll(&mut deliver).unwrap();
        }
    });
    // All states but TIME_WAIT (6) and CLOSE (7).
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7)) == 0).then_some(())
    });
    source.finish(&mut deliver).unwrap();

    let counts = source.counts();
    assert_eq!((counts.lost, counts.malformed), (0, 0));
    let (seen_count, skipped) = (seen.len() as u64, counts.skipped.unwrap_or(0));
    assert!(
        seen_count <= transitions(connections),
        "{seen_count}, each of {connections} connections has ten"
    );
    assert!(seen_count + skipped >= transitions(connections), "{seen_count} and {skipped} skipped");

    let mut last: HashMap<SocketId, Timestamp> = HashMap::new();
    for transition in &seen {
        let before = last.insert(transition.socket, transition.time);
        assert!(before.is_none_or(|before| before < transition.time), "{transition:?} after {before:?}");
    }
    // A skipped run leaves one gap in a socket's chain of states; reordered records would leave two.
    let mut state = HashMap::new();
    let mut holes = 0;
    for transition in &seen {
        let before = state.insert(transition.socket, transition.to);
        // A child socket may reuse the address of a destroyed socket.
        let begins = transition.from == TcpState::Listen && transition.to == TcpState::SynReceived;
        holes += u64::from(!begins && before.is_some_and(|before| before != transition.from));
    }
    assert!(holes <= skipped, "{holes} holes, {skipped} skipped");
}

/// Nothing reads during the churn, and the ring holds half of its records: what arrives came through lanes.
#[test]
fn lanes_hold_more_than_the_ring() {
    const CONNECTIONS: u64 = 200;
    /// Minimum ring space of a record: records are reserved at their maximum size.
    const IN_RING: u64 = 256;
    /// The CPUs that the two sockets are used on.
    const CPUS: u32 = 2;
    let buffer = 1 << 20;
    let division = Division::of(buffer, CPUS);
    if division.cpus == 0 {
        speed::not_possible("this processor has no lanes");
        return;
    }
    assert!(
        u64::from(division.ring) / IN_RING < transitions(CONNECTIONS) / 2,
        "the ring is too large to tell"
    );
    let namespace = Namespace::new();
    let options = KernelOptions {
        only_netns: Some(Netns(namespace.inode())),
        snapshot: false,
        buffer_bytes: Some(buffer),
        cpus: Some(CPUS),
        ..KernelOptions::default()
    };
    let mut source = KernelSource::start(options).unwrap();
    churn(&namespace, CONNECTIONS);
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7)) == 0).then_some(())
    });
    source.finish(&mut |_| {}).unwrap();
    let counts = source.counts();
    assert_eq!((counts.lost, counts.malformed), (0, 0));
    assert!(counts.seen + counts.skipped.unwrap_or(0) >= transitions(CONNECTIONS), "{counts:?}");
}
