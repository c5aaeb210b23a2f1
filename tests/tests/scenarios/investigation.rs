//! A scripted incident: of six backends one drops every third SYN, one is slow and one refuses; an
//! application leaks CLOSE_WAIT. `handshakes` and `stuck` must rank each cause in their first three lines,
//! live and from a recording.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use socket2::Socket;
use tcptrace_tests::{
    Mode, Namespace, Tracer, sockets, speed,
    tracer::TracerOutput,
    tun::{Relay, SERVER, SegmentKind, Verdict},
    wait,
};

const HEALTHY: [u16; 3] = [8001, 8002, 8003];
const DROPPING: u16 = 8004;
const SLOW: u16 = 8005;
const REFUSING: u16 = 8006;
/// Attempts per backend. A refused attempt fails immediately; a lost SYN costs a second.
const ROUNDS: u64 = 12;

/// Connects equally often to every backend, each from its own client thread. Returns the output of
/// `handshakes`, live and from a recording of the same time.
fn incident(mode: Mode, options: &[&str]) -> (TracerOutput, TracerOutput) {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("incident.arrows");
    let recording = recording.to_str().unwrap();
    let syns = AtomicUsize::new(0);
    let relay = Relay::new(move |segment| match (segment.port, segment.kind) {
        (DROPPING, SegmentKind::Syn) if syns.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) => {
            Verdict::Drop
        }
        (SLOW, SegmentKind::SynAck) => Verdict::Delay(Duration::from_millis(223)),
        // Without it, a scheduling delay of a busy machine would be many times the host's median.
        (_, SegmentKind::SynAck) => Verdict::Delay(Duration::from_millis(15)),
        _ => Verdict::Pass,
    });
    let netns = relay.client.inode().to_string();
    let fixed =
        ["handshakes", "--mode", mode.name(), "--netns", &netns, "--duration", "10m", "--buffer", "64M"];
    let tracer = Tracer::start(fixed.iter().chain(options));
    let recorder =
        Tracer::start(["record", recording, "--mode", mode.name(), "--duration", "10m", "--buffer", "64M"]);
    let listeners: Vec<Socket> = HEALTHY
        .into_iter()
        .chain([DROPPING, SLOW])
        .map(|port| relay.server.run("server", || sockets::listen(&format!("{SERVER}:{port}"))))
        .collect();
    thread::scope(|scope| {
        for port in HEALTHY.into_iter().chain([DROPPING, SLOW, REFUSING]) {
            let client = &relay.client;
            scope.spawn(move || {
                client.run("orders-api", || {
                    for _ in 0..ROUNDS {
                        let connected = sockets::try_connect(sockets::address(&format!("{SERVER}:{port}")));
                        assert_eq!(connected.is_err(), port == REFUSING, "{port}: {connected:?}");
                    }
                });
            });
        }
    });
    drop(listeners);
    let live = tracer.interrupt();
    let recorded = recorder.interrupt();
    assert!(recorded.status.success(), "{}", recorded.stderr);
    let replay = ["handshakes", "-i", recording, "--netns", &netns];
    let replayed = Tracer::start_unready(replay.iter().chain(options)).wait_for_exit();
    assert!(replayed.status.success(), "{}", replayed.stderr);
    (live, replayed)
}

#[rstest]
fn handshakes_ranks_failing_backends_first(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (live, replayed) = incident(mode, &[]);
    assert_failing_backends_first(&live);
    assert_failing_backends_first(&replayed);
}

fn assert_failing_backends_first(ended: &TracerOutput) {
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines[..3].join("\n");
    for (port, why) in
        [(DROPPING, "resent a SYN, each waits 1"), (SLOW, "slow network: p50 2"), (REFUSING, "refused")]
    {
        let backend = format!("{SERVER}:{port} (");
        assert!(first.contains(&backend), "{backend} is not in:\n{text}\n{}", ended.stderr);
        let line = lines.iter().find(|line| line.starts_with(&format!("{SERVER}:{port} ")));
        assert!(line.is_some_and(|line| line.contains(why)), "{port}: no `{why}` in:\n{text}");
    }
    for port in HEALTHY {
        assert!(!first.contains(&format!("{SERVER}:{port}")), "{port} is healthy:\n{text}");
    }
    // The slowest attempt resent a SYN; the histogram marks it at one second.
    assert!(text.contains(" = 1 SYN lost (1 s) + "), "{text}");
    assert!(
        lines.iter().any(|line| line.trim_start().starts_with("1s ╟") && line.ends_with("resent a SYN")),
        "{text}"
    );
}

#[rstest]
fn json_rows_account_for_every_attempt(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (live, replayed) = incident(mode, &["-o", "json", "--slowest", "3"]);
    assert_every_attempt_is_counted(mode, &live);
    assert_every_attempt_is_counted(mode, &replayed);
}

fn assert_every_attempt_is_counted(mode: Mode, ended: &TracerOutput) {
    let rows: Vec<Value> = ended.rows();
    let of = |kind: &str| rows.iter().filter(|row| row["type"] == kind).collect::<Vec<_>>();
    let groups = of("handshake_group");
    assert_eq!(groups.len(), 6, "{groups:#?}");
    let service = |port: u16| format!("{SERVER}:{port}");
    let mut first: Vec<&str> = groups[..3].iter().map(|group| group["group"].as_str().unwrap()).collect();
    first.sort_unstable();
    assert_eq!(first, [DROPPING, SLOW, REFUSING].map(service));
    assert_eq!(of("handshake_slow").len(), 3);
    let group = |port: u16| groups.iter().find(|group| group["group"] == service(port)).unwrap();
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap();
    let drawn: u64 = of("handshake_bucket").iter().map(|bucket| number(bucket, "count")).sum();
    assert_eq!(drawn, groups.iter().map(|group| number(group, "established")).sum::<u64>());
    let (slow, dropping, refusing) = (group(SLOW), group(DROPPING), group(REFUSING));
    assert!(slow["p50_us"].as_f64().unwrap() > 220e3, "{slow:#?}");
    assert_eq!(refusing["p50_us"], Value::Null);
    if mode == Mode::Tracepoint && ended.summary().skipped.is_none() {
        return speed::not_possible("it does not count skipped runs");
    }
    if ended.summary().missing() > 0 {
        return speed::not_possible("it skipped runs of the BPF program, so not every handshake is reported");
    }
    for port in HEALTHY.into_iter().chain([DROPPING, SLOW]) {
        let group = group(port);
        assert_eq!((number(group, "count"), number(group, "established")), (ROUNDS, ROUNDS), "{group:#?}");
    }
    assert_eq!(refusing["failures"], serde_json::json!([{ "reason": "refused", "count": ROUNDS }]));
    // Every third SYN including retransmits: 0, 3, 6 ... of the first 17.
    assert_eq!(
        (number(dropping, "lost_syn"), number(dropping, "lost_syn_known")),
        (6, ROUNDS),
        "{dropping:#?}"
    );
    let waited = dropping["resend_wait_us"].as_f64().unwrap() / 1e6;
    assert!((5.9..9.0).contains(&waited), "six timeouts of a second: {waited}");
    assert!(slow["network_us"].as_f64().unwrap() > 12.0 * 220e3, "{slow:#?}");
}

/// Live from a socket dump, and from a recording at its end.
#[rstest]
fn stuck_ranks_the_leak_first(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("leak.arrows");
    let recording = recording.to_str().unwrap();
    let namespace = Namespace::new();
    let _inhabitant = namespace.inhabit();
    let netns = namespace.inode().to_string();
    let recorder = Tracer::start(["record", recording, "--mode", mode.name(), "--duration", "10m"]);
    let listener = namespace.run("leaky", || sockets::listen("127.0.0.1:0"));
    let leaked: Vec<Socket> = (0..5)
        .map(|_| {
            let client = namespace.run("client", || sockets::connect(sockets::local(&listener)));
            let server = namespace.run("leaky", || sockets::accept(&listener));
            drop(client);
            sockets::wait_for_end(&server);
            server
        })
        .collect();
    // The kernel's timers only give the time since the last packet.
    wait::pause(Duration::from_millis(20));
    let arguments = ["stuck", "--netns", &netns, "--threshold", "close_wait=10ms"];
    let live = Tracer::start_unready(arguments).wait_for_exit();
    assert!(recorder.interrupt().status.success());
    let replayed = Tracer::start_unready(arguments.iter().chain(&["-i", recording])).wait_for_exit();
    drop(leaked);
    for ended in [live, replayed] {
        let text = ended.text();
        let first: Vec<&str> = text.lines().take(3).collect();
        let owner = format!("({})", std::process::id());
        let names = |line: &&&str| {
            line.contains("5 CLOSE_WAIT") && line.trim_start().starts_with("5 ") && line.contains(&owner)
        };
        assert!(first.iter().any(|line| names(&line)), "{text}\n{}", ended.stderr);
    }
}
