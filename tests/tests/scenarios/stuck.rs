//! `stuck`: connections that sleep_until_killed in a state, their age and their owners.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use rstest::rstest;
use serde_json::Value;
use socket2::Socket;
use tcptrace_tests::{
    ChildProcess, Mode, Namespace, Stuck, StuckGroup, Tracer,
    process::{Gate, sleep_until_killed},
    sockets::{self, Pair},
    tracer::TracerOutput,
    tun::{CLIENT, Direction, Relay, SERVER, SegmentKind, Verdict},
    wait,
};

use crate::support::assert_time;

/// The group of timewait sockets.
const KERNEL: &str = "the kernel (no process holds them)";

fn start(namespace: &Namespace, options: &[&str]) -> Tracer {
    let netns = namespace.inode().to_string();
    Tracer::start_unready(["stuck", "--netns", &netns].iter().chain(options))
}

fn finish(tracer: Tracer) -> TracerOutput {
    let ended = tracer.wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended
}

/// Returns the groups in order, each with its listed connections.
fn groups(ended: &TracerOutput) -> Vec<(StuckGroup, Vec<Stuck>)> {
    let mut groups: Vec<(StuckGroup, Vec<Stuck>)> = Vec::new();
    for line in ended.rows::<Value>() {
        if line["type"] == "stuck_group" {
            groups.push((serde_json::from_value(line).unwrap(), Vec::new()));
        } else {
            assert_eq!(line["type"], "stuck");
            groups.last_mut().unwrap().1.push(serde_json::from_value(line).unwrap());
        }
    }
    groups
}

fn list(namespace: &Namespace, options: &[&str]) -> Vec<(StuckGroup, Vec<Stuck>)> {
    let options: Vec<&str> = ["-o", "json"].iter().chain(options).copied().collect();
    groups(&finish(start(namespace, &options)))
}

/// A process that accepts connections and never closes them.
struct Leak {
    process: ChildProcess,
    port: u16,
}

fn leak(namespace: &Namespace, name: &str, count: u32) -> Leak {
    let listener = namespace.run("maker", || sockets::listen("127.0.0.1:0"));
    let to = sockets::local(&listener);
    let before = namespace.sockets_in(sockets::CLOSE_WAIT);
    let accepted = Gate::new();
    let process = ChildProcess::start(namespace, name, || {
        let _open: Vec<Socket> = (0..count).map(|_| sockets::accept(&listener)).collect();
        accepted.open();
        sleep_until_killed();
    });
    drop(listener);
    namespace.run("client", || {
        for _ in 0..count {
            let client = sockets::connect(to);
            sockets::send(&client, b"unread!");
        }
    });
    let all = before + count as usize;
    wait::until("CLOSE_WAIT", || (namespace.sockets_in(sockets::CLOSE_WAIT) == all).then_some(()));
    accepted.wait();
    Leak { process, port: to.port() }
}

#[track_caller]
fn assert_leak(group: &StuckGroup, members: &[Stuck], leak: &Leak, count: usize) {
    assert_eq!(
        (group.count, group.states[0].state.as_str(), group.states[0].count),
        (count, "close_wait", count)
    );
    for member in members {
        assert_eq!(
            (member.state.as_str(), member.local_port),
            ("close_wait", Some(leak.port)),
            "{member:#?}"
        );
        assert_eq!((member.unread_bytes, member.unacked_bytes), (Some(7), Some(0)), "{member:#?}");
        assert_eq!(member.pid, Some(leak.process.id()), "{member:#?}");
        assert_eq!((member.local_address.as_str(), member.network_type.as_str()), ("127.0.0.1", "ipv4"));
        assert_eq!(member.ends_in_us, None);
    }
}

#[test]
fn largest_leak_is_ranked_first() {
    let namespace = Namespace::alone();
    let start = Instant::now();
    let small = leak(&namespace, "small", 3);
    let big = leak(&namespace, "big", 20);
    let least = wait::pause(Duration::from_millis(1300));
    let found = list(&namespace, &["--threshold", "close_wait=1s"]);
    let wall = start.elapsed();
    let [(first, listed), (second, rest)] = &found[..] else { panic!("{found:#?}") };
    assert_leak(first, listed, &big, 20);
    assert_leak(second, rest, &small, 3);
    assert_eq!((first.process.as_deref(), first.pid), (Some("big"), Some(big.process.id())));
    assert_eq!((second.process.as_deref(), second.pid), (Some("small"), Some(small.process.id())));
    assert_eq!((listed.len(), rest.len()), (5, 3));
    for member in listed.iter().chain(rest) {
        assert_eq!(member.age_source, "at_least");
        // The kernel's timers have millisecond resolution.
        assert_time("age", member.age(), least.saturating_sub(Duration::from_millis(20))..=wall);
    }
    assert!(listed.is_sorted_by(|a, b| a.age_us >= b.age_us));
    assert!((first.oldest_us - listed[0].age_us).abs() < 0.001, "{first:?}");
    assert_eq!(list(&namespace, &["--threshold", "close_wait=1h"]), []);
    assert_eq!(list(&namespace, &[]), []);
    let limited = list(&namespace, &["--threshold", "close_wait=1s", "--limit", "20", "-n", "1"]);
    let [(_, all)] = &limited[..] else { panic!("{limited:#?}") };
    assert_eq!(all.len(), 20);
}

/// A connection that enters its state during tracing has an exact age.
#[rstest]
fn observed_age_is_exact(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    let old = leak(&namespace, "old", 2);
    let started = Instant::now();
    let tracer = start(
        &namespace,
        &["-o", "json", "--mode", mode.name(), "-d", "3s", "--threshold", "close_wait=100ms", "--by", "port"],
    );
    tracer.wait_for_stderr("tracing TCP in mode");
    let begin = Instant::now();
    let new = leak(&namespace, "new", 3);
    let ready = Instant::now();
    let ended = finish(tracer);
    let wall = begin.elapsed();
    let found = groups(&ended);
    let [(first, observed), (second, earlier)] = &found[..] else { panic!("{found:#?}") };
    assert_leak(first, observed, &new, 3);
    assert_leak(second, earlier, &old, 2);
    for member in observed {
        assert_eq!(member.age_source, "observed", "{member:#?}");
        // The report comes three seconds after the start, which is later than `started`.
        let least = Duration::from_secs(3).saturating_sub(ready - started);
        assert_time("age", member.age(), least..=wall);
    }
    assert!(earlier.iter().all(|member| member.age_source == "at_least"), "{earlier:#?}");
}

/// Connections that hung before the start, and neither receive nor enter a state: both socket dumps found them, so they are
/// at least as old as the time between. The age of their last segment in the kernel's timers is a bound, too.
#[rstest]
fn what_hung_before_the_start_is_listed(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::alone();
    namespace.ip("link set lo up");
    let _inhabitant = namespace.inhabit();
    let [closing, last] = [5000, 5001].map(|port| sockets::pair(&namespace, &format!("127.0.0.1:{port}")));
    // The peer of one closes first and waits in FIN_WAIT2.
    last.client.shutdown(Shutdown::Write).unwrap();
    sockets::wait_for_end(&last.server);
    wait::until("FIN_WAIT2", || (namespace.sockets_in(sockets::FIN_WAIT_2) == 1).then_some(()));
    namespace.filter_input("drop");
    let connecting = namespace.run("hanger", || sockets::begin_connect(sockets::address("127.0.0.1:9999")));
    drop(closing.client);
    drop(last.server);
    let hung = [(1 << 2, "syn_sent"), (1 << 4, "fin_wait_1"), (1 << 9, "last_ack")];
    for (state, name) in hung {
        wait::until(name, || (namespace.sockets_in(state) == 1).then_some(()));
    }
    let since = Instant::now();
    let listed = |options: &[&str]| -> Vec<Stuck> {
        list(&namespace, options).into_iter().flat_map(|(_, members)| members).collect()
    };
    let thresholds = ["--threshold", "syn_sent=2500ms", "--threshold", "fin_wait_1=2500ms"];
    let thresholds = [&thresholds[..], &["--threshold", "last_ack=2500ms"]].concat();
    // Between two looks.
    let found = listed(&[&["-d", "3s", "--mode", mode.name()], &thresholds[..]].concat());
    for (_, name) in hung {
        let [member] = &found.iter().filter(|member| member.state == name).collect::<Vec<_>>()[..] else {
            panic!("{name} in {found:#?}")
        };
        assert_eq!(member.age_source, "at_least");
        assert_time(
            name,
            member.age(),
            Duration::from_millis(2_900)..=since.elapsed() + Duration::from_secs(1),
        );
    }
    // At one look, from the timers.
    let least =
        ["--threshold", "syn_sent=1ms", "--threshold", "fin_wait_1=1ms", "--threshold", "last_ack=1ms"];
    let found = listed(&least);
    let found: Vec<_> =
        found.iter().filter(|member| hung.iter().any(|(_, name)| member.state == *name)).collect();
    assert_eq!(found.len(), hung.len(), "{found:#?}");
    for member in found {
        assert_time(
            &member.state,
            member.age(),
            Duration::from_secs(1)..=since.elapsed() + Duration::from_secs(1),
        );
    }
    drop(connecting);
}

/// Both sides of a handshake that makes no progress, each in its namespace.
#[rstest]
fn stalled_handshake_is_reported_on_both_sides(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    // Only the first SYN arrives. A retransmitted SYN would be answered immediately, which the kernel counts
    // like a retransmit of its own timer.
    let relay = Relay::new(|segment| match (segment.direction, segment.kind, segment.index) {
        (Direction::ToServer, SegmentKind::Syn, 0) => Verdict::Pass,
        _ => Verdict::Drop,
    });
    let _inhabitants = [relay.client.inhabit(), relay.server.inhabit()];
    let to = sockets::address(&format!("{SERVER}:5000"));
    let _listener = relay.server.run("server", || sockets::listen(&to.to_string()));
    let started = Instant::now();
    let clients = start(
        &relay.client,
        &["-o", "json", "--mode", mode.name(), "-d", "4s", "--threshold", "syn_sent=500ms"],
    );
    clients.wait_for_stderr("tracing TCP in mode");
    let begin = Instant::now();
    let client = relay.client.run("client", || {
        let client = sockets::tcp(to);
        // A port that `connect` chooses is unknown when the socket enters SYN_SENT.
        client.bind(&sockets::address(&format!("{CLIENT}:6000")).into()).unwrap();
        client.set_nonblocking(true).unwrap();
        let error = client.connect(&to.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
        client
    });
    let connected = started.elapsed();
    wait::until("the retransmitted SYN-ACK", || relay.segment(Direction::ToClient, SegmentKind::SynAck, 1));
    // The minimum age is lower while less than half of the time to the next retransmit is left.
    let found = wait::until("a minimum age of 1 s", || {
        Some(list(&relay.server, &["--threshold", "syn_received=1s"])).filter(|found| !found.is_empty())
    });
    let [(group, members)] = &found[..] else { panic!("{found:#?}") };
    let [member] = &members[..] else { panic!("{members:#?}") };
    assert_eq!((group.count, member.state.as_str()), (1, "syn_received"));
    assert_eq!((member.local_port, member.remote_port), (Some(5000), Some(sockets::port(&client))));
    assert_eq!(member.pid, Some(std::process::id()));
    assert_eq!(member.age_source, "at_least");
    assert_time("age", member.age(), Duration::from_secs(1)..=begin.elapsed());

    let ended = finish(clients);
    let wall = begin.elapsed();
    let found = groups(&ended);
    let [(group, members)] = &found[..] else { panic!("{found:#?}") };
    let [member] = &members[..] else { panic!("{members:#?}") };
    assert_eq!((group.count, member.state.as_str(), member.age_source.as_str()), (1, "syn_sent", "observed"));
    assert_eq!((member.local_port, member.remote_port), (Some(sockets::port(&client)), Some(5000)));
    assert_eq!(member.pid, Some(std::process::id()));
    assert_time("age", member.age(), Duration::from_secs(4).saturating_sub(connected)..=wall);
}

/// The client has closed its half; the server stays open.
#[test]
fn half_close_is_reported_on_both_sides() {
    let namespace = Namespace::new();
    let _inhabitant = namespace.inhabit();
    let Pair { client, server: _server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    client.shutdown(Shutdown::Write).unwrap();
    let begin = Instant::now();
    wait::until("CLOSE_WAIT", || (namespace.sockets_in(sockets::CLOSE_WAIT) == 1).then_some(()));
    let least = wait::pause(Duration::from_millis(300)).saturating_sub(Duration::from_millis(20));
    let found = list(&namespace, &["--threshold", "close_wait=200ms,fin_wait_2=200ms"]);
    let wall = begin.elapsed() + Duration::from_millis(20);
    let [(group, members)] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((group.count, group.pid), (2, Some(std::process::id())));
    let state = |name: &str| members.iter().find(|member| member.state == name).unwrap();
    let (client, server) = (state("fin_wait_2"), state("close_wait"));
    assert_eq!(client.local_port, server.remote_port);
    assert_eq!(client.remote_port, server.local_port);
    for member in members {
        assert_time("age", member.age(), least..=wall);
        assert_eq!((member.unread_bytes, member.unacked_bytes), (Some(0), Some(0)), "{member:#?}");
    }
}

#[test]
fn time_wait_is_listed_on_request() {
    let namespace = Namespace::new();
    let _inhabitant = namespace.inhabit();
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    let port = sockets::port(&client);
    client.shutdown(Shutdown::Write).unwrap();
    sockets::wait_for_end(&server);
    drop(server);
    sockets::wait_for_end(&client);
    drop(client);
    wait::until("TIME_WAIT", || (namespace.sockets_in(sockets::TIME_WAIT) == 1).then_some(()));
    let begin = Instant::now();
    assert_eq!(list(&namespace, &[]), []);
    let found = list(&namespace, &["--time-wait"]);
    let [(group, members)] = &found[..] else { panic!("{found:#?}") };
    let [member] = &members[..] else { panic!("{members:#?}") };
    assert_eq!((group.group.as_str(), member.state.as_str()), (KERNEL, "time_wait"));
    assert_eq!((member.local_port, member.pid), (Some(port), None));
    let left = Duration::from_secs_f64(member.ends_in_us.unwrap() / 1e6);
    let least = Duration::from_secs(59).saturating_sub(begin.elapsed());
    assert_time("time left", left, least..=Duration::from_secs(60));
    // Age and time left add up to the minute of TIME_WAIT.
    assert!(
        (member.age() + left).abs_diff(Duration::from_secs(60)) < Duration::from_millis(5),
        "{member:#?}"
    );
}

#[rstest]
#[case::port("port")]
#[case::remote("remote")]
#[case::container("container")]
fn connections_are_grouped_by_option(#[case] by: &str) {
    let namespace = Namespace::alone();
    let (one, other) = (leak(&namespace, "one", 2), leak(&namespace, "other", 3));
    wait::pause(Duration::from_millis(50));
    let found = list(&namespace, &["--threshold", "close_wait=10ms", "--by", by]);
    let counts: Vec<(String, usize)> =
        found.iter().map(|(group, _)| (group.group.clone(), group.count)).collect();
    let expected = match by {
        "port" => vec![(format!("port {}", other.port), 3), (format!("port {}", one.port), 2)],
        "remote" => vec![("127.0.0.1".to_owned(), 5)],
        _ => vec![("no container".to_owned(), 5)],
    };
    // The test program itself may run in a container.
    if by != "container" || found.iter().all(|(group, _)| group.container_id.is_none()) {
        assert_eq!(counts, expected);
    }
    assert_eq!(found.iter().map(|(group, _)| group.count).sum::<usize>(), 5);
    let mut ids: Vec<_> = found.iter().flat_map(|(_, members)| members).map(|member| member.pid).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut both = [Some(one.process.id()), Some(other.process.id())];
    both.sort_unstable();
    assert_eq!(ids, both);
}

#[test]
fn csv_and_table_list_the_connections() {
    let namespace = Namespace::alone();
    let held = leak(&namespace, "holder", 7);
    wait::pause(Duration::from_millis(50));
    let options = ["--threshold", "close_wait=10ms", "-o"];
    let csv = finish(start(&namespace, &[&options[..], &["csv"]].concat())).stdout;
    let mut reader = csv::Reader::from_reader(&csv[..]);
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|known| known == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 7);
    for row in &rows {
        assert_eq!((&row[column("type")], &row[column("state")]), ("stuck", "close_wait"));
        assert_eq!(row[column("pid")], held.process.id().to_string());
        assert_eq!((&row[column("process")], &row[column("unread_bytes")]), ("holder", "7"));
        assert!(row[column("age_us")].parse::<f64>().unwrap() >= 10_000.0);
    }

    let table = finish(start(&namespace, &[&options[..], &["table"]].concat())).text();
    let lines: Vec<&str> = table.lines().collect();
    let [header, group, members @ ..] = &lines[..] else { panic!("{table}") };
    let columns: Vec<_> = header.split_whitespace().collect();
    assert_eq!(columns, ["COUNT", "STATE", "AGE", "LOCAL", "REMOTE", "UNREAD", "UNACKED", "OWNER"]);
    let heading = format!("7 holder ({}), oldest ", held.process.id());
    assert!(group.trim_start().starts_with(&heading) && group.ends_with(": 7 CLOSE_WAIT"), "{table}");
    assert_eq!(members.len(), 5);
    for member in members {
        let cells: Vec<_> = member.split_whitespace().collect();
        assert_eq!((cells[0], cells[4], cells[5], cells[6]), ("CLOSE_WAIT", "7", "0", "holder"), "{table}");
        assert_eq!(cells[2], format!("127.0.0.1:{}", held.port));
    }
}

/// A process that hangs accepts nothing. The connections in its queue hold the peer's FIN.
#[test]
fn connection_that_nobody_accepts_belongs_to_the_listeners_process() {
    let namespace = Namespace::alone();
    let listening = Gate::new();
    let hanger = ChildProcess::start(&namespace, "hanger", || {
        let _listener = sockets::listen("127.0.0.1:5000");
        listening.open();
        sleep_until_killed();
    });
    listening.wait();
    namespace.run("client", || drop(sockets::connect(sockets::address("127.0.0.1:5000"))));
    wait::until("CLOSE_WAIT", || (namespace.sockets_in(sockets::CLOSE_WAIT) == 1).then_some(()));
    let options = ["--threshold", "close_wait=1ms", "--state", "close_wait"];
    // The kernel's timers, which bound the age, have a resolution of milliseconds.
    let (group, listed) = wait::until("the connection", || list(&namespace, &options).pop());
    assert_eq!((group.process.as_deref(), group.pid), (Some("hanger"), Some(hanger.id())));
    assert_eq!((listed[0].pid, listed[0].not_accepted), (Some(hanger.id()), Some(true)), "{listed:#?}");
    let text = finish(start(&namespace, &options)).text();
    assert!(text.contains("not accepted"), "{text}");
}
