//! More events than the buffer holds: losses are counted, and a resync with a socket dump corrects the state.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use tcptrace_tests::{Connection, Daemon, Mode, Namespace, Tracer, program::program, sockets, speed, wait};

/// Connections whose close the program misses.
const CONNECTIONS: usize = 200;

/// How many of them open after the start: as many as fit into the smallest buffer without a reader.
const BEGUN: usize = 4;

#[rstest]
fn a_resync_closes_connections_whose_close_was_lost(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    namespace.ip("link set lo up");
    let _inhabitant = namespace.inhabit();
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:5000", 1024, |_| {}));
    let mut held = Vec::new();
    let mut open = || {
        held.push(namespace.run("client", || sockets::connect(sockets::local(&listener))));
        held.push(namespace.run("server", || sockets::accept(&listener)));
    };
    (BEGUN..CONNECTIONS).for_each(|_| open());
    let tracer = Tracer::json("connections", &namespace, mode, &["--buffer", "4K"]);
    (0..BEGUN).for_each(|_| open());

    tracer.signal(Signal::STOP);
    wait::until("every thread to stand still", || stands_still(tracer.id()).then_some(()));
    held.clear();
    wait::until("the last acknowledgements", || {
        (namespace.sockets_in(!(1 << 6 | 1 << 7 | 1 << 10)) == 0).then_some(())
    });
    tracer.signal(Signal::CONT);

    tracer.wait_for_lines(2 * CONNECTIONS);
    let ended = tracer.interrupt();
    let rows: Vec<Connection> = ended.rows();
    assert_eq!(rows.len(), 2 * CONNECTIONS, "each end of each connection once");
    let unseen = rows.iter().filter(|row| row.closed.is_none()).count();
    let seen = rows.iter().filter(|row| row.closed.is_some() && row.close_reason == "closed").count();
    assert!(unseen > CONNECTIONS, "the buffer holds only a few of {} ends: {unseen} were missed", rows.len());
    assert_eq!(seen + unseen, rows.len());
    assert_eq!(rows.iter().filter(|row| row.opened.is_some()).count(), 2 * BEGUN);
    assert!(rows.iter().filter(|row| row.closed.is_none()).all(|row| row.gap));
    assert!(ended.summary().lost > 0);
    assert!(ended.stderr.contains("1 resync from a socket dump"), "{}", ended.stderr);
}

/// After a loss the gauges agree with the kernel in every state: also for timewait sockets that existed at the start, that
/// were created meanwhile, and that moved from FIN_WAIT2 to TIME_WAIT, and for a listener whose close was lost.
#[rstest]
fn a_resync_agrees_with_the_kernel_in_every_state(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    namespace.ip("link set lo up");
    let _inhabitant = namespace.inhabit();
    let listener = namespace.run("server", || sockets::listen_with("127.0.0.1:5000", 1024, |_| {}));
    let open = |count: usize| -> Vec<_> {
        let pair = |_| {
            let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
            (client, namespace.run("server", || sockets::accept(&listener)))
        };
        (0..count).map(pair).collect()
    };
    // The client closes first and keeps the TIME_WAIT.
    let close = |pairs: Vec<(_, _)>| pairs.into_iter().for_each(drop);
    // The server stays in CLOSE_WAIT, and the client in FIN_WAIT2.
    let half_close = |pairs: Vec<(_, _)>| -> Vec<_> { pairs.into_iter().map(|(_, server)| server).collect() };
    let agrees = |daemon: &Daemon| {
        for (name, state) in [
            ("established", sockets::ESTABLISHED),
            ("close_wait", sockets::CLOSE_WAIT),
            ("fin_wait_2", sockets::FIN_WAIT_2),
            ("time_wait", sockets::TIME_WAIT),
            ("listen", sockets::LISTEN),
        ] {
            let series = format!("tcptrace_connections{{state=\"{name}\"}}");
            wait::until(&format!("the kernel's count of {name}"), || {
                let count = u32::try_from(namespace.sockets_in(state)).unwrap();
                (daemon.value(&series) == Some(f64::from(count))).then_some(())
            });
        }
    };

    close(open(5));
    let _waiting = half_close(open(3));
    let moved = half_close(open(6));
    namespace.settle_except(sockets::CLOSE_WAIT | sockets::FIN_WAIT_2);
    let closing = namespace.run("server", || sockets::listen("127.0.0.1:5001"));
    let daemon = Daemon::start(&namespace, &["--mode", mode.name(), "--buffer", "4K"]);
    agrees(&daemon);

    daemon.program.signal(Signal::STOP);
    wait::until("every thread to stand still", || stands_still(daemon.program.id()).then_some(()));
    drop(moved);
    close(open(CONNECTIONS));
    let _more = half_close(open(CONNECTIONS));
    let _held = open(CONNECTIONS / 2);
    // The buffer is full by now, so this close is lost.
    drop(closing);
    namespace.settle_except(sockets::CLOSE_WAIT | sockets::FIN_WAIT_2);
    daemon.program.signal(Signal::CONT);
    wait::until("a loss", || {
        daemon.value(r#"tcptrace_events_lost_total{where="ring"}"#).filter(|&lost| lost > 0.0)
    });
    wait::until("a resync", || daemon.value("tcptrace_resyncs_total").filter(|&resyncs| resyncs >= 1.0));
    agrees(&daemon);
}

/// Returns whether every thread of a process is stopped (`T` in proc_pid_stat(5)).
fn stands_still(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// Stops the churn even if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The buffer refills whenever the reader of stdout reads a little. The program never finds it empty, and
/// must still handle the signal.
#[rstest]
fn a_signal_stops_the_program_despite_a_slow_reader(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    /// Chunks of 4 KiB: more than the pipe and the program's buffer hold.
    const CHUNKS: usize = 64;
    /// Six transitions each, for the ten rows of a chunk. The program writes sixteen chunks at a time, which
    /// is less than the ring buffer holds, so it never finds the ring buffer empty.
    const CONNECTIONS_BETWEEN: u64 = 20;
    let namespace = Namespace::alone();
    let netns = namespace.inode().to_string();
    let mut program = Command::new(program())
        .args(["transitions", "-o", "json", "--buffer", "64K", "--duration", "10m"])
        .args(["--mode", mode.name(), "--netns", &netns])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = Pid::from_child(&program);
    let (mut stdout, mut stderr) =
        (program.stdout.take().unwrap(), BufReader::new(program.stderr.take().unwrap()));
    let mut output = String::new();
    while !output.contains("tracing TCP in mode") {
        assert_ne!(stderr.read_line(&mut output).unwrap(), 0, "{output}");
    }
    let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            namespace.run("churn", || {
                let listener = sockets::listen("127.0.0.1:0");
                while !stop.load(Ordering::Relaxed) {
                    let client = sockets::connect(sockets::local(&listener));
                    let server = sockets::accept(&listener);
                    sockets::reset_on_close(&client);
                    drop((client, server));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let mut interrupted: Option<Instant> = None;
        for chunk in 0.. {
            if chunk == CHUNKS {
                kill_process(id, Signal::INT).unwrap();
                interrupted = Some(Instant::now());
            }
            let enough = made.load(Ordering::Relaxed) + CONNECTIONS_BETWEEN;
            wait::until("connections", || (made.load(Ordering::Relaxed) >= enough).then_some(()));
            if stdout.read(&mut [0; 4096]).unwrap() == 0 {
                break;
            }
            assert!(interrupted.is_none_or(|it| it.elapsed() < speed::limit()), "it does not stop");
        }
        assert!(interrupted.is_some(), "it ended by itself");
    });
    stderr.read_to_string(&mut output).unwrap();
    assert!(program.wait().unwrap().success(), "{output}");
    assert!(!output.contains(" 0 lost in the ring"), "{output}");
}
