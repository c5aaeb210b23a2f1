//! Every transition is accounted for: seen, lost in the ring, or skipped by the kernel.
//!
//! The kernel's own trace event counts the transitions independently, without BPF. It also counts the transitions that a
//! kernel hides from BPF programs, so the sums are exact.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    process::Command,
    sync::mpsc,
    thread,
};

use rstest::rstest;
use rustix::fs::{MemfdFlags, memfd_create};
use tcptrace_tests::{
    Mode, Namespace, Tracer, Witness, Witnessed,
    program::{finds, program},
    sockets, speed,
    tracer::Summary,
    wait,
};

use crate::support::kernel_is_at_least;

/// Connections opened.
fn connections() -> u64 {
    speed::count(30_000, 500)
}

/// Total transitions: five at each end of each connection, two of the listener.
fn transitions() -> u64 {
    10 * connections() + 2
}

/// How many connections the client may be ahead of the server, so that no queue overflows.
const AHEAD: usize = 64;

/// Connections between two calls of `pace`.
const BATCH: u64 = 500;

/// Opens and closes the connections one after the other, and calls `pace` before each batch.
///
/// Each closed one keeps its addresses and ports for a minute, so they go to many addresses of 127/8.
fn churn(namespace: &Namespace, port: u16, connections: u64, pace: impl Fn(u64) + Sync) {
    let listener = namespace.run("server", || sockets::listen_with(&format!("0.0.0.0:{port}"), 1024, |_| {}));
    let (opened, to_accept) = mpsc::sync_channel(AHEAD);
    let pace = &pace;
    thread::scope(|scope| {
        // The channel closes when the client exits, so the server always exits after it.
        scope.spawn(move || {
            namespace.run("client", move || {
                for index in 0..connections {
                    if index % BATCH == 0 {
                        pace(index);
                    }
                    let host = Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(index % 100).unwrap());
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
    let _left = SocketsOnPanic(namespace);
    // All states but TIME_WAIT (6) and CLOSE (7).
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7)) == 0).then_some(())
    });
}

/// Prints the sockets of a namespace when the test fails.
struct SocketsOnPanic<'a>(&'a Namespace);

impl Drop for SocketsOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let command = "ss -tanoe | grep -v TIME-WAIT | head -n 20";
            let output = self.0.run("ss", || Command::new("sh").args(["-c", command]).output());
            eprintln!("{output:?}");
        }
    }
}

/// Returns whether the kernel counts skipped runs of this mode's program. Reports the test as not possible
/// otherwise.
fn skips_are_counted(mode: Mode) -> bool {
    let found = finds(match mode {
        Mode::Btf => "skip counter",
        Mode::Tracepoint => "skip counter tracepoint",
    });
    if !found {
        speed::not_possible("it does not count the runs of a program that it skipped, so no sum is complete");
    }
    found
}

/// The traced churn.
struct Traced {
    /// Lines of transitions.
    lines: u64,
    summary: Summary,
    /// Counts from the kernel's own trace event.
    witnessed: Witnessed,
}

/// Traces the churn and counts its transitions independently. Returns `None` if the kernel has no tracefs.
fn traced_churn(mode: Mode, options: &[&str], paced: bool) -> Option<Traced> {
    let namespace = Namespace::alone();
    let port = port(mode);
    let tracer = Tracer::json("transitions", &namespace, mode, options);
    // Starts after the tracer and stops before it, so the tracer sees every transition that the witness sees.
    let witness = match Witness::start(port, 2 * transitions()) {
        Ok(witness) => witness,
        Err(error) => {
            speed::not_possible(&format!("it has no tracefs for a witness: {error}"));
            return None;
        }
    };
    churn(&namespace, port, connections(), |opened| {
        if paced {
            // One batch less: the server has not closed every connection yet, and the kernel may hide transitions.
            let shown = (10 * opened).saturating_sub(10 * BATCH);
            tracer.wait_for_lines(usize::try_from(shown).unwrap());
        }
    });
    let witnessed = witness.end().unwrap();
    let ended = tracer.interrupt();
    // Excludes the ends of timewait sockets, which appear where fentry works.
    let lines = ended.text().lines().filter(|line| line.starts_with("{\"type\":\"transition\"")).count();
    Some(Traced { lines: lines as u64, summary: ended.summary(), witnessed })
}

/// Returns a port that no concurrent run of this test uses, below the kernel's ephemeral ports.
fn port(mode: Mode) -> u16 {
    let number = std::process::id() % 5_000 * 2 + u32::from(mode == Mode::Btf);
    20_000 + u16::try_from(number).unwrap()
}

#[rstest]
fn nothing_is_lost_at_the_default_buffer(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    if !skips_are_counted(mode) {
        return;
    }
    // An unoptimized program is far slower than the kernel, so the load waits for it.
    let Some(traced) = traced_churn(mode, &[], cfg!(debug_assertions)) else { return };
    let Traced { lines, summary, witnessed } = traced;
    assert_eq!(summary.lost, 0, "{summary:?}");
    assert_eq!(lines, summary.seen, "a line for each seen transition");
    assert_all_accounted_for(mode, summary, witnessed, 0);
}

/// The smallest buffer holds about twenty transitions: many are lost, and every loss is counted.
#[rstest]
fn every_loss_is_counted(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    if !skips_are_counted(mode) {
        return;
    }
    // A reader that gets the processor late, so that a slow machine loses transitions, too.
    let Some(traced) = traced_churn(mode, &["--buffer", "4K", "--nice", "19"], false) else { return };
    let Traced { lines, summary, witnessed } = traced;
    assert!(summary.lost > transitions() / 300, "{summary:?}");
    assert_eq!(lines, summary.seen, "a line for each seen transition");
    // A transition counts twice if the twin recorded it and the first record was lost: see limitations.md.
    assert_all_accounted_for(mode, summary, witnessed, summary.lost / 100);
}

/// Churns at once in [`beside_churns`].
const CHURNS: u16 = 4;

/// Traces several churns at once, which want every processor, and returns the summary.
fn beside_churns(command: &[&str], nice: &[&str]) -> Summary {
    let namespace = Namespace::alone();
    // Into a file, because a pipe's reader waits for a processor like every other program; in memory, because a disk may be
    // slower than the rows.
    let file = memfd_create("rows", MemfdFlags::CLOEXEC).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut traced = Command::new("sh");
    traced.args(["-c", "file=$1; shift; exec \"$@\" > \"$file\"", "sh", &path]);
    traced.arg(program()).args(command).args(nice);
    traced.args(["--netns", &namespace.inode().to_string(), "--duration", "10m"]);
    let tracer = Tracer::spawn(&mut traced);
    tracer.wait_for_stderr("tracing TCP in mode");
    thread::scope(|scope| {
        for port in 5000..5000 + CHURNS {
            let namespace = &namespace;
            scope.spawn(move || churn(namespace, port, connections() / u64::from(CHURNS), |_| {}));
        }
    });
    tracer.interrupt().summary()
}

/// The reader gets its processor time beside programs that want all of it.
#[rstest]
fn the_reader_keeps_up_beside_busy_programs(
    #[values(&["connections", "-o", "json"], &["transitions", "-o", "json"], &["serve", "--listen", "127.0.0.1:0"])]
    command: &[&str],
) {
    /// A virtual machine may itself be held up for a moment, which no priority prevents. A starved reader loses in each
    /// run.
    const RUNS: usize = 3;
    if !finds("reader priority") {
        speed::not_possible("the nice value of the reader cannot be lowered");
        return;
    }
    let mut runs: Vec<Summary> = Vec::new();
    while runs.len() < RUNS && runs.last().is_none_or(|run| run.lost > 0) {
        runs.push(beside_churns(command, &[]));
    }
    let last = runs[runs.len() - 1];
    assert_eq!(last.lost, 0, "{runs:?}");
    assert!(last.seen > transitions() * 9 / 10, "{runs:?}");
}

/// The load of [`the_reader_keeps_up_beside_busy_programs`] is one that starves a reader.
#[test]
fn a_reader_of_low_priority_loses_events_beside_busy_programs() {
    if speed::emulated() {
        speed::not_possible("the load of an emulated processor fits into the buffer");
        return;
    }
    let summary = beside_churns(&["transitions", "-o", "json"], &["--nice", "19"]);
    assert!(summary.lost > transitions() / 10, "{summary:?}");
}

/// Returns whether the kernel may preempt a task inside a tracepoint, so that it may skip a program and its twin: from 7.x
/// on (docs/modes.md). No test kernel has `PREEMPT_RT`.
fn tracepoints_are_preemptible() -> bool {
    kernel_is_at_least(7, 0)
}

/// Asserts that seen and lost transitions add up to the witness's count, except those that the kernel hides from BPF
/// programs.
///
/// Without a twin, skipped transitions are missing from the sum. After a loss, up to `twice` transitions may count twice,
/// and a record of the twin may be taken for a duplicate of the socket's last seen transition; it then counts as skipped.
#[track_caller]
fn assert_all_accounted_for(mode: Mode, summary: Summary, witnessed: Witnessed, twice: u64) {
    let twin = finds(match mode {
        Mode::Btf => "twin",
        Mode::Tracepoint => "twin tracepoint",
    });
    let known = summary.seen + summary.lost;
    let skipped = summary.skipped.unwrap_or(0);
    if twin && summary.lost == 0 {
        assert!(witnessed.is_exactly(known + skipped), "{summary:?} and {witnessed:?}");
        assert!(skipped == 0 || tracepoints_are_preemptible(), "{summary:?} and {witnessed:?}");
    }
    let least = witnessed.least().saturating_sub(skipped);
    assert!((least..=witnessed.own + twice).contains(&known), "{summary:?} and {witnessed:?}");
}
