//! Reads recordings and exports with pyarrow, DuckDB, Polars and pandas from PyPI, and compares counts and values.
//!
//! Static builds run in the virtual machines, which have neither Python nor a network.
#![cfg(not(target_feature = "crt-static"))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports a failure")]

mod python;
mod queries;
mod real;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tcptrace_bpf::{
    host::{CgroupResolver, HostNames, RecordedCgroups},
    recording::{Header, Writer},
};
use tcptrace_tests::program::program;
use tracer_core::{
    event::{
        ClockOffset, Endpoint, Event, Netns, Process, SocketFlags, SocketId, SourceCounts, TcpInfo, TcpState,
        Timestamp, Transition,
    },
    lifecycle::TimeWaitModel,
};

use crate::python::{folder, run_python, succeed};

/// 2026-11-21T05:59:59Z: the second half of the connections closes in the next hour.
const START_NS: i128 = 1_795_240_799_000_000_000;
const SECOND: u64 = 1_000_000_000;
const CONNECTIONS: u64 = 20_000;

/// Writes clients of which every tenth is refused and the others are established and reset. Their handshakes
/// take 1, 2, ... 50 us.
fn write_recording(path: &Path) {
    let header = Header {
        tool_version: "0.0.0".into(),
        wire_version: 1,
        host: HostNames {
            name: "web-1".into(),
            kernel: "6.18.0".into(),
            mode: "btf".into(),
            hooks: "drop".into(),
        },
        clock: ClockOffset { to_utc_ns: START_NS },
        time_wait: TimeWaitModel::default(),
        started: Timestamp(0),
        run: "0123456789abcdef".into(),
        part: 1,
        frozen_by: None,
    };
    let mut resolver = CgroupResolver::recorded(RecordedCgroups::default());
    let mut writer = Writer::new(fs::File::create(path).unwrap(), &header).unwrap();
    let mut seen = 0;
    for index in 0..CONNECTIONS {
        // The connections are spread over two seconds.
        let start = index * (2 * SECOND / CONNECTIONS);
        let handshake = 1_000 * (1 + index % 50);
        let mut step = |time, from, to, error, bytes: Option<u64>| {
            let endpoint = |port| Endpoint { address: "192.0.2.7".parse().unwrap(), port };
            let process = Process { pid: 42, uid: 1000, comm: *b"client\0\0\0\0\0\0\0\0\0\0" };
            let transition = Transition {
                time: Timestamp(time),
                socket: SocketId(index),
                cookie: None,
                from,
                to,
                local: endpoint(if to == TcpState::SynSent {
                    0
                } else {
                    1024 + u16::try_from(index).unwrap()
                }),
                remote: endpoint(443),
                process: (to == TcpState::SynSent).then_some(process),
                thread: None,
                netns: Some(Netns(4_026_531_840)),
                cgroup_id: None,
                accept_queue: None,
                data_segments: None,
                unaccepted_segments: None,
                sequences: None,
                interface: None,
                transparent: false,
                defer_accept: false,
                flags: (to == TcpState::Closed).then_some(SocketFlags { error, ..SocketFlags::default() }),
                info: bytes.map(|bytes_sent| TcpInfo { bytes_sent, segments_sent: 1, ..TcpInfo::default() }),
            };
            writer.event(&Event::Transition(transition), &mut resolver).unwrap();
            seen += 1;
        };
        step(start, TcpState::Closed, TcpState::SynSent, 0, None);
        if index % 10 == 0 {
            step(start + handshake, TcpState::SynSent, TcpState::Closed, 111, Some(0));
        } else {
            step(start + handshake, TcpState::SynSent, TcpState::Established, 0, Some(0));
            step(start + 2 * handshake, TcpState::Established, TcpState::Closed, 104, Some(index));
        }
    }
    let counts = SourceCounts { seen, lost: 3, skipped: None, ..SourceCounts::default() };
    writer.finish(&counts, &mut resolver).unwrap();
}

const PYARROW: &str = r#"
import json, sys
import pyarrow.compute as pc, pyarrow.ipc as ipc
table = ipc.open_stream(sys.argv[1]).read_all()
kinds = {v["values"]: v["counts"] for v in pc.value_counts(table["kind"].cast("string")).to_pylist()}
rows = table.select(["kind", "time", "from_state", "to_state", "local_port", "process", "error", "lost",
    "skipped", "seen", "bytes_sent"])
print(json.dumps({
    "kinds": kinds,
    "sent": pc.sum(table["bytes_sent"]).as_py(),
    "refused": pc.sum(pc.equal(table["error"], 111)).as_py(),
    "first": {k: str(v) if k == "time" else v for k, v in rows.slice(0, 1).to_pylist()[0].items()},
    "last": {k: v for k, v in rows.slice(rows.num_rows - 1).to_pylist()[0].items() if k != "time"},
    "host": table.schema.metadata[b"tcptrace.host"].decode(),
    "unit": table.schema.field("bytes_sent").metadata[b"unit"].decode(),
}))
"#;

#[test]
fn pyarrow_reads_a_recording() {
    let folder = folder("pyarrow");
    let path = folder.join("a.arrows");
    write_recording(&path);
    let found = run_python(PYARROW, &[&path]);
    assert_eq!(found["kinds"], serde_json::json!({ "transition": 58_000, "counts": 1 }));
    let sent: u64 = (0..CONNECTIONS).filter(|index| index % 10 != 0).sum();
    assert_eq!((found["sent"].as_u64(), found["refused"].as_u64()), (Some(sent), Some(2_000)));
    let first = &found["first"];
    assert_eq!(first["time"], "2026-11-21 05:59:59+00:00");
    assert_eq!(
        (first["from_state"].as_str(), first["to_state"].as_str()),
        (Some("closed"), Some("syn_sent"))
    );
    assert_eq!((first["local_port"].clone(), first["process"].as_str()), (Value::Null, Some("client")));
    let last = &found["last"];
    assert_eq!((last["seen"].as_u64(), last["lost"].as_u64()), (Some(58_000), Some(3)));
    assert_eq!(last["skipped"], Value::Null, "an unknown count is null");
    assert_eq!((found["host"].as_str(), found["unit"].as_str()), (Some("web-1"), Some("bytes")));
    fs::remove_dir_all(folder).unwrap();
}

const DUCKDB: &str = r#"
import json, sys
import duckdb
import pyarrow.parquet as pq, glob
folder = sys.argv[1]
connections = f"read_parquet('{folder}/connections/**/*.parquet', hive_partitioning = true)"
transitions = f"read_parquet('{folder}/transitions/**/*.parquet', hive_partitioning = true)"
rows = lambda query: duckdb.sql(query).fetchall()
file = glob.glob(f"{folder}/connections/**/*.parquet", recursive = True)[0]
print(json.dumps({
    "by_hour": rows(f"SELECT host, date::VARCHAR, hour::INT, count(*) FROM {connections} GROUP BY ALL ORDER BY ALL"),
    "by_reason": rows(f"SELECT close_reason, count(*), sum(bytes_sent)::BIGINT FROM {connections} GROUP BY ALL ORDER BY 2"),
    "handshake": rows(f"SELECT min(handshake_us), max(handshake_us) FROM {connections} WHERE close_reason <> 'refused'"),
    "state": rows(f"SELECT s.state, count(*) FROM (SELECT unnest(states) AS s FROM {connections}) GROUP BY ALL ORDER BY 2"),
    "first": rows(f"SELECT epoch_ns(min(opened)), min(opened)::VARCHAR FROM {connections}")[0][0],
    "transitions": rows(f"SELECT count(*), count(DISTINCT socket) FROM {transitions}"),
    "unit": pq.read_schema(file).field("duration_us").metadata[b"unit"].decode(),
    "pyarrow": pyarrow_of(pq.read_table(f"{folder}/connections", partitioning = None)),
    "joined": rows(f"SELECT count(*) FROM {transitions} JOIN {connections} USING (connection_id)")[0][0],
    "open": rows(f"SELECT count(*), count(connection_id) FROM '{folder}/open_connections/**/*.parquet'")[0],
}))
"#;

const CSV: &str = r#"
import json, sys
import duckdb
import pyarrow.csv as csv
rows = lambda query: duckdb.sql(query).fetchall()
print(json.dumps({
    "duckdb": rows(f"SELECT count(*), sum(bytes_sent)::BIGINT FROM read_csv('{sys.argv[1]}')")[0],
    "by_reason": rows(f"SELECT close_reason, count(*) FROM read_csv('{sys.argv[1]}') GROUP BY ALL ORDER BY 2"),
    "pyarrow": pyarrow_of(csv.read_csv(sys.argv[1])),
}))
"#;

#[test]
fn duckdb_reads_an_export() {
    let folder = folder("duckdb");
    let path = folder.join("a.arrows");
    write_recording(&path);
    let out = folder.join("out");
    let export = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.arg("export").arg(&path).args(arguments);
        command
    };
    let output = succeed(&mut export(&["--to", out.to_str().unwrap()]));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("20000 connections in 2 files"), "{stderr}");
    assert!(stderr.contains("0 open connections in 1 file "), "{stderr}");

    let found = run_python(DUCKDB, &[&out]);
    let half = CONNECTIONS / 2;
    assert_eq!(
        found["by_hour"],
        // One connection opens before the full hour and closes after it.
        serde_json::json!([["web-1", "2026-11-21", 5, half - 1], ["web-1", "2026-11-21", 6, half + 1]])
    );
    let sent: u64 = (0..CONNECTIONS).filter(|index| index % 10 != 0).sum();
    assert_eq!(
        found["by_reason"],
        serde_json::json!([["refused", 2_000, 0], ["reset_by_peer", 18_000, sent]])
    );
    // Handshakes of 1, 11, 21, 31 and 41 us were refused.
    assert_eq!(found["handshake"], serde_json::json!([[2.0, 50.0]]));
    assert_eq!(found["state"], serde_json::json!([["established", 18_000], ["syn_sent", 20_000]]));
    assert_eq!(found["first"].as_i64().map(i128::from), Some(START_NS));
    assert_eq!(found["transitions"], serde_json::json!([[58_000, 20_000]]));
    assert_eq!(found["unit"], "us");
    assert_eq!(found["pyarrow"], serde_json::json!([CONNECTIONS, sent]));
    assert_eq!(found["joined"], 58_000, "each transition has the id of its connection");
    assert_eq!(found["open"], serde_json::json!([0, 0]), "a table without rows has a file");

    // A second export to the same folder is rejected.
    let again = export(&["--to", out.to_str().unwrap()]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));

    let csv = folder.join("c.csv");
    succeed(&mut export(&["--to", csv.to_str().unwrap(), "--what", "connections"]));
    let text = fs::read_to_string(&csv).unwrap();
    let replayed = succeed(Command::new(program()).arg("-i").arg(&path).args(["-o", "csv", "--quiet"]));
    assert!(text.as_bytes() == replayed.stdout, "the export equals the output of -o csv");
    assert_eq!(text.lines().count(), 1 + 20_000);
    let found = run_python(CSV, &[&csv]);
    assert_eq!(found["duckdb"], serde_json::json!([CONNECTIONS, sent]));
    assert_eq!(found["by_reason"], serde_json::json!([["refused", 2_000], ["reset_by_peer", 18_000]]));
    assert_eq!(found["pyarrow"], serde_json::json!([CONNECTIONS, sent]));
    fs::remove_dir_all(folder).unwrap();
}
