//! The program's JSON output, field by field.

use std::time::Duration;

use serde::Deserialize;

/// A line of `connections`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the output describes each field")]
pub struct Connection {
    pub r#type: String,
    pub role: String,
    pub network_type: String,
    pub local_address: String,
    pub local_port: Option<u16>,
    pub remote_address: Option<String>,
    pub remote_port: Option<u16>,
    pub opened: Option<String>,
    pub closed: Option<String>,
    pub duration_us: Option<f64>,
    pub states: Vec<Span>,
    pub handshake_us: Option<f64>,
    pub handshake_source: Option<String>,
    pub handshake_caveat: Option<String>,
    pub handshake_rtt_us: Option<u32>,
    pub syn_retransmits: Option<u8>,
    pub close_reason: String,
    pub closed_by: Option<String>,
    pub error: Option<String>,
    pub bytes_sent: Option<u64>,
    pub bytes_received: Option<u64>,
    pub segments_sent: Option<u32>,
    pub segments_received: Option<u32>,
    pub retransmits: Option<u32>,
    pub srtt_us: Option<u32>,
    pub min_rtt_us: Option<u32>,
    pub mss: Option<u32>,
    pub accept_queue: Option<u32>,
    pub accept_queue_limit: Option<u32>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub uid: Option<u32>,
    pub owner_source: String,
    pub cgroup_id: Option<u64>,
    pub cgroup: Option<String>,
    pub container_id: Option<String>,
    pub container_runtime: Option<String>,
    pub netns: Option<u32>,
    pub incomplete: bool,
    pub gap: bool,
}

/// A state of a lifecycle.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the output describes each field")]
pub struct Span {
    pub state: String,
    pub duration_us: Option<f64>,
    pub source: String,
}

/// A line of `transitions`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the output describes each field")]
pub struct Transition {
    pub r#type: String,
    pub time: String,
    pub socket: String,
    pub network_type: String,
    pub local_address: String,
    pub local_port: Option<u16>,
    pub remote_address: Option<String>,
    pub remote_port: Option<u16>,
    pub from: String,
    pub to: String,
    pub duration_us: Option<f64>,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub owner_source: String,
    pub cgroup_id: Option<u64>,
    pub netns: Option<u32>,
}

/// A line of `stuck` that heads a group.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the output describes each field")]
pub struct StuckGroup {
    pub r#type: String,
    pub group: String,
    pub count: usize,
    pub oldest_us: f64,
    pub states: Vec<StateCount>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub container_id: Option<String>,
}

/// How many connections of a group are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the output describes each field")]
pub struct StateCount {
    pub state: String,
    pub count: usize,
}

/// A line of `stuck` for one connection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the contract of the output describes each field")]
pub struct Stuck {
    pub r#type: String,
    pub state: String,
    pub age_us: f64,
    pub age_source: String,
    pub network_type: String,
    pub local_address: String,
    pub local_port: Option<u16>,
    pub remote_address: Option<String>,
    pub remote_port: Option<u16>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub cgroup: Option<String>,
    pub container_id: Option<String>,
    pub unread_bytes: Option<u32>,
    pub unacked_bytes: Option<u32>,
    pub ends_in_us: Option<f64>,
    pub netns: Option<u32>,
}

impl Stuck {
    /// How long it has been in its state, at least.
    pub fn age(&self) -> Duration {
        microseconds(self.age_us)
    }
}

impl Connection {
    /// The states in order.
    pub fn state_names(&self) -> Vec<&str> {
        self.states.iter().map(|span| span.state.as_str()).collect()
    }

    /// The time spent in a state, which the connection must have been in for a known time.
    pub fn time_in(&self, state: &str) -> Duration {
        let span = self.states.iter().find(|span| span.state == state);
        let us = span.and_then(|span| span.duration_us);
        microseconds(us.unwrap_or_else(|| panic!("no time in {state}: {self:#?}")))
    }

    /// The time between closing here and the peer's closing. A FIN that is acknowledged with delay splits
    /// it between two states as chance has it.
    pub fn time_in_fin_wait(&self) -> Duration {
        self.time_in("fin_wait_1") + self.time_in("fin_wait_2")
    }

    /// The time from opening to end, which must be known.
    pub fn lifetime(&self) -> Duration {
        microseconds(self.duration_us.unwrap_or_else(|| panic!("no duration: {self:#?}")))
    }

    /// The duration of the handshake, which must be known.
    pub fn handshake(&self) -> Duration {
        microseconds(self.handshake_us.unwrap_or_else(|| panic!("no handshake: {self:#?}")))
    }

    /// The local and the remote port, 0 for one that is not known.
    pub fn ports(&self) -> (u16, u16) {
        (self.local_port.unwrap_or(0), self.remote_port.unwrap_or(0))
    }

    /// Why it ended, by whom, and the error.
    pub fn close_cause(&self) -> (&str, Option<&str>, Option<&str>) {
        (&self.close_reason, self.closed_by.as_deref(), self.error.as_deref())
    }

    /// The owner's name, and how it is known.
    pub fn owner(&self) -> (Option<&str>, &str) {
        (self.process.as_deref(), &self.owner_source)
    }
}

impl Transition {
    /// The states left and entered.
    pub fn edge(&self) -> (&str, &str) {
        (&self.from, &self.to)
    }
}

fn microseconds(us: f64) -> Duration {
    Duration::from_secs_f64(us / 1e6)
}
