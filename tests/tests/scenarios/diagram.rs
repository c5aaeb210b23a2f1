//! Compares the counts of `diagram` with the scenario's traffic.

use std::{
    fs,
    net::Shutdown,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    process::Command,
};

use rstest::rstest;
use serde_json::Value;
use tcptrace_tests::{Mode, Namespace, Tracer, program::program, sockets, speed};

#[rstest]
fn transition_counts_match_the_traffic(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("tcp.svg");
    let tracer =
        Tracer::json("diagram", &namespace, mode, &["--buffer", "64M", "--svg", svg.to_str().unwrap()]);
    for _ in 0..7 {
        let pair = sockets::pair(&namespace, "127.0.0.1:0");
        // `close` would skip TIME_WAIT of the socket: if the FIN is acknowledged before the server closes,
        // only a timewait socket remains.
        pair.client.shutdown(Shutdown::Write).unwrap();
        sockets::wait_for_end(&pair.server);
        drop(pair.server);
        sockets::wait_for_end(&pair.client);
    }
    let open = sockets::pair(&namespace, "127.0.0.1:0");
    let closed = { sockets::local(&namespace.run("server", || sockets::listen("127.0.0.1:0"))) };
    namespace.run("client", || sockets::try_connect(closed)).unwrap_err();
    namespace.settle();
    let ended = tracer.interrupt();
    if ended.summary().skipped.is_none() && mode == Mode::Tracepoint {
        return speed::not_possible("it does not count skipped runs");
    }
    let rows: Vec<Value> = ended.rows();
    let count = |from: &str, to: &str| {
        let edge = rows.iter().find(|row| row["from"] == from && row["to"] == to);
        edge.map_or(0, |edge| edge["count"].as_u64().unwrap())
    };
    let live = |state: &str| {
        rows.iter().find(|row| row["state"] == state).map(|row| row["live"].as_u64().unwrap()).unwrap()
    };
    // Skipped runs on a busy host are missing from the counts.
    let missing = ended.summary().missing();
    for (from, to, expected) in [
        ("closed", "listen", 9),
        ("listen", "closed", 8),
        ("closed", "syn_sent", 9),
        ("syn_sent", "established", 8),
        ("syn_sent", "closed", 1),
        ("listen", "syn_received", 8),
        ("syn_received", "established", 8),
        ("established", "fin_wait_1", 7),
        ("fin_wait_1", "fin_wait_2", 7),
        ("fin_wait_2", "time_wait", 7),
        ("established", "close_wait", 7),
        ("close_wait", "last_ack", 7),
        ("last_ack", "closed", 7),
    ] {
        let counted = count(from, to);
        assert!(counted <= expected && counted + missing >= expected, "{from} to {to}: {rows:#?}");
    }
    let drawn = fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    if missing == 0 {
        assert_eq!((live("established"), live("close_wait")), (2, 0));
        assert!(drawn.contains(">CLOSE: 1</text>") && drawn.contains(">2 now</text>"), "{drawn}");
    }
    drop(open);
}

/// Under sudo, in the caller's own folder, where root can write only with its capabilities.
#[test]
fn svg_belongs_to_the_sudo_caller() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (new, old) = (folder.path().join("new.svg"), folder.path().join("old.svg"));
    fs::write(&old, "<svg of an earlier run".repeat(10_000)).unwrap();
    chown(&old, Some(1000), Some(1000)).unwrap();
    for svg in [&new, &old] {
        let mut command = Command::new(program());
        command.args(["diagram", "--netns", &namespace.inode().to_string(), "--duration", "10m", "--svg"]);
        command.arg(svg).env("SUDO_UID", "1000").env("SUDO_GID", "1000");
        let tracer = Tracer::spawn(&mut command);
        tracer.wait_for_stderr("tracing TCP in mode");
        drop(sockets::pair(&namespace, "127.0.0.1:0"));
        tracer.interrupt();
        let drawn = fs::read_to_string(svg).unwrap();
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
        let metadata = fs::metadata(svg).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1000, 1000));
    }
    // The error is reported at the start, not after the traced time.
    let nowhere = folder.path().join("no/such.svg");
    let ended = Tracer::start_unready(["diagram", "--duration", "10m", "--svg", nowhere.to_str().unwrap()])
        .wait_for_exit();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("no/such.svg: give --svg a writable path"), "{}", ended.stderr);
}
