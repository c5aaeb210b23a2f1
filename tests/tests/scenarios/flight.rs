//! The flight recorder: what a frozen file has, and that nothing is written without a trigger.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;
use socket2::Socket;
use tcptrace_tests::{
    Connection, Daemon, Namespace, Tracer, Transition, http,
    sockets::{self, Pair},
    tracer::TracerOutput,
    wait,
};

use crate::support::open_and_reset;

const SERVICE: &str = "127.0.0.1:5000";
/// Connections whose first SYN is dropped: more than 20 handshakes, both ends counted.
const SLOW: usize = 24;
/// A condition that never holds.
const NEVER: &str = "handshake_max>24h,stuck>1000000000";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs a command on a frozen file, limited to one namespace.
fn replay(file: &Path, command: &str, namespace: &Namespace) -> TracerOutput {
    let netns = namespace.inode().to_string();
    let arguments = ["-i", file.to_str().unwrap(), command, "-o", "json", "--netns", &netns];
    let ended = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("the recording"), "it ends cleanly: {}", ended.stderr);
    ended
}

/// Runs a command to its end, successfully.
fn run(arguments: &[&str]) -> TracerOutput {
    let ended = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", ended.stderr);
    ended
}

/// Opens connections whose first SYN a filter drops, so that each handshake takes a second.
fn open_slowly(namespace: &Namespace) -> (Socket, Vec<Socket>) {
    namespace.filter_input(&format!(
        "tcp dport 5000 tcp flags & (syn | ack) == syn limit rate 1/hour burst {SLOW} packets drop"
    ));
    let listener = namespace.run("server", || sockets::listen(SERVICE));
    let connect = || (0..SLOW).map(|_| sockets::begin_connect(sockets::address(SERVICE))).collect();
    (listener, namespace.run("client", connect))
}

#[test]
fn slow_handshakes_freeze_a_file_with_them_and_with_what_was_before() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let options = ["--ring", "16M", "--freeze-on", "handshake_p99>900ms", "--freeze-to", to];
    let daemon = Daemon::start(&namespace, &options);
    daemon
        .program
        .wait_for_stderr("the last 16 MiB of events are kept in memory; handshake_p99>900ms or SIGUSR1");
    open_and_reset(&namespace);
    daemon.wait_for(r#"tcptrace_transitions_total{from="established",to="closed"}"#, 2.0);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    let opened = open_slowly(&namespace);
    daemon.program.wait_for_stderr("froze the last ");
    let [file] = &files(folder.path())[..] else { panic!("{daemon:?}") };

    let ended = replay(file, "transitions", &namespace);
    let line = ended
        .stderr
        .lines()
        .find(|line| line.contains("frozen 20"))
        .unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(line.contains("Z by handshake_p99>900ms (1.") && line.contains(" handshakes in 10s)"), "{line}");
    let transitions: Vec<Transition> = ended.rows();
    let slow = transitions.iter().filter(|row| row.to == "established" && row.remote_port == Some(5000));
    let slow: Vec<f64> = slow.filter_map(|row| row.duration_us).collect();
    assert!(slow.len() >= 5 && slow.iter().all(|duration| *duration > 900e3), "{slow:?}");
    let syns = transitions.iter().filter(|row| row.to == "syn_sent" && row.remote_port == Some(5000));
    assert_eq!(syns.count(), SLOW);
    let before: Vec<Connection> = replay(file, "connections", &namespace).rows();
    let reasons: Vec<&str> = before.iter().map(|row| row.close_reason.as_str()).collect();
    assert_eq!(reasons.len(), 2, "{before:#?}");
    assert!(reasons.contains(&"reset_by_peer") && reasons.contains(&"aborted"), "{reasons:?}");

    // Other commands read it, too.
    let (file, table) = (file.to_str().unwrap(), folder.path().join("transitions.parquet"));
    let exported = run(&["export", file, "--what", "transitions", "--to", table.to_str().unwrap()]);
    assert!(exported.stderr.contains("frozen 20") && table.exists(), "{}", exported.stderr);
    run(&["-i", file, "handshakes", "-o", "json"]);
    fs::remove_file(table).unwrap();

    // The condition still holds, and a second file would be written after it has ended and holds again.
    drop(opened);
    namespace.settle();
    daemon.program.interrupt();
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn a_signal_freezes_and_nothing_is_written_without_one() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incident.arrows");
    let options = ["--ring", "64M", "--freeze-on", NEVER, "--freeze-files", "2", "--duration", "10m"];
    let recorder = Tracer::start(["record", file.to_str().unwrap()].iter().chain(&options));
    open_and_reset(&namespace);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    let mut frozen = 0;
    // The recorder may get the signal before it has read the last events.
    wait::until("a file with both connections", || {
        recorder.signal(Signal::USR1);
        frozen += 1;
        wait::until("the next file", || {
            (recorder.stderr().matches("froze the last ").count() >= frozen).then_some(())
        });
        let newest = files(folder.path()).pop().unwrap();
        let ended = replay(&newest, "connections", &namespace);
        assert!(ended.stderr.contains("Z by SIGUSR1"), "{}", ended.stderr);
        (ended.line_count() == 2).then_some(())
    });
    while frozen < 3 {
        recorder.signal(Signal::USR1);
        frozen += 1;
        wait::until("the next file", || {
            (recorder.stderr().matches("froze the last ").count() >= frozen).then_some(())
        });
    }
    let kept = files(folder.path());
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|path| path.to_str().unwrap().contains("/incident.20")), "{kept:?}");
    let ended = recorder.interrupt();
    assert!(ended.stderr.contains(&format!("{frozen} files were frozen")), "{}", ended.stderr);
    // Overlapping files are not one run.
    let both = ["-i", kept[0].to_str().unwrap(), "-i", kept[1].to_str().unwrap()];
    let refused = Tracer::start_unready(both).wait_for_exit();
    assert!(refused.stderr.contains("they are of different runs"), "{}", refused.stderr);
}

#[test]
fn a_full_ring_drops_the_oldest_events_and_keeps_open_connections() {
    const RING: u64 = 1 << 20;
    let namespace = Namespace::alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incident.arrows");
    let options = ["--ring", "1M", "--freeze-on", NEVER, "--duration", "10m"];
    let held = sockets::pair(&namespace, "127.0.0.1:0");
    let recorder = Tracer::start(["record", file.to_str().unwrap()].iter().chain(&options));
    let first = sockets::pair(&namespace, "127.0.0.1:0");
    let first_ports = (sockets::port(&first.client), sockets::port(&first.listener));
    sockets::reset_on_close(&first.client);
    drop(first);
    let listener = namespace.run("server", || sockets::listen(SERVICE));
    // Some 200,000 events, more than fit.
    namespace.run("client", || {
        for _ in 0..20_000 {
            let client = sockets::connect(sockets::address(SERVICE));
            let server = sockets::accept(&listener);
            sockets::reset_on_close(&client);
            drop((client, server));
        }
    });
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new(), "no disk is used before a trigger");
    let ports = (sockets::port(&held.client), sockets::port(&held.server));
    let Pair { client, server, .. } = held;
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
    let mut frozen = 0;
    let rows = wait::until("a file with the end of the held connection", || {
        recorder.signal(Signal::USR1);
        frozen += 1;
        wait::until("the next file", || {
            (recorder.stderr().matches("froze the last ").count() >= frozen).then_some(())
        });
        let newest = files(folder.path()).pop().unwrap();
        let bytes = fs::metadata(&newest).unwrap().len();
        assert!((RING / 3..RING + (64 << 10)).contains(&bytes), "{bytes} bytes");
        let rows: Vec<Connection> = replay(&newest, "connections", &namespace).rows();
        rows.iter().any(|row| row.ports() == ports).then_some(rows)
    });
    recorder.interrupt();
    // It was open when the oldest events of the file happened.
    let held: Vec<&Connection> = rows.iter().filter(|row| row.ports() == ports).collect();
    assert!(held.len() == 1 && held[0].incomplete && !held[0].gap, "{held:#?}");
    assert!(rows.len() > 1_000 && rows.len() < 40_000, "{} rows", rows.len());
    assert!(rows.iter().all(|row| row.ports() != first_ports), "the first connection is still there");
}

#[test]
fn a_request_freezes_behind_the_checks_of_the_page() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let options = ["--ring", "16M", "--freeze-to", folder.path().to_str().unwrap()];
    let daemon = Daemon::start(&namespace, &options);
    open_and_reset(&namespace);
    daemon.wait_for(r#"tcptrace_transitions_total{from="established",to="closed"}"#, 2.0);
    let post = |header: &str| http::post(daemon.address, "/api/v1/freeze", header).unwrap();
    for (header, status) in
        [("Host: attacker.example\r\n", 421), ("Origin: https://attacker.example\r\n", 403)]
    {
        assert_eq!(post(header).status, status, "{header}");
    }
    assert_eq!(daemon.get("/api/v1/freeze").unwrap().status, 405);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());

    let response = post("");
    assert_eq!(response.status, 200, "{response:?}");
    let document: Value = serde_json::from_str(&response.text()).unwrap();
    let [file] = &files(folder.path())[..] else { panic!("{daemon:?}") };
    assert_eq!(document["file"].as_str(), file.to_str());
    assert_eq!(document["bytes"].as_u64(), Some(fs::metadata(file).unwrap().len()));
    assert!(document["from"].as_str().unwrap() < document["until"].as_str().unwrap(), "{document}");
    let ended = replay(file, "connections", &namespace);
    assert_eq!(ended.line_count(), 2);
    assert!(ended.stderr.contains("Z by HTTP"), "{}", ended.stderr);

    // SIGUSR1 does the same, and ends no daemon.
    daemon.program.signal(Signal::USR1);
    wait::until("a second file", || (files(folder.path()).len() == 2).then_some(()));
    let without = Daemon::start(&namespace, &[]);
    assert_eq!(http::post(without.address, "/api/v1/freeze", "").unwrap().status, 409);
    without.program.signal(Signal::USR1);
    without.program.wait_for_stderr("nothing to freeze");
    assert_eq!(without.get("/healthz").unwrap().status, 200);
}

#[rstest]
#[case::condition(&["record", "a", "--ring", "1M", "--freeze-on", "p99>1s"], "handshake_p99")]
#[case::ring(&["record", "a", "--ring", "1K"], "from 1M to 64G")]
#[case::no_ring(&["record", "a", "--freeze-on", "failures>1"], "--freeze-on needs --ring")]
#[case::folder(&["serve", "--listen", "127.0.0.1:0", "--ring", "1M", "--freeze-to", "/no/such"], "/no/such: No such")]
#[case::check(&["serve", "--check", "--ring", "1M", "--freeze-to", "/no/such"], "/no/such: No such")]
fn wrong_options_are_refused_with_what_may_be_used(#[case] arguments: &[&str], #[case] part: &str) {
    let ended = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(part), "{}", ended.stderr);
}
