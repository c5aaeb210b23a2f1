//! `compare`: recordings of the same traffic, and of a service that stopped.

use std::path::{Path, PathBuf};

use tcptrace_tests::{Namespace, Tracer, sockets};

const SERVICE: &str = "127.0.0.1:5432";
const OTHER: &str = "127.0.0.1:5433";
/// Connections of a recording to each service.
const CONNECTIONS: usize = 40;

/// Records connections to both services; the first is refused unless it listens.
fn record(namespace: &Namespace, file: &Path, listens: bool) {
    let recorder = Tracer::start(["record", file.to_str().unwrap(), "--duration", "10m"]);
    let listener = listens.then(|| namespace.run("server", || sockets::listen(SERVICE)));
    let other = namespace.run("server", || sockets::listen(OTHER));
    for _ in 0..CONNECTIONS {
        if let Some(listener) = &listener {
            let client = namespace.run("client", || sockets::connect(sockets::address(SERVICE)));
            drop((client, sockets::accept(listener)));
        } else {
            let refused = namespace.run("client", || sockets::try_connect(sockets::address(SERVICE)));
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        }
        let client = namespace.run("client", || sockets::connect(sockets::address(OTHER)));
        drop((client, sockets::accept(&other)));
    }
    namespace.settle();
    recorder.interrupt();
}

fn compare(namespace: &Namespace, before: &Path, after: &Path) -> Vec<serde_json::Value> {
    let netns = namespace.inode().to_string();
    let files = ["compare", before.to_str().unwrap(), after.to_str().unwrap()];
    let options = ["-o", "json", "--role", "client", "--netns", &netns];
    let ended = Tracer::start_unready(files.into_iter().chain(options)).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended.rows()
}

/// Returns group, measure and verdict of the claims about failed handshakes of the services.
fn claims(rows: &[serde_json::Value]) -> Vec<(&str, &str)> {
    rows.iter()
        .filter(|row| row["measure"] == "handshake_failures")
        .filter(|row| row["verdict"] == "worse" || row["verdict"] == "better")
        .map(|row| (row["group"].as_str().unwrap(), row["verdict"].as_str().unwrap()))
        .filter(|(group, _)| [SERVICE, OTHER].contains(group))
        .collect()
}

#[test]
fn a_service_that_stopped_is_named_and_the_same_traffic_is_not() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let [first, second, stopped]: [PathBuf; 3] =
        ["first", "second", "stopped"].map(|name| folder.path().join(name));
    record(&namespace, &first, true);
    record(&namespace, &second, true);
    record(&namespace, &stopped, false);
    assert!(claims(&compare(&namespace, &first, &second)).is_empty());
    let worse = compare(&namespace, &second, &stopped);
    assert_eq!(claims(&worse), [(SERVICE, "worse")]);
    assert_eq!(worse[0]["type"], "comparison");
    assert_eq!(worse[1]["group"], SERVICE, "the worst group is first");
    assert_eq!(claims(&compare(&namespace, &stopped, &second)), [(SERVICE, "better")]);
}
