//! The twin program records every transition for which the kernel skips the first program, exactly once. An independent
//! witness counts the transitions. Requires root and fails without it.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
};

use rstest::rstest;
use tcptrace_bpf::sources::{
    Source as _,
    live::{KernelOptions, KernelSource, Mode, ModeChoice},
};
use tcptrace_tests::{Namespace, Witness, sockets, speed, wait};
use tracer_core::event::{Event, Netns, SocketId, SourceCounts, TcpState};

/// Recovered transitions that the test requires, so many that another error cannot hide a failure.
const RECOVERED: u64 = 50;

/// Maximum number of bursts to reach [`RECOVERED`].
const BURSTS: u64 = 10;

/// Returns the number of connections of a burst.
fn connections() -> u64 {
    speed::count(30_000, 500)
}

/// Returns the maximum number of transitions: five at each end of a connection, two of each listener, and a reserve.
fn most() -> u64 {
    BURSTS * (11 * connections() + 2)
}

/// Opens and closes connections.
fn burst(namespace: &Namespace, port: u16) {
    let listener = namespace.run("server", || sockets::listen_with(&format!("0.0.0.0:{port}"), 1024, |_| {}));
    let (opened, to_accept) = mpsc::sync_channel(64);
    thread::scope(|scope| {
        scope.spawn(move || {
            namespace.run("client", move || {
                for index in 0..connections() {
                    let host = Ipv4Addr::new(127, 0, 3, 1 + u8::try_from(index % 100).unwrap());
                    drop(sockets::connect(SocketAddr::new(host.into(), port)));
                    opened.send(()).unwrap();
                }
            });
        });
        namespace.run("server", || {
            for () in to_accept {
                sockets::wait_for_end(&sockets::accept(&listener));
            }
        });
    });
    drop(listener);
    // All states but TIME_WAIT (6) and CLOSE (7).
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7)) == 0).then_some(())
    });
}

/// Returns a port that no concurrent run of this test uses, below the kernel's ephemeral ports.
fn port(mode: Mode) -> u16 {
    let number = std::process::id() % 10_000 * 2 + u32::from(mode == Mode::Btf);
    10_000 + u16::try_from(number).unwrap()
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn every_skipped_transition_is_recovered_once(#[case] mode: Mode) {
    let namespace = Namespace::alone();
    if !namespace.steer_packets(3) {
        return speed::not_possible("it does not steer received packets to other CPUs");
    }
    let options = KernelOptions {
        mode: ModeChoice::Only(mode),
        only_netns: Some(Netns(namespace.inode())),
        snapshot: false,
        // Large enough that nothing is lost.
        buffer_bytes: Some(64 << 20),
        ..KernelOptions::default()
    };
    let mut source = KernelSource::start(options).unwrap();
    if let Some(refused) = source.refused_twin() {
        return speed::not_possible(&refused.to_string());
    }
    let port = port(mode);
    let witness = match Witness::start(port, most()) {
        Ok(witness) => witness,
        Err(error) => return speed::not_possible(&format!("it has no tracefs for a witness: {error}")),
    };

    let mut last: HashMap<SocketId, (TcpState, TcpState)> = HashMap::new();
    let (mut seen, mut repeated) = (0, Vec::new());
    let mut deliver = |event: &Event| {
        if let Event::Transition(transition) = event {
            seen += 1;
            let states = (transition.from, transition.to);
            if last.insert(transition.socket, states) == Some(states) {
                repeated.push(*transition);
            }
        }
    };
    for _ in 0..BURSTS {
        thread::scope(|scope| {
            let done = scope.spawn(|| burst(&namespace, port));
            while !done.is_finished() {
                source.poll(&mut deliver).unwrap();
            }
        });
        source.poll(&mut deliver).unwrap();
        if source.counts().recovered >= RECOVERED {
            break;
        }
    }
    let witnessed = witness.end().unwrap();
    source.finish(&mut deliver).unwrap();

    let counts = source.counts();
    assert_eq!((counts.lost, counts.malformed), (0, 0), "{counts:?}");
    assert_eq!(counts.seen, seen);
    assert!(
        witnessed.is_exactly(seen),
        "{seen} seen, {witnessed:?}, {} more, {} less: {counts:?}",
        seen.saturating_sub(witnessed.own),
        witnessed.own.saturating_sub(seen)
    );
    // A kernel that hides transitions of process 1 may count them as skips of a classic program.
    let hidden = witnessed.own - seen;
    assert!(counts.skipped.unwrap_or(0) <= hidden, "{counts:?}, {hidden} hidden");
    // A socket appears to repeat a transition if the four transitions in between are hidden.
    assert!(
        4 * repeated.len() as u64 <= hidden,
        "{} rows are duplicates, {hidden} transitions hidden: {:?}",
        repeated.len(),
        repeated[0]
    );
    report(mode, counts);
    if counts.recovered < RECOVERED {
        speed::not_possible(&format!("it skipped only {} runs of the program", counts.recovered));
    }
}

#[expect(clippy::print_stdout, reason = "the output is the test's report")]
fn report(mode: Mode, counts: SourceCounts) {
    println!(
        "mode {}: {} seen, {} recovered, {} duplicates dropped",
        mode.name(),
        counts.seen,
        counts.recovered,
        counts.duplicates
    );
}
