//! Every metric, declared once. The page and docs/metrics.md are generated from this catalog.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases, until the agent restarts.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// A distribution with classic buckets; as protobuf also with native ones.
    Histogram,
    /// Always 1; the labels carry the information.
    Info,
}

/// The declaration of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The name without unit and suffix.
    pub(super) stem: &'static str,
    /// The base unit, a part of the name.
    pub(super) unit: Option<&'static str>,
    /// The type.
    pub kind: MetricKind,
    /// The HELP line: one sentence.
    pub help: &'static str,
    /// The fixed labels.
    pub labels: &'static [&'static str],
    /// Whether the opt-in labels apply.
    pub(super) owned: bool,
    /// Details for docs/metrics.md.
    pub(super) note: &'static str,
}

impl Description {
    /// Returns the name in PromQL. The series of a histogram append `_bucket`, `_sum` and `_count`.
    pub fn name(&self) -> String {
        let mut name = self.base();
        match self.kind {
            MetricKind::Counter => name.push_str("_total"),
            MetricKind::Info => name.push_str("_info"),
            MetricKind::Gauge | MetricKind::Histogram => {}
        }
        name
    }

    /// Returns the name without the suffix of its type.
    fn base(&self) -> String {
        match self.unit {
            Some(unit) => format!("{}_{unit}", self.stem),
            None => self.stem.to_owned(),
        }
    }
}

const fn metric(
    stem: &'static str,
    unit: Option<&'static str>,
    kind: MetricKind,
    help: &'static str,
) -> Description {
    Description { stem, unit, kind, help, labels: &[], owned: false, note: "" }
}

const SECONDS: Option<&str> = Some("seconds");
const BYTES: Option<&str> = Some("bytes");

pub(super) const HANDSHAKE_DURATION: Description = Description {
    labels: &["role", "network_type"],
    owned: true,
    note: "Client: the time the application waited, including lost SYNs. Server: the kernel's measurement from \
           SYN-ACK to ACK, not the microseconds in SYN_RECV. A handshake whose duration is unknown \
           or may include the client's wait for data (docs/handshake-durations.md) counts only in `tcptrace_handshakes_total`. The bounds .95, 1.5, 2.5, 3.5, \
           7.5, 15.5, 31.5, 67.5 and 131 bracket the SYN retransmission steps: a handshake above .95 lost at least \
           one SYN or SYN-ACK, unless the round trip takes that long.",
    ..metric(
        "tcptrace_handshake_duration",
        SECONDS,
        MetricKind::Histogram,
        "Duration of completed handshakes.",
    )
};
pub(super) const HANDSHAKE_RTT: Description = Description {
    labels: &["role"],
    note: "Compare with `tcptrace_handshake_duration_seconds`: a long handshake with a short round trip lost a SYN.",
    ..metric(
        "tcptrace_handshake_rtt",
        SECONDS,
        MetricKind::Histogram,
        "Round-trip time of the answered handshake segment.",
    )
};
pub(super) const HANDSHAKES: Description = Description {
    labels: &["role", "result"],
    owned: true,
    note: "`abandoned`: this host sent a SYN-ACK and the client never completed the handshake. Visible once the SYN-ACK \
           was retransmitted, which requires the hook `tcp_retransmit_synack`. Connections that existed before the \
           agent started are not counted.",
    ..metric("tcptrace_handshakes", None, MetricKind::Counter, "Finished handshakes by result.")
};
pub(super) const SYN_RETRANSMITS: Description = Description {
    labels: &["role"],
    owned: true,
    note: "Client: SYNs. Server: SYN-ACKs. Counted when the handshake has finished, also when it failed.",
    ..metric("tcptrace_syn_retransmits", None, MetricKind::Counter, "Retransmitted SYNs and SYN-ACKs.")
};
pub(super) const ACCEPT_WAIT: Description = Description {
    labels: &["until"],
    note: "From ESTABLISHED to the return of `accept()` (`until=\"accept\"`, which requires the hook `inet_csk_accept`), or to \
           the first read by a process (`until=\"first_read\"`), an upper bound where the hook is missing. A connection counts \
           once. A connection that no process accepts or reads does not count.",
    ..metric(
        "tcptrace_accept_wait",
        SECONDS,
        MetricKind::Histogram,
        "Time that established connections wait for their application.",
    )
};
pub(super) const INBOUND_REFUSED: Description = Description {
    labels: &["reason"],
    note: "SYNs to a port on which nobody listens. The reason is the kernel's (`enum sk_rst_reason`), `unknown` before 6.10. \
           Requires the hook `tcp_send_reset`. Without a label for the port, because of port scans.",
    ..metric(
        "tcptrace_inbound_refused",
        None,
        MetricKind::Counter,
        "SYNs that this host refused with a reset.",
    )
};
pub(super) const SEGMENT_DROPS: Description = Description {
    labels: &["segment", "reason"],
    note: "`segment` is `syn`, `syn_ack` or `ack`. The reason is the kernel's (`enum skb_drop_reason`), or `accept_queue_full`, \
           which requires the hook `tcp_conn_request`. Requires the hook `kfree_skb`. An `ack` counts only if it was for a \
           listener or a half-open connection.",
    ..metric(
        "tcptrace_handshake_segment_drops",
        None,
        MetricKind::Counter,
        "Segments of handshakes that this host dropped.",
    )
};
pub(super) const STATE_DURATION: Description = Description {
    labels: &["state"],
    note: "`syn_received` of a server is the duration of its handshake. `time_wait`, and `fin_wait_2` after the \
           application closed the socket, require the hook `inet_twsk_kill` (docs/modes.md).",
    ..metric(
        "tcptrace_state_duration",
        SECONDS,
        MetricKind::Histogram,
        "Time in a state, counted when the state is left.",
    )
};
pub(super) const TRANSITIONS: Description = Description {
    labels: &["from", "to"],
    note: "As reported by the kernel, which reports no transition to `time_wait`.",
    ..metric("tcptrace_transitions", None, MetricKind::Counter, "State transitions.")
};
pub(super) const CONNECTIONS: Description = Description {
    labels: &["state"],
    owned: true,
    note: "Corresponds to `ss -tan`, with these differences. Age: up to 8,192 connections (512 with opt-in labels) the \
           value is current; a larger table is scanned in parts, so with a million connections the value is some seconds \
           old (with labels up to a minute). `syn_received`: half-open handshakes of a server are missing. `time_wait`: \
           without the hook that reports its end, an entry is kept up to 8.5 s longer than the kernel's timer runs, which \
           may fire late. `fin_wait_2` after the application closed the socket: the kernel does not report its change to \
           `time_wait`, so until the next resync only the sum of both states agrees. With opt-in labels, `listen`, \
           `time_wait` and `fin_wait_2` without a socket count under `~other`, so the sums by state stay the same.",
    ..metric("tcptrace_connections", None, MetricKind::Gauge, "Connections by state.")
};
pub(super) const CONNECTION_DURATION: Description = Description {
    labels: &["role"],
    note: "Excludes TIME_WAIT, and connections that existed before the agent started.",
    ..metric(
        "tcptrace_connection_duration",
        SECONDS,
        MetricKind::Histogram,
        "Duration of closed connections.",
    )
};
pub(super) const CONNECTIONS_CLOSED: Description = Description {
    labels: &["role", "reason"],
    owned: true,
    note: "docs/close-reasons.md explains the reasons.",
    ..metric("tcptrace_connections_closed", None, MetricKind::Counter, "Closed connections by reason.")
};
pub(super) const STUCK: Description = Description {
    labels: &["state"],
    owned: true,
    note: "The thresholds are those of `tcptrace-bpf stuck`; `--threshold` changes them. For a connection that existed \
           before the agent, the time is a lower bound.",
    ..metric(
        "tcptrace_stuck_connections",
        None,
        MetricKind::Gauge,
        "Connections beyond the threshold of their state.",
    )
};
pub(super) const BYTES_SENT: Description = Description {
    owned: true,
    note: "Payload without retransmissions. Excludes open connections. Requires mode `btf`.",
    ..metric("tcptrace_bytes_sent", None, MetricKind::Counter, "Bytes sent by closed connections.")
};
pub(super) const BYTES_RECEIVED: Description = Description {
    owned: true,
    note: "Payload received in order. Excludes open connections. Requires mode `btf`.",
    ..metric("tcptrace_bytes_received", None, MetricKind::Counter, "Bytes received by closed connections.")
};
pub(super) const ACCEPT_QUEUE: Description = Description {
    labels: &["port"],
    note: "Read from the kernel at the scrape, at most once a second. Several listeners on a port: the fullest relative \
           to its limit. Other network namespaces: the length at the last arrival of the last 60 s, in mode `btf`. \
           Limited to the 100 fullest ports.",
    ..metric(
        "tcptrace_listener_accept_queue",
        None,
        MetricKind::Gauge,
        "Connections waiting for accept() on a port.",
    )
};
pub(super) const ACCEPT_QUEUE_LIMIT: Description = Description {
    labels: &["port"],
    note: "The backlog of `listen()` of the same listener, capped by `net.core.somaxconn`.",
    ..metric("tcptrace_listener_accept_queue_limit", None, MetricKind::Gauge, "Limit of the accept queue.")
};
pub(super) const ACCEPT_QUEUE_PEAK: Description = Description {
    labels: &["port"],
    note: "Covers the last one to two minutes, so it shows bursts between scrapes. The arriving connection is not \
           counted. Requires mode `btf`. Limited to the 100 most recently used ports; a port without arrivals for \
           `--label-expiry` is dropped.",
    ..metric(
        "tcptrace_listener_accept_queue_peak",
        None,
        MetricKind::Gauge,
        "Longest accept queue seen by an arriving connection.",
    )
};
pub(super) const LISTENER_DROPS: Description = Description {
    labels: &["port"],
    note: "The kernel's count of each listener (`sk_drops`, the `d` of `ss -ltm`): mostly SYNs and final ACKs that a full \
           accept queue drops. The kernel counts a dropped final ACK twice (`tcp_listendrop` and `tcp_v4_rcv`, 6.18). Read at the \
           scrape, at most once a second, and summed over the listeners of a port. A port \
           keeps its count when its listener closes; what it drops between the last scrape and its end is missing. Only this \
           network namespace, or that of `--netns`; `tcptrace_handshake_segment_drops_total` covers the others, without the \
           port. Limited to 100 ports, those with drops first.",
    ..metric(
        "tcptrace_listener_drops",
        None,
        MetricKind::Counter,
        "Segments dropped by the listeners of a port.",
    )
};
pub(super) const LISTEN_DROPS: Description = Description {
    note: "`ListenDrops` in `/proc/net/netstat`, for the network namespace of `tcptrace_listener_drops_total`. Its causes: \
           `tcptrace_listen_overflows_total`, `tcptrace_syn_queue_full_drops_total`, and for the rest mostly memory.",
    ..metric(
        "tcptrace_listen_drops",
        None,
        MetricKind::Counter,
        "SYNs and final ACKs dropped by listeners for any cause.",
    )
};
pub(super) const LISTEN_OVERFLOWS: Description = Description {
    note: "`ListenOverflows` in `/proc/net/netstat`. The application accepts too slowly, or its backlog is too small.",
    ..metric(
        "tcptrace_listen_overflows",
        None,
        MetricKind::Counter,
        "SYNs and final ACKs dropped because an accept queue was full.",
    )
};
pub(super) const SYN_QUEUE_FULL_DROPS: Description = Description {
    note: "`TCPReqQFullDrop` in `/proc/net/netstat`. 0 with SYN cookies (`net.ipv4.tcp_syncookies=1`, the default).",
    ..metric(
        "tcptrace_syn_queue_full_drops",
        None,
        MetricKind::Counter,
        "SYNs dropped because too many handshakes were half-open and SYN cookies are off.",
    )
};
pub(super) const SYN_COOKIES_SENT: Description = Description {
    note: "`SyncookiesSent` in `/proc/net/netstat`. Not drops: the kernel answers so when too many handshakes are half-open, as \
           in a SYN flood.",
    ..metric("tcptrace_syn_cookies_sent", None, MetricKind::Counter, "SYNs answered with a SYN cookie.")
};
pub(super) const EVENTS: Description = Description {
    labels: &["type"],
    ..metric("tcptrace_events", None, MetricKind::Counter, "Events received by the tracer.")
};
pub(super) const EVENTS_LOST: Description = Description {
    labels: &["where"],
    note: "`ring`: transitions dropped because the buffer was full; raise `--buffer`. `ring_other`: other records \
           dropped because their buffer was full. `kernel`: runs of the program that the kernel skipped \
           (docs/modes.md); absent where the kernel does not count them: before 5.12, and in mode `tracepoint` before \
           6.7 or without BTF. `malformed`: records that could not be decoded.",
    ..metric("tcptrace_events_lost", None, MetricKind::Counter, "Lost events.")
};
pub(super) const COVERAGE_GAPS: Description = Description {
    labels: &["gap"],
    note: "Set by the socket dump at the start, except for the last six values, which increase while the agent runs. \
           `unreadable_processes` and `unreadable_namespaces`: grant `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH` and \
           `CAP_SYS_ADMIN`. `omitted_processes`: more than 131,072 processes, 8,388,608 descriptors or 2,097,152 sockets, so \
           owners of existing sockets are missing. `omitted_namespaces`: processes and mounts beyond 4,096 namespaces or \
           131,072 processes. `namespaces_without_resync`: namespaces beyond 256. `undecoded_sockets`: existing sockets in \
           messages that could not be decoded. `unresolved_cgroups`: lookups of a cgroup id without a path. \
           `evicted_cgroups`: cgroups dropped from a full cache. `truncated_cgroup_walks`: walks of the cgroup tree that \
           stopped at 32,768 cgroups. `unreadable_names`: files with names of containers that this user may not read \
           (docs/requirements.md). `omitted_names`: names of containers and pods beyond 16,384. `listener_dumps`: dumps of the listening sockets that failed or were incomplete.",
    ..metric(
        "tcptrace_coverage_gaps",
        None,
        MetricKind::Gauge,
        "Items on this host that could not be read, by kind.",
    )
};
pub(super) const HOST_VISIBLE: Description = Description {
    labels: &["namespace"],
    note: "0 in a container. `pid`: existing connections in other network namespaces and processes in other pid namespaces are \
           missing; `--pid=host`, in Kubernetes `hostPID: true`. `network`: existing connections of the host are missing; \
           the same remedy. `cgroup`: cgroups and containers of other sockets are missing; \
           `--cgroupns=host`, or a mount of `/sys/fs/cgroup`. New connections are seen in any case. Absent for a recording, \
           and where it is unknown.",
    ..metric(
        "tcptrace_host_visible",
        None,
        MetricKind::Gauge,
        "Whether the agent sees the whole host in spite of its own namespace.",
    )
};
pub(super) const EVENTS_RECOVERED: Description = Description {
    note: "Included in `tcptrace_events_total`; not lost.",
    ..metric(
        "tcptrace_events_recovered",
        None,
        MetricKind::Counter,
        "Transitions that the twin program recorded because the kernel skipped the first program.",
    )
};
pub(super) const EVENTS_DUPLICATE: Description = Description {
    note: "One of the two records was dropped, so each counts once.",
    ..metric(
        "tcptrace_events_duplicate",
        None,
        MetricKind::Counter,
        "Transitions that both the first program and the twin program recorded.",
    )
};
pub(super) const TRACKED: Description =
    metric("tcptrace_connections_tracked", None, MetricKind::Gauge, "Connections in the connection table.");
pub(super) const EVICTED: Description = Description {
    note: "Raise `--max-connections`.",
    ..metric(
        "tcptrace_connections_evicted",
        None,
        MetricKind::Counter,
        "Connections dropped because the table was full.",
    )
};
pub(super) const UNMATCHED: Description = metric(
    "tcptrace_transitions_unmatched",
    None,
    MetricKind::Counter,
    "Transitions of sockets whose start was not seen.",
);
pub(super) const GAPS: Description = metric(
    "tcptrace_transition_gaps",
    None,
    MetricKind::Counter,
    "Transitions that do not continue the previous state: at least one was missed.",
);
pub(super) const RESYNCS: Description = metric(
    "tcptrace_resyncs",
    None,
    MetricKind::Counter,
    "Resyncs of the connection table with a socket dump after missed events.",
);
pub(super) const UNFOLLOWED: Description = metric(
    "tcptrace_unfollowed",
    None,
    MetricKind::Counter,
    "Half-open handshakes, timewait sockets and listeners beyond the tracking limits.",
);
pub(super) const TIME_WAIT_REUSED: Description = metric(
    "tcptrace_time_wait_reused",
    None,
    MetricKind::Counter,
    "Connections that reused the 4-tuple of a TIME_WAIT socket before its timer expired.",
);
pub(super) const LABEL_OVERFLOW: Description = Description {
    labels: &["label"],
    note: "`series`: label combinations beyond the limit of the page. `port`: ports beyond the limits of \
           `tcptrace_listener_accept_queue` and `tcptrace_listener_drops_total`.",
    ..metric(
        "tcptrace_label_overflow",
        None,
        MetricKind::Counter,
        "Label values replaced by `~other` because of a limit.",
    )
};
pub(super) const COUNTS_AGE: Description = Description {
    note: "Normally some milliseconds. Higher when the tracing thread hangs or gets no CPU time; then all other values \
           are equally old. Absent for a recording.",
    ..metric("tcptrace_counts_age", SECONDS, MetricKind::Gauge, "Age of the counts on this page.")
};
pub(super) const MODE: Description = Description {
    labels: &["mode", "kernel"],
    ..metric("tcptrace_mode", None, MetricKind::Info, "Tracing mode and kernel release.")
};
pub(super) const BUILD: Description = Description {
    labels: &["version"],
    ..metric("tcptrace_build", None, MetricKind::Info, "Version of tcptrace-bpf.")
};
pub(super) const BPF_RUN: Description = Description {
    note: "Covers the program that runs at every transition. Absent unless BPF statistics are enabled \
           (`sysctl kernel.bpf_stats_enabled=1`), which add overhead.",
    ..metric("tcptrace_bpf_run", SECONDS, MetricKind::Counter, "CPU time of the eBPF program.")
};
pub(super) const PROCESS_CPU: Description =
    metric("process_cpu", SECONDS, MetricKind::Counter, "CPU time of this process, user and system.");
pub(super) const PROCESS_RESIDENT: Description =
    metric("process_resident_memory", BYTES, MetricKind::Gauge, "Resident memory of this process.");
pub(super) const PROCESS_VIRTUAL: Description =
    metric("process_virtual_memory", BYTES, MetricKind::Gauge, "Virtual memory of this process.");
pub(super) const PROCESS_OPEN_FDS: Description =
    metric("process_open_fds", None, MetricKind::Gauge, "Open file descriptors of this process.");
pub(super) const PROCESS_MAX_FDS: Description =
    metric("process_max_fds", None, MetricKind::Gauge, "Limit of open file descriptors of this process.");
pub(super) const PROCESS_START: Description = metric(
    "process_start_time",
    SECONDS,
    MetricKind::Gauge,
    "Start time of this process since the Unix epoch.",
);

/// Every metric, in page order.
pub const CATALOG: &[Description] = &[
    HANDSHAKE_DURATION,
    HANDSHAKE_RTT,
    HANDSHAKES,
    SYN_RETRANSMITS,
    ACCEPT_WAIT,
    INBOUND_REFUSED,
    SEGMENT_DROPS,
    STATE_DURATION,
    TRANSITIONS,
    CONNECTIONS,
    STUCK,
    CONNECTION_DURATION,
    CONNECTIONS_CLOSED,
    BYTES_SENT,
    BYTES_RECEIVED,
    ACCEPT_QUEUE,
    ACCEPT_QUEUE_LIMIT,
    ACCEPT_QUEUE_PEAK,
    LISTENER_DROPS,
    LISTEN_DROPS,
    LISTEN_OVERFLOWS,
    SYN_QUEUE_FULL_DROPS,
    SYN_COOKIES_SENT,
    EVENTS,
    EVENTS_LOST,
    COVERAGE_GAPS,
    HOST_VISIBLE,
    EVENTS_RECOVERED,
    EVENTS_DUPLICATE,
    TRACKED,
    EVICTED,
    UNMATCHED,
    GAPS,
    RESYNCS,
    UNFOLLOWED,
    TIME_WAIT_REUSED,
    LABEL_OVERFLOW,
    COUNTS_AGE,
    MODE,
    BUILD,
    BPF_RUN,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_VIRTUAL,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START,
];
