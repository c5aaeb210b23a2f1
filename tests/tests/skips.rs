//! Transitions for which the kernel skips the first program: the twin program records every one of them, once. An
//! independent witness says how many there are. Needs root and fails without it.

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

/// Transitions that must have been recovered: far more than any other error could hide.
const RECOVERED: u64 = 50;

/// Bursts that are made at most until there are as many.
const BURSTS: u64 = 10;

/// Connections of a burst.
fn connections() -> u64 {
    speed::count(30_000, 500)
}

/// The most transitions that there can be: five at each end, two of each listener, and some that are made twice.
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
    // All but TIME_WAIT (6) and CLOSE (7).
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7)) == 0).then_some(())
    });
}

/// A port that no other run of this test uses at the same time, below those that the kernel chooses for clients.
fn port(mode: Mode) -> u16 {
    let number = std::process::id() % 10_000 * 2 + u32::from(mode == Mode::Btf);
    10_000 + u16::try_from(number).unwrap()
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn every_transition_that_the_kernel_skips_is_recovered_once(#[case] mode: Mode) {
    let namespace = Namespace::alone();
    if !namespace.steer_packets(3) {
        return speed::not_possible("it does not steer received packets to other CPUs");
    }
    let options = KernelOptions {
        mode: ModeChoice::Only(mode),
        only_netns: Some(Netns(namespace.inode())),
        snapshot: false,
        // Nothing may be lost.
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
    let witnessed = witness.end();
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
    // Where the kernel hides process 1, it may count a skip of a classic program for a transition that it hides.
    let hidden = witnessed.own - seen;
    assert!(counts.skipped.unwrap_or(0) <= hidden, "{counts:?}, {hidden} hidden");
    // A socket repeats a transition when the four between the two are hidden.
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

#[expect(clippy::print_stdout, reason = "what a test prints is its report")]
fn report(mode: Mode, counts: SourceCounts) {
    println!(
        "mode {}: {} seen, {} recovered, {} duplicates dropped",
        mode.name(),
        counts.seen,
        counts.recovered,
        counts.duplicates
    );
}
