//! Compares the row of a connection with the expected one.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::protocol::TestOutcome;

/// Expected row of one socket of a connection.
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) role: &'static str,
    pub(crate) states: &'static [&'static str],
    pub(crate) close_reason: &'static str,
    pub(crate) closed_by: &'static str,
    pub(crate) error: Option<&'static str>,
    /// Bytes sent and received.
    pub(crate) bytes: (u64, u64),
    /// Whether the connection was established.
    pub(crate) handshake: bool,
}

impl Expected {
    /// Returns the row of this socket, if it exists.
    pub(crate) fn find<'a>(&self, rows: &'a [Value]) -> Option<&'a Value> {
        rows.iter().find(|row| {
            row["local_port"] == self.local.port()
                && row["remote_port"] == self.remote.port()
                && row["local_address"] == self.local.ip().to_string()
        })
    }

    /// Compares the row with the expected values, and reports every difference.
    pub(crate) fn compare(&self, rows: &[Value]) -> TestOutcome {
        let Some(row) = self.find(rows) else {
            let ports: Vec<_> = rows.iter().map(|row| (&row["local_port"], &row["remote_port"])).collect();
            return failed(format!(
                "no row from {} to {}; rows have the ports {ports:?}",
                self.local, self.remote
            ));
        };
        let mut differences: Vec<String> = self
            .values()
            .into_iter()
            .filter(|(field, value)| row[*field] != *value)
            .map(|(field, value)| format!("{field} is {}, not {value}", row[field]))
            .collect();
        let states: Vec<_> =
            row["states"].as_array().into_iter().flatten().map(|span| &span["state"]).collect();
        if states != self.states {
            differences.push(format!("states are {states:?}, not {:?}", self.states));
        }
        differences.extend(self.implausible(row));
        if differences.is_empty() {
            TestOutcome::Passed
        } else {
            failed(format!("{}\n{row}", differences.join("\n")))
        }
    }

    fn values(&self) -> Vec<(&'static str, Value)> {
        let network_type = if self.local.is_ipv4() { "ipv4" } else { "ipv6" };
        let mut values = vec![
            ("type", json!("connection")),
            ("role", json!(self.role)),
            ("network_type", json!(network_type)),
            ("remote_address", json!(self.remote.ip().to_string())),
            ("close_reason", json!(self.close_reason)),
            ("closed_by", json!(self.closed_by)),
            ("error", json!(self.error)),
            ("bytes_sent", json!(self.bytes.0)),
            ("bytes_received", json!(self.bytes.1)),
            ("retransmits", json!(0)),
            ("syn_retransmits", json!(0)),
            // This process opened both sockets.
            ("pid", json!(std::process::id())),
            ("process", json!("init")),
            ("uid", json!(0)),
            ("netns", json!(network_namespace())),
            ("cgroup_id", json!(root_cgroup())),
            ("incomplete", json!(false)),
            ("gap", json!(false)),
        ];
        if !self.handshake {
            values.push(("handshake_us", Value::Null));
        }
        values
    }

    /// Returns implausible measured values: durations must be positive, and parts must not exceed the whole.
    fn implausible(&self, row: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let positive = |field: &str| row[field].as_f64().is_some_and(|value| value > 0.0);
        if !positive("duration_us") {
            wrong.push(format!("duration_us is {}", row["duration_us"]));
        }
        if self.handshake {
            for field in ["handshake_us", "handshake_rtt_us", "mss"] {
                if !positive(field) {
                    wrong.push(format!("{field} is {}", row[field]));
                }
            }
            // The client's handshake includes the round trip; the server's equals it.
            let (whole, part) = (row["handshake_us"].as_f64(), row["handshake_rtt_us"].as_f64());
            if whole < part {
                wrong.push(format!("handshake_us {whole:?} is less than handshake_rtt_us {part:?}"));
            }
        }
        wrong
    }
}

fn failed(reason: String) -> TestOutcome {
    TestOutcome::Failed { reason }
}

/// Returns the inode of this process's network namespace.
fn network_namespace() -> Option<u64> {
    use std::os::linux::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/net").ok().map(|file| file.st_ino())
}

/// Returns the id of the root cgroup, which contains every process: the inode of its directory.
fn root_cgroup() -> Option<u64> {
    use std::os::linux::fs::MetadataExt as _;
    std::fs::metadata("/sys/fs/cgroup").ok().map(|file| file.st_ino())
}
