//! `record` and `--input`: a recording replays the rows of the live run, regardless of how recording stopped.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Map, Value};
use tcptrace_tests::{
    Connection, Mode, Namespace, Stuck, StuckGroup, Tracer,
    program::program,
    sockets::{self, Pair},
    speed,
    tracer::TracerOutput,
    wait,
};
use tempfile::TempDir;

use crate::support::open_and_reset;

/// A temporary folder for recordings.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

fn record(file: &str, mode: Mode, options: &[&str]) -> Tracer {
    let fixed = ["record", file, "--mode", mode.name(), "--duration", "10m"];
    Tracer::start(fixed.iter().chain(options))
}

fn run(arguments: &[&str]) -> TracerOutput {
    let ended = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", ended.stderr);
    ended
}

/// Runs a command on a recording, limited to one namespace.
fn replay(file: &str, command: &str, namespace: &Namespace, options: &[&str]) -> TracerOutput {
    let netns = namespace.inode().to_string();
    let fixed = ["-i", file, command, "-o", "json", "--netns", &netns];
    run(&fixed.iter().chain(options).copied().collect::<Vec<_>>())
}

/// Makes a reset, a closed and a refused connection: 2 + 2 + 1 rows.
fn traffic(namespace: &Namespace) {
    open_and_reset(namespace);
    let Pair { client, server, listener } = sockets::pair(namespace, "[::1]:0");
    sockets::send(&client, b"hello");
    sockets::receive(&server, 5);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    sockets::wait_for_end(&server);
    drop(server);
    sockets::wait_for_end(&client);
    let closed_port = sockets::local(&listener);
    drop((client, listener));
    let refused = namespace.run("refused", || sockets::try_connect(closed_port).map(drop));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Returns the sorted rows without values that differ between tracers: the socket key, which is random per
/// process, and the connection's id, which depends on it; the times, whose offset from the monotonic clock to UTC differs; and durations between two
/// transitions, because each tracer's BPF program takes its timestamp when it runs, some hundred nanoseconds
/// apart.
fn comparable(ended: &TracerOutput) -> Vec<String> {
    let mut lines: Vec<String> = ended
        .rows::<Map<String, Value>>()
        .into_iter()
        .map(|mut row| {
            for field in ["socket", "connection_id", "time", "opened", "closed"] {
                row.remove(field);
            }
            for field in ["duration_us", "accept_wait_us", "first_read_us", "first_write_us"] {
                row.remove(field);
            }
            if row.get("handshake_source").is_some_and(|source| source == "observed") {
                row.remove("handshake_us");
            }
            for state in row.get_mut("states").and_then(Value::as_array_mut).into_iter().flatten() {
                if state["source"] == "observed" {
                    state["duration_us"] = Value::Null;
                }
            }
            serde_json::to_string(&row).unwrap()
        })
        .collect();
    lines.sort();
    lines
}

#[rstest]
fn replay_reports_the_rows_of_the_live_run(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let folder = Folder::new();
    let file = folder.file("a.arrows");
    let namespace = Namespace::new();
    let recorder = record(&file, mode, &[]);
    let connections = Tracer::connections(&namespace, mode);
    let transitions = Tracer::transitions(&namespace, mode);
    traffic(&namespace);
    connections.wait_for_lines(5);
    let (connections, transitions) = (connections.interrupt(), transitions.interrupt());
    let recorded = recorder.interrupt();
    if [&connections, &transitions, &recorded].iter().any(|ended| ended.summary().missing() > 0) {
        // Each tracer has its own BPF program, and the kernel skips them independently.
        return speed::not_possible("it skipped runs of one of the three tracers' BPF programs");
    }
    assert!(recorded.stderr.contains("events recorded"), "{}", recorded.stderr);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    for (command, live) in [("connections", &connections), ("transitions", &transitions)] {
        let first = replay(&file, command, &namespace, &[]);
        assert_eq!(comparable(&first), comparable(live), "{command}");
        assert_eq!(first.stdout, replay(&file, command, &namespace, &[]).stdout, "replays are deterministic");
        assert!(first.stderr.contains(&format!("mode {}", mode.name())), "{}", first.stderr);
        assert_eq!(first.summary().seen, recorded.summary().seen);
        assert!(!first.stderr.contains("end marker"), "{}", first.stderr);
    }
    // Reads the recording from stdin.
    let from_stdin = Command::new(program())
        .args(["-i", "-", "-o", "json", "--netns", &namespace.inode().to_string()])
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert_eq!(from_stdin.stdout, replay(&file, "connections", &namespace, &[]).stdout);
}

#[test]
fn killed_recorder_keeps_written_batches() {
    let folder = Folder::new();
    let file = folder.file("a.arrows");
    let namespace = Namespace::new();
    let recorder = record(&file, Mode::Btf, &[]);
    open_and_reset(&namespace);
    // The recorder writes within a second; the file can be read while it grows.
    let seen = wait::until("both connections in the file", || {
        let ended = replay(&file, "connections", &namespace, &[]);
        (ended.line_count() == 2).then_some(ended)
    });
    assert!(seen.stderr.contains("it was cut off or is still being written"), "{}", seen.stderr);
    recorder.signal(Signal::KILL);
    assert!(!recorder.wait_for_exit().status.success());
    let after = replay(&file, "connections", &namespace, &[]);
    assert_eq!(after.stdout, seen.stdout);
    assert!(after.stderr.contains("without its end marker"), "{}", after.stderr);

    // An existing file is not overwritten without `--force`.
    let refused = Tracer::start_unready(["record", &file]).wait_for_exit();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("exists already") && refused.stderr.contains("--force"));
}

/// Mounts a small tmpfs that is visible only in this thread's new mount namespace.
fn mount_small_disk(at: &Path) {
    let text = |text: &str| CString::new(text).unwrap();
    let (kind, options) = (text("tmpfs"), text("size=256k"));
    let at = CString::new(at.to_str().unwrap()).unwrap();
    let root = text("/");
    // SAFETY: the strings are NUL-terminated and outlive the calls. Only this thread's mount namespace
    // changes.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "unshare: {}", std::io::Error::last_os_error());
        let private = libc::MS_REC | libc::MS_PRIVATE;
        assert_eq!(
            libc::mount(std::ptr::null(), root.as_ptr(), std::ptr::null(), private, std::ptr::null()),
            0
        );
        let mounted = libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast());
        assert_eq!(mounted, 0, "mount: {}", std::io::Error::last_os_error());
    }
}

#[test]
fn full_disk_stops_the_recorder_with_an_error() {
    let folder = Folder::new();
    let file = folder.file("a.arrows");
    let namespace = Namespace::new();
    thread::scope(|scope| {
        let work = scope.spawn(|| {
            mount_small_disk(folder.0.path());
            // The program inherits this thread's mount namespace.
            let mut tracer = record(&file, Mode::Btf, &[]);
            wait::until("a full disk", || {
                open_and_reset(&namespace);
                tracer.has_exited().then_some(())
            });
            let ended = tracer.wait_for_exit();
            assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
            let message = ended.stderr.lines().last().unwrap();
            for part in
                [file.as_str(), "No space left on device", "is readable up to its last complete batch"]
            {
                assert!(message.contains(part), "{part} not in: {message}");
            }
            let rows = replay(&file, "connections", &namespace, &[]);
            assert!(rows.line_count() > 2, "{}", rows.stderr);
            assert!(rows.stderr.contains("the recording end"), "{}", rows.stderr);
        });
        work.join().unwrap();
    });
}

#[test]
fn rotated_files_replay_alone_and_together() {
    let folder = Folder::new();
    let file = folder.file("a.arrows");
    let part = |number: u32| folder.file(&format!("a.{number:04}.arrows"));
    let namespace = Namespace::new();
    let recorder = record(&file, Mode::Btf, &["--rotate", "1s", "--max-files", "2"]);
    let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:0");
    wait::until("the third file", || {
        open_and_reset(&namespace);
        thread::sleep(Duration::from_millis(20));
        Path::new(&part(3)).exists().then_some(())
    });
    assert!(!Path::new(&part(1)).exists(), "two files are kept");
    let ports = (sockets::port(&client), sockets::port(&server));
    drop((client, server, listener));
    namespace.settle();
    recorder.interrupt();
    let mut kept: Vec<PathBuf> =
        fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    assert_eq!(kept.len(), 2, "{kept:?}");

    // The connection was opened two files earlier; the last file alone has its close.
    let [before, last] = &kept[..] else { unreachable!() };
    let rows: Vec<Connection> = replay(last.to_str().unwrap(), "connections", &namespace, &[]).rows();
    let closed_late: Vec<&Connection> =
        rows.iter().filter(|row| row.ports() == ports || row.ports() == (ports.1, ports.0)).collect();
    assert_eq!(closed_late.len(), 2, "{rows:#?}");
    assert!(closed_late.iter().all(|row| row.incomplete && row.close_reason == "closed"), "{closed_late:#?}");

    let netns = namespace.inode().to_string();
    let both =
        run(&["-i", last.to_str().unwrap(), "-i", before.to_str().unwrap(), "-o", "json", "--netns", &netns]);
    assert!(both.line_count() >= rows.len());
    assert!(!both.stderr.contains("not given"), "{}", both.stderr);
    let merged: Vec<Connection> = both.rows();
    assert_eq!(merged.iter().filter(|row| row.ports() == ports).count(), 1);
}

#[test]
fn stuck_reports_the_state_at_the_end_of_a_recording() {
    let folder = Folder::new();
    let file = folder.file("a.arrows");
    let namespace = Namespace::new();
    let recorder = record(&file, Mode::Btf, &[]);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
    let port = sockets::port(&server);
    drop(client);
    sockets::wait_for_end(&server);
    wait::pause(Duration::from_millis(300));
    recorder.interrupt();

    let ended = replay(&file, "stuck", &namespace, &["--threshold", "close_wait=200ms,fin_wait_2=1h"]);
    let rows: Vec<Value> = ended.rows();
    let [group, row] = &rows[..] else { panic!("{rows:#?}") };
    let group: StuckGroup = serde_json::from_value(group.clone()).unwrap();
    let row: Stuck = serde_json::from_value(row.clone()).unwrap();
    assert_eq!(group.count, 1);
    assert_eq!((row.state.as_str(), row.local_port), ("close_wait", Some(port)));
    assert_eq!(row.pid, Some(std::process::id()));
    let row: Value = rows[1].clone();
    assert_eq!(row["age_source"], "observed");
    assert!(ended.stderr.contains("when the recording ended"), "{}", ended.stderr);
}

#[rstest]
#[case::record(&["record", "a", "-i", "b"])]
#[case::doctor(&["doctor", "-i", "b"])]
#[case::filter(&["record", "a", "--local-port", "80"])]
#[case::max_files(&["record", "a", "--max-files", "3"])]
#[case::rotate(&["record", "a", "--rotate", "soon"])]
#[case::export(&["export", "a", "--to", "b.parquet"])]
#[case::export_json(&["export", "a", "--to", "b.json"])]
#[case::record_parquet(&["record", "a.parquet"])]
#[case::record_packets(&["record", "a.pcap"])]
fn invalid_arguments_exit_with_status_2(#[case] arguments: &[&str]) {
    let ended = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
}

#[rstest]
#[case::absent("/no/such/file", b"", "cannot open the recording /no/such/file")]
#[case::text("", b"hello, world", "it is not an Arrow stream")]
#[case::empty("", b"", "it ends before the first event")]
fn invalid_recording_is_rejected_with_an_error(
    #[case] path: &str,
    #[case] content: &[u8],
    #[case] part: &str,
) {
    let folder = Folder::new();
    let file = if path.is_empty() { folder.file("x") } else { path.to_owned() };
    if path.is_empty() {
        fs::write(&file, content).unwrap();
    }
    let ended = Tracer::start_unready(["-i", &file]).wait_for_exit();
    assert_eq!((ended.status.code(), ended.text().as_str()), (Some(1), ""));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(part), "{}", ended.stderr);
}

#[test]
fn exit_report_summarizes_close_reasons() {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, Mode::Btf);
    traffic(&namespace);
    tracer.wait_for_lines(5);
    let ended = tracer.interrupt();
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let [.., reasons, slowest, summary] = &lines[..] else { panic!("{lines:?}") };
    assert!(reasons.contains("how connections ended: 2 closed"), "{reasons}");
    assert!(reasons.contains("1 refused"), "{reasons}");
    assert!(slowest.contains("slowest handshakes: ") && slowest.contains(" to "), "{slowest}");
    assert!(summary.contains("transitions seen"), "{summary}");
}
