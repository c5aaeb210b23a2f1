//! The program's JSON rows, field by field.

use std::time::Duration;

use serde::Deserialize;

/// A row of `connections`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
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
    pub syn_lost: Option<bool>,
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
    pub time_wait_reused: bool,
    pub incomplete: bool,
    pub gap: bool,
    pub thread: Option<String>,
    pub interface: Option<u32>,
    pub accept_wait_us: Option<f64>,
    pub accept_wait_source: Option<String>,
    pub accepted: Option<bool>,
    pub first_read_us: Option<f64>,
    pub reset_by: Option<String>,
    pub reset_reason: Option<String>,
    pub syn_drops: Vec<SegmentDrop>,
    pub first_write_us: Option<f64>,
    pub backend_address: Option<String>,
    pub backend_port: Option<u16>,
    pub container_name: Option<String>,
    pub k8s_namespace: Option<String>,
    pub k8s_pod: Option<String>,
    pub k8s_container: Option<String>,
    pub k8s_workload: Option<String>,
    pub k8s_workload_kind: Option<String>,
    pub connection_id: String,
}

/// A segment of a handshake that the host dropped.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct SegmentDrop {
    pub segment: String,
    pub reason: String,
    pub location: Option<String>,
    pub count: u32,
}

/// The row of `handshakes --join` about both recordings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct Join {
    pub r#type: String,
    pub this_host: String,
    pub other_host: String,
    pub matched: u64,
    pub by_sequence_numbers: u64,
    pub by_client_sequence_number: u64,
    pub by_endpoints: u64,
    pub without_trace: u64,
    pub with_loss: u64,
    pub this_handshakes: u64,
    pub this_unmatched: u64,
    pub this_ambiguous: u64,
    pub this_without_numbers: u64,
    pub this_beyond_limit: u64,
    pub other_handshakes: u64,
    pub other_unmatched: u64,
    pub other_ambiguous: u64,
    pub other_without_numbers: u64,
    pub other_beyond_limit: u64,
    pub clock_offset_us: Option<f64>,
    pub clock_offset_uncertainty_us: Option<f64>,
    pub clock_offset_time: Option<String>,
    pub clock_offset_first_us: Option<f64>,
    pub clock_offset_last_us: Option<f64>,
    pub clock_contradictions: Option<u64>,
}

/// A row of `handshakes --join` about a handshake.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct JoinedHandshake {
    pub r#type: String,
    pub time: String,
    pub matched_by: Option<String>,
    pub client_host: String,
    pub server_host: String,
    pub client_address: String,
    pub client_port: Option<u16>,
    pub server_address: Option<String>,
    pub server_port: Option<u16>,
    pub client_address_at_server: Option<String>,
    pub client_port_at_server: Option<u16>,
    pub server_address_at_server: Option<String>,
    pub server_port_at_server: Option<u16>,
    pub client_outcome: String,
    pub server_outcome: Option<String>,
    pub client_us: Option<f64>,
    pub server_us: Option<f64>,
    pub syn_retransmits: Option<u8>,
    pub syn_ack_retransmits: Option<u8>,
    pub lost_syns: Option<u32>,
    pub lost_syn_acks: Option<u32>,
    pub lost_acks: Option<u32>,
    pub client_drops: Vec<SegmentDrop>,
    pub server_drops: Vec<SegmentDrop>,
    pub syn_us: Option<f64>,
    pub syn_ack_us: Option<f64>,
    pub ack_us: Option<f64>,
    pub one_way_uncertainty_us: Option<f64>,
    pub client_process: Option<String>,
    pub client_pid: Option<u32>,
    pub server_process: Option<String>,
    pub server_pid: Option<u32>,
    pub client_netns: Option<u32>,
    pub server_netns: Option<u32>,
    pub story: String,
}

/// A state of a connection and the time spent in it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct Span {
    pub state: String,
    pub duration_us: Option<f64>,
    pub source: String,
}

/// A row of `transitions`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
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
    pub thread: Option<String>,
    pub interface: Option<u32>,
    pub connection_id: Option<String>,
    pub from_state: String,
    pub to_state: String,
    pub process: Option<String>,
}

/// A row of `listeners`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct Listener {
    pub r#type: String,
    pub local_address: String,
    pub local_port: Option<u16>,
    pub accept_queue: Option<u32>,
    pub accept_queue_limit: Option<u32>,
    pub accept_queue_peak: Option<u32>,
    pub half_open: Option<u64>,
    pub drops: Option<u32>,
    pub drops_during: Option<u32>,
    pub established: Option<u64>,
    pub abandoned: Option<u64>,
    pub handshake_p50_us: Option<f64>,
    pub handshake_p99_us: Option<f64>,
    pub accept_wait_p50_us: Option<f64>,
    pub accept_wait_p99_us: Option<f64>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub uid: Option<u32>,
    pub cgroup_id: Option<u64>,
    pub cgroup: Option<String>,
    pub container_id: Option<String>,
    pub container_runtime: Option<String>,
    pub pod_uid: Option<String>,
    pub unit: Option<String>,
    pub netns: Option<u32>,
    pub container_name: Option<String>,
    pub k8s_namespace: Option<String>,
    pub k8s_pod: Option<String>,
    pub k8s_container: Option<String>,
    pub k8s_workload: Option<String>,
    pub k8s_workload_kind: Option<String>,
}

/// A row of `listeners` for a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct ListenerDrops {
    pub r#type: String,
    pub netns: Option<u32>,
    pub listen_overflows: Option<u64>,
    pub listen_drops: Option<u64>,
    pub syn_queue_full_drops: Option<u64>,
    pub syn_cookies_sent: Option<u64>,
    pub syn_cookies_received: Option<u64>,
    pub syn_cookies_failed: Option<u64>,
}

/// A group row of `stuck`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct StuckGroup {
    pub r#type: String,
    pub group: String,
    pub count: usize,
    pub oldest_us: f64,
    pub states: Vec<StateCount>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub container_id: Option<String>,
    pub container_name: Option<String>,
    pub k8s_namespace: Option<String>,
    pub k8s_pod: Option<String>,
    pub k8s_workload: Option<String>,
}

/// The number of a group's connections in one state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct StateCount {
    pub state: String,
    pub count: usize,
}

/// A connection row of `stuck`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
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
    pub not_accepted: Option<bool>,
    pub interface: Option<u32>,
    pub container_name: Option<String>,
    pub k8s_namespace: Option<String>,
    pub k8s_pod: Option<String>,
    pub k8s_container: Option<String>,
    pub k8s_workload: Option<String>,
    pub k8s_workload_kind: Option<String>,
}

impl Stuck {
    /// Minimum time in the current state.
    pub fn age(&self) -> Duration {
        microseconds(self.age_us)
    }
}

/// The view that `top` saves. The figures of handshakes and the diagram have no mirror.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct TopView {
    pub r#type: String,
    pub time: String,
    pub tab: String,
    pub open_connections: u64,
    pub transitions: u64,
    pub matching_connections: u64,
    pub connections: Vec<TopConnection>,
    pub unread_connections: u64,
    pub owners: Vec<TopOwner>,
    pub stuck_connections: u64,
    pub stuck: Vec<TopConnection>,
}

/// An open connection in [`TopView`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct TopConnection {
    pub role: String,
    pub network_type: String,
    pub local_address: String,
    pub local_port: Option<u16>,
    pub remote_address: Option<String>,
    pub remote_port: Option<u16>,
    pub state: String,
    pub age_us: Option<f64>,
    pub age_source: String,
    pub states: Vec<Span>,
    pub handshake_us: Option<f64>,
    pub syn_retransmits: Option<u8>,
    pub bytes_sent: Option<u64>,
    pub bytes_received: Option<u64>,
    pub bytes_sent_per_second: Option<u64>,
    pub bytes_received_per_second: Option<u64>,
    pub retransmits: Option<u32>,
    pub srtt_us: Option<u32>,
    pub min_rtt_us: Option<u32>,
    pub unread_bytes: Option<u32>,
    pub unacked_bytes: Option<u32>,
    pub reading_age_us: Option<f64>,
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub owner_source: String,
    pub netns: Option<u32>,
    pub incomplete: bool,
}

/// A process in [`TopView`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "docs/output.md describes each field")]
pub struct TopOwner {
    pub pid: Option<u32>,
    pub process: Option<String>,
    pub count: u64,
    pub states: Vec<StateCount>,
    pub bytes_sent_per_second: Option<u64>,
    pub bytes_received_per_second: Option<u64>,
}

impl Connection {
    /// Names of the states in order.
    pub fn state_names(&self) -> Vec<&str> {
        self.states.iter().map(|span| span.state.as_str()).collect()
    }

    /// Time spent in a state. Panics if it is unknown.
    pub fn time_in(&self, state: &str) -> Duration {
        let span = self.states.iter().find(|span| span.state == state);
        let us = span.and_then(|span| span.duration_us);
        microseconds(us.unwrap_or_else(|| panic!("no time in {state}: {self:#?}")))
    }

    /// Time between the local FIN and the peer's FIN. A delayed ACK splits it arbitrarily between two states.
    pub fn time_in_fin_wait(&self) -> Duration {
        self.time_in("fin_wait_1") + self.time_in("fin_wait_2")
    }

    /// Time from open to close. Panics if it is unknown.
    pub fn lifetime(&self) -> Duration {
        microseconds(self.duration_us.unwrap_or_else(|| panic!("no duration: {self:#?}")))
    }

    /// Duration of the handshake. Panics if it is unknown.
    pub fn handshake(&self) -> Duration {
        microseconds(self.handshake_us.unwrap_or_else(|| panic!("no handshake: {self:#?}")))
    }

    /// Local and remote port; 0 if unknown.
    pub fn ports(&self) -> (u16, u16) {
        (self.local_port.unwrap_or(0), self.remote_port.unwrap_or(0))
    }

    /// The close reason, which side closed, and the error.
    pub fn close_cause(&self) -> (&str, Option<&str>, Option<&str>) {
        (&self.close_reason, self.closed_by.as_deref(), self.error.as_deref())
    }

    /// The name of the thread that made the owner's call, and its source. Scenarios name their threads, and the main thread
    /// of a child process.
    pub fn owner(&self) -> (Option<&str>, &str) {
        (self.caller(), &self.owner_source)
    }

    /// The name of the owner's thread that made the call; the process's name if it was the main thread.
    pub fn caller(&self) -> Option<&str> {
        self.thread.as_deref().or(self.process.as_deref())
    }
}

impl Transition {
    /// The name of the owner's thread that made the call; the process's name if it was the main thread.
    pub fn caller(&self) -> Option<&str> {
        self.thread.as_deref().or(self.comm.as_deref())
    }

    /// The old and the new state.
    pub fn edge(&self) -> (&str, &str) {
        (&self.from, &self.to)
    }
}

fn microseconds(us: f64) -> Duration {
    Duration::from_secs_f64(us / 1e6)
}
