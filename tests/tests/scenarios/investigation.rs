//! A scripted incident: of six backends one drops every third SYN, one is slow and one refuses. `handshakes` has
//! to name each of them in its first three lines.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use socket2::Socket;
use tcptrace_tests::{
    Mode, Tracer, sockets,
    tracer::Ended,
    tun::{Kind, Relay, SERVER, Verdict},
};

const HEALTHY: [u16; 3] = [8001, 8002, 8003];
const DROPPING: u16 = 8004;
const SLOW: u16 = 8005;
const REFUSING: u16 = 8006;
/// A refused connection is over at once; one that loses a SYN waits a second.
const ROUNDS: u64 = 12;

/// Every backend is asked as often as the others, each by a client of its own.
fn incident(mode: Mode, options: &[&str]) -> Ended {
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
    tracer.interrupt()
}

#[rstest]
fn handshakes_names_the_culprits_in_its_first_three_lines(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let ended = incident(mode, &[]);
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
    let ended = incident(mode, &["-o", "json", "--slowest", "3"]);
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
    if ended.summary().missing() > 0 {
        // The kernel skipped the program, and says so: not every handshake can be told of.
        return;
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
