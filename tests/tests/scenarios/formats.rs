//! The four output formats of `connections` and `transitions`.

use std::net::Shutdown;

use rstest::rstest;
use tcptrace_tests::{ChildProcess, Mode, Namespace, Tracer, sockets, tracer};

/// Returns the program's output for one connection of a process with the given name.
fn output(mode: Mode, command: &str, format: &str, time: &str, lines: usize, name: &str) -> String {
    output_and_process(mode, command, format, time, lines, name).0
}

/// Like [`output`], with the process's id.
fn output_and_process(
    mode: Mode,
    command: &str,
    format: &str,
    time: &str,
    lines: usize,
    name: &str,
) -> (String, u32) {
    let namespace = Namespace::alone();
    let mut arguments = tracer::arguments(command, format, &namespace, mode);
    arguments.extend(["--time".to_owned(), time.to_owned()]);
    let tracer = Tracer::start(arguments);
    let process = ChildProcess::start(&namespace, name, || {
        let listener = sockets::listen("127.0.0.1:5000");
        let client = sockets::connect(sockets::local(&listener));
        let server = sockets::accept(&listener);
        client.shutdown(Shutdown::Write).unwrap();
        sockets::wait_for_end(&server);
        drop(server);
        sockets::wait_for_end(&client);
        drop((client, listener));
    });
    let id = process.id();
    process.wait();
    tracer.wait_for_lines(lines);
    let ended = tracer.interrupt();
    let text = String::from_utf8(ended.stdout).expect("UTF-8 only");
    assert_eq!(text.lines().count(), lines, "{text}");
    (text, id)
}

const CONNECTIONS: [&str; 10] =
    ["PID", "PROCESS", "ROLE", "LOCAL", "REMOTE", "HANDSHAKE", "DURATION", "SENT", "RECV", "REASON"];

#[rstest]
fn connections_table_has_all_columns(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (text, id) = output_and_process(mode, "connections", "table", "none", 3, "format");
    let mut rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(rows.next().unwrap(), CONNECTIONS);
    let rows: Vec<_> = rows.collect();
    assert!(rows.iter().all(|row| row.len() == CONNECTIONS.len()), "{text}");
    let client = rows.iter().find(|row| row[2] == "client").unwrap();
    let server = rows.iter().find(|row| row[2] == "server").unwrap();
    let id = id.to_string();
    assert_eq!(
        (client[0], client[1], client[4], client[9]),
        (id.as_str(), "format", "127.0.0.1:5000", "closed")
    );
    assert_eq!(
        (server[0], server[1], server[3], server[9]),
        (id.as_str(), "format", "127.0.0.1:5000", "closed")
    );
    assert_eq!((client[3], server[4]), (server[4], client[3]));
}

#[rstest]
fn connections_wide_table_has_time_and_states(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let text = output(mode, "connections", "wide", "utc", 3, "format");
    let mut lines = text.lines();
    let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header[0], "CLOSED");
    assert_eq!(header[1..=CONNECTIONS.len()], CONNECTIONS);
    assert_eq!(
        header[CONNECTIONS.len() + 1..],
        ["BY", "RETR", "RTT", "ACCEPT", "WRITE", "READ", "CONTAINER", "BACKEND", "WHY", "STATES"]
    );
    for line in lines {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.parse::<jiff::civil::Time>().is_ok(), "{line}");
        let states = line.rsplit("  ").next().unwrap_or(line);
        if line.contains(" client ") {
            let names: Vec<_> =
                states.split(" > ").filter_map(|state| state.split_whitespace().rev().nth(1)).collect();
            assert_eq!(names, ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"], "{line}");
            assert!(states.ends_with("TIME_WAIT ~1m00s"), "{line}");
        } else {
            assert!(
                line.contains(" closed ") && line.contains(" remote ") && line.contains("LAST_ACK"),
                "{line}"
            );
        }
    }
}

#[rstest]
fn connections_csv_quotes_and_fills_fields(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let text = output(mode, "connections", "csv", "local", 3, "a,\"b\"");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(columns[..4], ["type", "role", "network_type", "local_address"]);
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    let cell = |role: &str, column: &str| {
        let row = rows.iter().find(|row| &row[1] == role).unwrap();
        row[columns.iter().position(|name| name == column).unwrap()].to_owned()
    };
    assert_eq!(cell("client", "process"), "a,\"b\"");
    assert_eq!(cell("client", "remote_port"), "5000");
    assert_eq!(cell("client", "error"), "");
    assert_eq!(cell("server", "close_reason"), "closed");
    assert!(cell("server", "states").starts_with("syn_received:"));
    assert!(cell("client", "closed").parse::<jiff::Timestamp>().is_ok());
}

#[rstest]
fn json_keys_match_csv_columns(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    for command in ["connections", "transitions"] {
        let lines = if command == "connections" { 2 } else { 12 };
        let json = output(mode, command, "json", "local", lines, "format");
        let csv = output(mode, command, "csv", "local", lines + 1, "format");
        let columns: Vec<_> = csv.lines().next().unwrap().split(',').collect();
        for line in json.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, columns);
        }
    }
}

#[rstest]
fn transitions_tables_have_all_columns(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let columns = ["PID", "PROCESS", "LOCAL", "REMOTE", "FROM", "TO", "DURATION"];
    let text = output(mode, "transitions", "table", "none", 13, "format");
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], columns);
    assert!(rows.iter().all(|row| row.len() == columns.len()), "{text}");
    assert_eq!(rows[1][1..], ["format", "127.0.0.1:5000", "0.0.0.0:*", "CLOSE", "LISTEN", "-"]);

    let wide = output(mode, "transitions", "wide", "utc", 13, "format");
    let header: Vec<_> = wide.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[0], "TIME");
    assert_eq!(header[1..=columns.len()], columns);
    assert_eq!(header[columns.len() + 1..], ["OWNER", "BY", "NETNS", "CGROUP", "SOCKET"]);
}

/// A process chooses its own name. Control characters in it must not reach the user's terminal.
#[rstest]
fn escape_sequences_in_process_names_are_escaped(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values("connections", "transitions")] command: &str,
) {
    for format in ["table", "wide", "json", "csv"] {
        let rows = if command == "connections" { 2 } else { 12 };
        let lines = rows + usize::from(format != "json");
        let text = output(mode, command, format, "utc", lines, "\x1b[31mx\x07\r\n\u{9b}");
        let escaped = if format == "json" { r"\\x1b[31mx\\x07\\x0d\\x0a" } else { r"\x1b[31mx\x07\x0d\x0a" };
        assert!(text.contains(escaped), "{text}");
        assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    }
}
