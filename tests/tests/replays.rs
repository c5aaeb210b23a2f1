//! Runs commands on recordings that the tests write. Nothing is traced, and root is not required.
//!
//! Static builds run in the virtual machines, which run the scenarios.
#![cfg(not(target_feature = "crt-static"))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports a failure")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tcptrace_bpf::{
    host::{Cgroup, CgroupResolver, HostNames, RecordedCgroups},
    recording::{Header, Writer},
};
use tcptrace_tests::{program::program, pty::Pty, wait};
use tempfile::TempDir;
use tracer_core::{
    event::{
        CgroupId, ClockOffset, Endpoint, Event, SocketFlags, SocketId, SourceCounts, TcpInfo, TcpState,
        Timestamp, Transition,
    },
    lifecycle::TimeWaitModel,
};

const MS: u64 = 1_000_000;

/// How a recorded connection ends.
#[derive(Clone, Copy)]
enum Ending {
    /// Established and reset.
    Reset,
    /// Refused.
    Refused,
    /// No local port was available.
    NoPort,
}

fn step(time: u64, socket: u64, from: TcpState, to: TcpState, ports: (u16, u16), error: u16) -> Event {
    let endpoint = |port| Endpoint { address: "192.0.2.7".parse().unwrap(), port };
    let closed = to == TcpState::Closed;
    Event::Transition(Transition {
        time: Timestamp(time),
        socket: SocketId(socket),
        cookie: None,
        from,
        to,
        local: endpoint(ports.0),
        remote: endpoint(ports.1),
        process: None,
        thread: None,
        netns: None,
        // Sockets with odd numbers are in the cgroup /odd.
        cgroup_id: Some(CgroupId(1 + socket % 2)),
        accept_queue: None,
        data_segments: None,
        unaccepted_segments: None,
        sequences: None,
        interface: None,
        transparent: false,
        defer_accept: false,
        flags: closed.then_some(SocketFlags { error, ..SocketFlags::default() }),
        info: (closed || to == TcpState::Established)
            .then(|| TcpInfo { segments_sent: 1, ..TcpInfo::default() }),
    })
}

/// Returns the events of a connection to a port.
fn connection(socket: u64, ending: Ending, port: u16) -> Vec<Event> {
    use TcpState::{Closed, Established, SynSent};
    let start = socket * MS;
    let known = (u16::try_from(10_000 + socket % 50_000).unwrap(), port);
    let mut events = vec![step(start, socket, Closed, SynSent, (0, port), 0)];
    match ending {
        Ending::Reset => {
            events.push(step(start + MS / 4, socket, SynSent, Established, known, 0));
            events.push(step(start + MS / 2, socket, Established, Closed, known, 104));
        }
        Ending::Refused => events.push(step(start + MS / 4, socket, SynSent, Closed, known, 111)),
        Ending::NoPort => events.push(step(start + MS / 4, socket, SynSent, Closed, (0, port), 0)),
    }
    events
}

fn record(path: &Path, events: impl IntoIterator<Item = Event>) {
    let header = Header {
        tool_version: "0.0.0".into(),
        wire_version: 1,
        host: HostNames {
            name: "web-1".into(),
            kernel: "6.18.0".into(),
            mode: "btf".into(),
            hooks: "drop".into(),
        },
        clock: ClockOffset { to_utc_ns: 1_795_240_799_000_000_000 },
        time_wait: TimeWaitModel::default(),
        started: Timestamp(0),
        run: "0123456789abcdef".into(),
        part: 1,
        frozen_by: None,
    };
    let cgroups = RecordedCgroups::default();
    for (id, path) in [(1, "/even"), (2, "/odd")] {
        cgroups.insert_id(CgroupId(id), Arc::new(Cgroup::new(path.to_owned())));
    }
    let mut resolver = CgroupResolver::recorded(cgroups);
    let mut writer = Writer::new(fs::File::create(path).unwrap(), &header).unwrap();
    let mut seen = 0;
    for event in events {
        writer.event(&event, &mut resolver).unwrap();
        seen += 1;
    }
    let counts = SourceCounts { seen, skipped: Some(0), ..SourceCounts::default() };
    writer.finish(&counts, &mut resolver).unwrap();
}

/// Writes the recording `a.arrows`: connections 1 to 5 to port 443, and 6 to port 80.
fn small_recording() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrows");
    let connections = [
        (1, Ending::Reset, 443),
        (2, Ending::Reset, 443),
        (3, Ending::Refused, 443),
        (4, Ending::Reset, 443),
        (5, Ending::NoPort, 443),
        (6, Ending::Reset, 80),
    ];
    let events = connections.into_iter().flat_map(|(socket, ending, port)| connection(socket, ending, port));
    record(&path, events);
    (folder, path)
}

fn run(path: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(program()).arg("-i").arg(path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(output: &Output) -> Vec<Value> {
    serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>().unwrap()
}

/// Returns the old and new states of the shown rows, in order.
fn edges(output: &Output) -> Vec<(String, String)> {
    let text = |row: &Value, column: &str| row[column].as_str().unwrap().to_owned();
    rows(output).iter().map(|row| (text(row, "from"), text(row, "to"))).collect()
}

#[test]
fn exit_report_covers_shown_rows_and_quiet_suppresses_it() {
    let (_folder, path) = small_recording();
    for command in ["connections", "transitions"] {
        let all = stderr(&run(&path, &[command]));
        assert!(
            all.contains("how connections ended: 4 reset_by_peer, 1 refused, 1 no_local_port"),
            "{command}: {all}"
        );
        assert!(all.contains("slowest handshakes: 250.0us to 192.0.2.7:"), "{command}: {all}");
        let odd = stderr(&run(&path, &[command, "--cgroup", "/odd"]));
        let line = odd.lines().find(|line| line.contains("how connections ended: ")).unwrap();
        for part in ["1 reset_by_peer", "1 refused", "1 no_local_port"] {
            assert!(line.contains(part), "{command}: {odd}");
        }
        assert_eq!(stderr(&run(&path, &[command, "--quiet"])), "", "{command}");
    }
}

/// A connection without an available local port never has one.
#[test]
fn attempt_without_local_port_matches_its_remote_port() {
    let (folder, path) = small_recording();
    let transitions = run(&path, &["transitions", "-o", "json", "--remote-port", "443"]);
    let ports: Vec<Value> = rows(&transitions).iter().map(|row| row["local_port"].clone()).collect();
    let shown = edges(&transitions);
    assert_eq!(shown.len(), 3 * 3 + 2 + 2, "{shown:?}");
    let last = |count: usize| shown[shown.len() - count].clone();
    assert_eq!(last(2), ("closed".into(), "syn_sent".into()));
    assert_eq!(last(1), ("syn_sent".into(), "closed".into()));
    assert_eq!(ports[ports.len() - 2..], [Value::Null, Value::Null]);

    let csv = folder.path().join("a.csv");
    let exported = Command::new(program())
        .arg("export")
        .arg(&path)
        .args(["--what", "transitions", "--remote-port", "443", "--to"])
        .arg(&csv)
        .output()
        .unwrap();
    assert!(exported.status.success(), "{}", stderr(&exported));
    let replayed = run(&path, &["transitions", "-o", "csv", "--remote-port", "443"]);
    assert_eq!(fs::read(&csv).unwrap(), replayed.stdout, "the export equals the shown rows");
}

/// CLOSE to SYN_SENT has no local port, and is still counted.
#[test]
fn diagram_by_local_port_counts_the_first_transition() {
    let (_folder, path) = small_recording();
    let count = |options: &[&str], from: &str, to: &str| {
        let arguments: Vec<&str> =
            ["diagram", "-o", "json"].into_iter().chain(options.iter().copied()).collect();
        let rows = rows(&run(&path, &arguments));
        let edge = rows.iter().find(|row| row["from"] == from && row["to"] == to);
        edge.map_or(0, |edge| edge["count"].as_u64().unwrap())
    };
    let by_port = ["--local-port", "10000-59999"];
    assert_eq!(count(&by_port, "closed", "syn_sent"), 5);
    assert_eq!(count(&by_port, "syn_sent", "established"), 4);
    let by_cgroup = ["--cgroup", "/odd"];
    assert_eq!(count(&by_cgroup, "closed", "syn_sent"), 3);
    assert_eq!(count(&by_cgroup, "syn_sent", "established"), 1);
    assert_eq!(count(&["--cgroup", "/none"], "closed", "syn_sent"), 0);
}

#[test]
fn export_reads_a_pipe() {
    let (folder, path) = small_recording();
    let export = |from: &str, to: &Path| {
        let mut command = Command::new(program());
        command.args(["export", from, "--what", "connections", "--to"]).arg(to);
        // A pipe can be read only once.
        let mut cat = Command::new("cat").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        command.stdin(cat.stdout.take().unwrap());
        let output = command.output().unwrap();
        cat.wait().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read(to).unwrap()
    };
    let whole = export(path.to_str().unwrap(), &folder.path().join("whole.csv"));
    assert_eq!(whole.split(|&byte| byte == b'\n').count(), 1 + 6 + 1);
    assert_eq!(export("-", &folder.path().join("stdin.csv")), whole);
    assert_eq!(export("/dev/stdin", &folder.path().join("device.csv")), whole);
}

/// Reads a long recording on a terminal, with stdout redirected as given. Returns everything written to the
/// terminal.
fn progress(command: &str, stdout: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrows");
    record(&path, (0..150_000).flat_map(|socket| connection(socket, Ending::Reset, 443)));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" -i \"$1\" {command} {stdout}")]).arg(program()).arg(&path);
    let pty = Pty::start_command(120, 40, shell);
    // Stops the program soon after its start, for longer than the delay before progress is shown.
    wait::until("the program to read", || pty.written().contains("reading ").then_some(()));
    pty.signal(Signal::STOP);
    wait::pause(Duration::from_millis(400));
    pty.signal(Signal::CONT);
    wait::until("the summary", || pty.written().contains("transitions seen").then_some(()));
    pty.written()
}

#[test]
fn progress_is_shown_unless_rows_are_on_the_terminal() {
    for (command, stdout) in [
        ("connections", "> /dev/null"),
        ("diagram", ""),
        ("handshakes -o json", ""),
        ("diagram", "> /dev/null"),
    ] {
        let written = progress(command, stdout);
        assert!(written.contains(" % read, "), "{command} {stdout}: {written}");
    }
    let written = progress("connections", "");
    assert!(!written.contains("% read"), "no progress between rows");
}
