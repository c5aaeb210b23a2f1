//! A scripted incident: of six backends one drops every third SYN, one is slow and one refuses; an application leaks
//! CLOSE_WAIT. `handshakes` and `stuck` have to name each culprit in their first three lines, live and from a
//! recording.

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
    tracer::Ended,
    tun::{Kind, Relay, SERVER, Verdict},
    wait,
};

const HEALTHY: [u16; 3] = [8001, 8002, 8003];
const DROPPING: u16 = 8004;
const SLOW: u16 = 8005;
const REFUSING: u16 = 8006;
/// A refused connection is over at once; one that loses a SYN waits a second.
const ROUNDS: u64 = 12;

/// Every backend is asked as often as the others, each by a client of its own. Gives what `handshakes` found, live
/// and in a recording that was made meanwhile.
fn incident(mode: Mode, options: &[&str]) -> (Ended, Ended) {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("incident.arrows");
    let recording = recording.to_str().unwrap();
    let syns = AtomicUsize::new(0);
    let relay = Relay::new(move |segment| match (segment.port, segment.kind) {
        (DROPPING, Kind::Syn) if syns.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) => Verdict::Drop,
        (SLOW, Kind::SynAck) => Verdict::Delay(Duration::from_millis(223)),
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
    let replayed = Tracer::start_unready(replay.iter().chain(options)).wait_for_end();
    assert!(replayed.status.success(), "{}", replayed.stderr);
    (live, replayed)
}

#[rstest]
fn handshakes_names_the_culprits_in_its_first_three_lines(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (live, replayed) = incident(mode, &[]);
    names_the_culprits(&live);
    names_the_culprits(&replayed);
}

fn names_the_culprits(ended: &Ended) {
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    let first = lines[..3].join("\n");
    for (port, why) in
        [(DROPPING, "lost a SYN, each waits 1"), (SLOW, "slow network: p50 2"), (REFUSING, "refused")]
    {
        let culprit = format!("{SERVER}:{port} (");
        assert!(first.contains(&culprit), "{culprit} is not in:\n{text}\n{}", ended.stderr);
        let line = lines.iter().find(|line| line.starts_with(&format!("{SERVER}:{port} ")));
        assert!(line.is_some_and(|line| line.contains(why)), "{port}: no `{why}` in:\n{text}");
    }
    for port in HEALTHY {
        assert!(!first.contains(&format!("{SERVER}:{port}")), "{port} is healthy:\n{text}");
    }
    // The slowest lost a SYN, and the histogram shows it behind the second.
    assert!(text.contains(" = 1 SYN lost (1 s) + "), "{text}");
    assert!(
        lines.iter().any(|line| line.trim_start().starts_with("1s ╟") && line.ends_with("lost a SYN")),
        "{text}"
    );
}

#[rstest]
fn its_rows_for_machines_account_for_every_opening(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (live, replayed) = incident(mode, &["-o", "json", "--slowest", "3"]);
    account_for_every_opening(mode, &live);
    account_for_every_opening(mode, &replayed);
}

fn account_for_every_opening(mode: Mode, ended: &Ended) {
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
        return speed::not_possible("it does not count the runs of a program that it skipped");
    }
    if ended.summary().missing() > 0 {
        return speed::not_possible("it skipped the program, so not every handshake can be told of");
    }
    for port in HEALTHY.into_iter().chain([DROPPING, SLOW]) {
        let group = group(port);
        assert_eq!((number(group, "count"), number(group, "established")), (ROUNDS, ROUNDS), "{group:#?}");
    }
    assert_eq!(refusing["failures"], serde_json::json!([{ "reason": "refused", "count": ROUNDS }]));
    // Every third SYN, those that were sent again included: 0, 3, 6 ... of the first 17.
    assert_eq!(
        (number(dropping, "lost_syn"), number(dropping, "lost_syn_known")),
        (6, ROUNDS),
        "{dropping:#?}"
    );
    let waited = dropping["resend_wait_us"].as_f64().unwrap() / 1e6;
    assert!((5.9..9.0).contains(&waited), "six waits of a second: {waited}");
    assert!(slow["network_us"].as_f64().unwrap() > 12.0 * 220e3, "{slow:#?}");
}

/// Live by a look at the host, and from a recording by its end.
#[rstest]
fn stuck_names_the_leak_first(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
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
    // A timer of the kernel tells of age only what has passed since the last packet.
    wait::pause(Duration::from_millis(20));
    let shown = ["stuck", "--netns", &netns, "--threshold", "close_wait=10ms"];
    let live = Tracer::start_unready(shown).wait_for_end();
    assert!(recorder.interrupt().status.success());
    let replayed = Tracer::start_unready(shown.iter().chain(&["-i", recording])).wait_for_end();
    drop(leaked);
    for ended in [live, replayed] {
        let text = ended.text();
        let first: Vec<&str> = text.lines().take(3).collect();
        let culprit = format!("({})", std::process::id());
        let names = |line: &&&str| {
            line.contains("5 CLOSE_WAIT") && line.trim_start().starts_with("5 ") && line.contains(&culprit)
        };
        assert!(first.iter().any(|line| names(&line)), "{text}\n{}", ended.stderr);
    }
}
