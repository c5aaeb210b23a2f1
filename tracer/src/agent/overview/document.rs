//! The JSON document of `/api/v1/overview`, and its OpenAPI description.

use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

/// Everything on the page at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The time of the host, RFC 3339 in UTC
    pub time: String,
    /// Name of the host
    pub host: String,
    /// Release of its kernel
    pub kernel: String,
    /// Tracing mode: `btf` or `tracepoint`; null for a recording
    #[schema(required)]
    pub mode: Option<String>,
    /// Version of the program
    pub version: String,
    /// The filter of the request; null without one
    #[schema(required)]
    pub filter: Option<FilterUsed>,
    /// Losses and the agent's own state, in words
    pub health: Health,
    /// The states of TCP, with the sockets in them
    pub states: Vec<State>,
    /// The transitions of the kernel. Some have no count
    pub edges: Vec<Transitions>,
    /// The handshakes of the last hour
    pub handshakes: HandshakeMap,
    /// The groups of handshakes in the last 50 to 60 minutes, the worst first; by service, or by what the filter selects
    pub groups: Vec<Group>,
    /// The slowest completed handshakes of the last hour. Each minute keeps the 10 slowest of the host
    pub slowest: Vec<Attempt>,
    /// Failed handshakes of the last hour, the latest first. Each minute keeps its first 10
    pub failed: Vec<Attempt>,
    /// Connections that stay too long in a state, by process; null while the first scan of a large table runs
    #[schema(required)]
    pub stuck: Option<Stuck>,
    /// Ports with listening sockets
    pub listeners: Vec<Listener>,
    /// Open connections by process, most first; null while the first scan of a large table runs
    #[schema(required)]
    pub processes: Option<Vec<Open>>,
    /// Open connections by remote address, likewise
    #[schema(required)]
    pub remotes: Option<Vec<Open>>,
    /// Open connections by port of the service, likewise
    #[schema(required)]
    pub ports: Option<Vec<Open>>,
    /// Counts that a filter misses, because a minute or the scan has too many processes, addresses or ports
    pub unfiltered: u64,
}

/// A filter.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FilterUsed {
    /// `process`, `remote` or `port`
    pub kind: String,
    /// Its value
    pub value: String,
}

/// Losses and the agent's own state.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` if something on this page is incomplete
    pub status: String,
    /// What is right or wrong, in words that may change
    pub notes: Vec<Note>,
    /// Transitions seen since the start
    pub transitions_seen: u64,
    /// Transitions lost because the buffer was full
    pub transitions_lost: u64,
    /// Runs of the eBPF program that the kernel skipped; null if unknown
    #[schema(required)]
    pub transitions_skipped: Option<u64>,
    /// Processor time of the agent since its start, seconds
    #[schema(required)]
    pub cpu_seconds: Option<f64>,
    /// Resident memory of the agent, bytes
    #[schema(required)]
    pub resident_bytes: Option<u64>,
    /// Connections in the connection table
    pub connections_tracked: u64,
}

/// A sentence about the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Note {
    /// Whether it names a problem
    pub problem: bool,
    /// The sentence
    pub text: String,
}

/// The sockets in a state.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names of the fields are those of the document")]
pub struct State {
    /// The state
    pub state: String,
    /// Sockets in it now, as in `tcptrace_connections`; with a filter null where unknown: listeners and timewait sockets
    /// have no owner
    #[schema(required)]
    pub connections: Option<u64>,
    /// Connections beyond the threshold of the state, as in `tcptrace_stuck_connections`; null with a filter
    #[schema(required)]
    pub stuck: Option<u64>,
}

/// The transitions between two states.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Transitions {
    /// The state left
    pub from: String,
    /// The state entered
    pub to: String,
    /// Transitions since the start, as in `tcptrace_transitions_total`; null with a filter
    #[schema(required)]
    pub total: Option<u64>,
    /// Transitions in the last hour
    pub last_hour: u64,
}

/// Handshakes by minute and duration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HandshakeMap {
    /// Lower bounds of the ranges of durations, microseconds
    pub bounds_us: Vec<u64>,
    /// The bounds at which the kernel resends a SYN, microseconds
    pub resend_steps_us: Vec<u64>,
    /// The last 60 minutes, the oldest first; fewer soon after the boot of the host
    pub minutes: Vec<HandshakeMinute>,
}

/// The handshakes of a minute.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HandshakeMinute {
    /// When the minute began, RFC 3339 in UTC
    pub start: String,
    /// Completed handshakes with a known duration, for each range
    pub durations: Vec<u32>,
    /// Completed handshakes
    pub established: u32,
    /// Failed and abandoned handshakes
    pub failed: u32,
}

/// A group of handshakes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names of the fields are those of the document")]
pub struct Group {
    /// Its name
    pub group: String,
    /// Finished handshakes
    pub count: u64,
    /// Handshakes that did not complete
    pub failed: u64,
    /// Completed handshakes with a resent SYN or SYN-ACK
    pub resent: u64,
    /// Median duration of the completed ones, microseconds
    #[schema(required)]
    pub p50_us: Option<f64>,
    /// 99th percentile, microseconds
    #[schema(required)]
    pub p99_us: Option<f64>,
    /// Longest, microseconds
    #[schema(required)]
    pub max_us: Option<f64>,
    /// What is wrong, in words that may change; empty if nothing is
    pub story: String,
    /// Whether it is one of the worst
    pub offender: bool,
    /// Remote address of its handshakes; null if they have several
    #[schema(required)]
    pub remote: Option<String>,
    /// Port of its service; null if it has several
    #[schema(required)]
    pub port: Option<u16>,
    /// Process of its handshakes; null if they have several
    #[schema(required)]
    pub process: Option<String>,
}

/// A finished handshake.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// When it ended, RFC 3339 in UTC
    pub time: String,
    /// `client`, `server`, `simultaneous` or `unknown`
    pub role: String,
    /// Name of the process; null if unknown
    #[schema(required)]
    pub process: Option<String>,
    /// Local address and port
    pub local: String,
    /// Remote address
    pub remote: String,
    /// Remote port; null if unknown
    #[schema(required)]
    pub remote_port: Option<u16>,
    /// `established`, a close reason, or `abandoned`
    pub outcome: String,
    /// Duration, microseconds; null if unknown
    #[schema(required)]
    pub duration_us: Option<f64>,
    /// What happened, in words that may change
    pub story: String,
}

/// Stuck connections.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stuck {
    /// Their number
    pub count: u64,
    /// Those that are in no group, because there are too many
    pub more: u64,
    /// By process, the largest group first
    pub groups: Vec<StuckProcess>,
}

/// The stuck connections of a process.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StuckProcess {
    /// Name of the process; null if unknown
    #[schema(required)]
    pub process: Option<String>,
    /// Their number
    pub count: u64,
    /// How long the oldest has been in its state, microseconds
    pub oldest_us: f64,
    /// How many are in which state, the most frequent first
    pub states: Vec<StateCount>,
    /// Local address and port of the oldest
    pub local: String,
    /// Remote address of the oldest
    pub remote: String,
    /// Remote port of the oldest
    pub remote_port: u16,
}

/// A number of connections in a state.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StateCount {
    /// The state
    pub state: String,
    /// Connections in it
    pub count: u64,
}

/// The listening sockets of a port.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Listener {
    /// The port
    pub port: u16,
    /// Connections in the fullest accept queue, as in `tcptrace_listener_accept_queue`; null if unknown
    #[schema(required)]
    pub queue: Option<u32>,
    /// Limit of that queue; null if unknown
    #[schema(required)]
    pub limit: Option<u32>,
    /// Longest queue at an arrival in the last minutes; null without an arrival
    #[schema(required)]
    pub peak: Option<u32>,
    /// Dropped segments since the start, as in `tcptrace_listener_drops_total`; null if unknown
    #[schema(required)]
    pub drops: Option<u64>,
    /// Names of the processes that listen on the port, in any network namespace; empty if unknown
    pub processes: Vec<String>,
}

/// Open connections with something in common.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Open {
    /// The process, address or port
    pub name: String,
    /// Open connections
    pub connections: u64,
    /// How many are in which state, the most frequent first
    pub states: Vec<StateCount>,
}

/// An error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ApiError {
    /// What is wrong and what to do
    pub error: String,
}

/// A recording that the flight recorder wrote.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FrozenFile {
    /// Path of the file on this host
    pub file: String,
    /// Its size, bytes
    pub bytes: u64,
    /// The start of its events, RFC 3339 in UTC
    pub from: String,
    /// The end of its events: the time of the request
    pub until: String,
}

/// The paths of the API, for the description only.
mod paths {
    use super::{ApiError, FrozenFile, Overview};

    /// What TCP does on this host: now, and in the last hour
    ///
    /// At most one filter. Names of processes with escaped bytes cannot be a filter.
    #[utoipa::path(
        get,
        path = "/api/v1/overview",
        params(
            ("process" = Option<String>, Query, description = "Only connections of processes with this name"),
            ("remote" = Option<String>, Query, description = "Only connections to or from this IP address"),
            ("port" = Option<u16>, Query, description = "Only connections of services on this port"),
        ),
        responses(
            (status = 200, body = Overview, description = "The overview"),
            (status = 400, body = ApiError, description = "The filter is invalid"),
            (status = 421, body = String, description = "The Host header names another host"),
            (status = 503, body = ApiError, description = "Tracing has not started yet"),
        )
    )]
    #[expect(dead_code, reason = "carries the description")]
    pub(super) fn overview() {}

    /// Write the last events to a file (`--ring`)
    ///
    /// The answer follows when the file is on the disk. A request with the Origin of another site is refused.
    #[utoipa::path(
        post,
        path = "/api/v1/freeze",
        responses(
            (status = 200, body = FrozenFile, description = "The file"),
            (status = 403, body = ApiError, description = "A page of another site sent the request"),
            (status = 409, body = ApiError, description = "There is no flight recorder"),
            (status = 421, body = String, description = "The Host header names another host"),
            (status = 500, body = ApiError, description = "The file could not be written"),
            (status = 503, body = ApiError, description = "Another file is being written"),
            (status = 504, body = ApiError, description = "The file is still being written"),
        )
    )]
    #[expect(dead_code, reason = "carries the description")]
    pub(super) fn freeze() {}
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tcptrace-bpf serve",
        description = "The data of the page that `tcptrace-bpf serve` shows at `/`. Fields are only added.",
        version = "1",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(paths::overview, paths::freeze)
)]
struct Api;

/// Returns the OpenAPI description as JSON.
///
/// # Errors
///
/// When it cannot be serialized, which does not happen.
pub fn openapi() -> serde_json::Result<String> {
    let mut text = Api::openapi().to_pretty_json()?;
    text.push('\n');
    Ok(text)
}
