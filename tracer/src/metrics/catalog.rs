//! Every metric there is, declared once: the page and docs/metrics.md are made from this.

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the daemon starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution; native buckets too, when it is asked for as protobuf.
    Histogram,
    /// Always 1; what it says is in its labels.
    Info,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name without unit and suffix.
    pub stem: &'static str,
    /// Its base unit, a part of the name.
    pub unit: Option<&'static str>,
    /// Its kind.
    pub kind: Kind,
    /// What it means, one sentence; shown on the page.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Whether the opt-in labels are added to it.
    pub owned: bool,
    /// What else one has to know, for the documentation.
    pub note: &'static str,
}

impl Description {
    /// Its name on the page and in PromQL; a histogram's has `_bucket`, `_sum` and `_count` after it.
    pub fn name(&self) -> String {
        let mut name = self.base();
        match self.kind {
            Kind::Counter => name.push_str("_total"),
            Kind::Info => name.push_str("_info"),
            Kind::Gauge | Kind::Histogram => {}
        }
        name
    }

    /// Its name without the suffix of its kind.
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
    kind: Kind,
    help: &'static str,
) -> Description {
    Description { stem, unit, kind, help, labels: &[], owned: false, note: "" }
}

const SECONDS: Option<&str> = Some("seconds");
const BYTES: Option<&str> = Some("bytes");

pub(super) const HANDSHAKE_DURATION: Description = Description {
    labels: &["role", "network_type"],
    owned: true,
    note: "A client's is what its application waited, lost SYNs included. A server's is the kernel's own measurement, \
           not the microseconds of SYN_RECV; where the kernel cannot say (docs/handshakes.md) the handshake is in \
           `tcptrace_handshakes_total` and not here. The boundaries .95, 1.5, 2.5, 3.5, 7.5, 15.5, 31.5, 67.5 and 131 \
           bracket the steps at which SYNs are sent again: what is above .95 has lost at least one.",
    ..metric(
        "tcptrace_handshake_duration",
        SECONDS,
        Kind::Histogram,
        "How long openings took that succeeded.",
    )
};
pub(super) const HANDSHAKE_RTT: Description = Description {
    labels: &["role"],
    note: "Compare with `tcptrace_handshake_duration_seconds`: a long handshake over a short round trip has lost a SYN.",
    ..metric(
        "tcptrace_handshake_rtt",
        SECONDS,
        Kind::Histogram,
        "The network's part of openings: the round trip of the segment that was answered.",
    )
};
pub(super) const HANDSHAKES: Description = Description {
    labels: &["role", "result"],
    owned: true,
    note: "`abandoned` are handshakes that this host answered and the client never completed; they show when the \
           SYN-ACK has been sent again, which takes the hook `tcp_retransmit_synack`. A connection that existed before \
           the daemon has no opening.",
    ..metric("tcptrace_handshakes", None, Kind::Counter, "Openings that came to an end.")
};
pub(super) const SYN_RETRANSMITS: Description = Description {
    labels: &["role"],
    owned: true,
    note: "For a server, SYN-ACKs. Counted when the opening has ended.",
    ..metric("tcptrace_syn_retransmits", None, Kind::Counter, "SYNs that were sent again.")
};
pub(super) const STATE_DURATION: Description = Description {
    labels: &["state"],
    note: "A server's `syn_received` is its handshake. `time_wait` and a `fin_wait_2` without a socket are counted where \
           the hook `inet_twsk_kill` tells of their end (docs/modes.md).",
    ..metric(
        "tcptrace_state_duration",
        SECONDS,
        Kind::Histogram,
        "Time spent in a state, counted when it is left.",
    )
};
pub(super) const TRANSITIONS: Description = Description {
    labels: &["from", "to"],
    note: "The kernel's transitions, so nothing enters `time_wait`.",
    ..metric("tcptrace_transitions", None, Kind::Counter, "Changes of state.")
};
pub(super) const CONNECTIONS: Description = Description {
    labels: &["state"],
    owned: true,
    note: "What `ss -tan` counts, with these differences: a table of more than 8,192 connections (512 with opt-in labels) \
           is looked through in parts, one with every batch of events, so with a million the figure is some seconds \
           old (with labels up to a minute), and one with fewer is of the moment; half-open handshakes on a server are no \
           sockets yet and missing in `syn_received`; `time_wait` begins with what closed after the daemon started, and \
           where no hook tells of its end lasts the 67 s that the kernel's timer may take; a `fin_wait_2` that its application \
           has left may be a `time_wait` by now, of which the kernel tells nothing, so it is their sum that agrees; listeners of one process on one \
           address that existed before count once. With opt-in labels, what belongs to nobody (`listen`, `time_wait`, a \
           `fin_wait_2` that its application has left) is in the series of `~other`, so that the sum by state is the same.",
    ..metric("tcptrace_connections", None, Kind::Gauge, "Connections by state.")
};
pub(super) const CONNECTION_DURATION: Description = Description {
    labels: &["role"],
    note: "Without TIME_WAIT. Connections that existed before the daemon are not in it: their beginning is unknown.",
    ..metric(
        "tcptrace_connection_duration",
        SECONDS,
        Kind::Histogram,
        "How long connections lasted that ended.",
    )
};
pub(super) const CONNECTIONS_CLOSED: Description = Description {
    labels: &["role", "reason"],
    owned: true,
    note: "The reasons are those of docs/close-reasons.md.",
    ..metric("tcptrace_connections_closed", None, Kind::Counter, "Connections that ended, by why.")
};
pub(super) const STUCK: Description = Description {
    labels: &["state"],
    owned: true,
    note: "The limits are those of `tcptrace-bpf stuck`, and `--threshold` changes them. A connection that existed before \
           the daemon counts from when it was certainly in its state.",
    ..metric(
        "tcptrace_stuck_connections",
        None,
        Kind::Gauge,
        "Connections that have been in a passing state for longer than its limit.",
    )
};
pub(super) const BYTES_SENT: Description = Description {
    owned: true,
    note: "Payload, without what was sent again. Needs mode `btf`. Traffic of connections that are still open is not in it.",
    ..metric("tcptrace_bytes_sent", None, Kind::Counter, "Bytes that closed connections had sent.")
};
pub(super) const BYTES_RECEIVED: Description = Description {
    owned: true,
    note: "Payload in order. Needs mode `btf`. Traffic of connections that are still open is not in it.",
    ..metric("tcptrace_bytes_received", None, Kind::Counter, "Bytes that closed connections had received.")
};
pub(super) const ACCEPT_QUEUE: Description = Description {
    labels: &["port"],
    note: "As the listener has it at the scrape, at most a second ago; of several on one port the one that is fullest \
           for its limit. Listeners in other network namespaces cannot be looked at: theirs is what the last connection \
           of the last 60 s found, itself not counted, in mode `btf`. The 100 fullest ports.",
    ..metric(
        "tcptrace_listener_accept_queue",
        None,
        Kind::Gauge,
        "Connections that waited for accept() on a listening port.",
    )
};
pub(super) const ACCEPT_QUEUE_LIMIT: Description = Description {
    labels: &["port"],
    note: "The backlog of `listen()`, capped by `net.core.somaxconn`, of the same listener.",
    ..metric(
        "tcptrace_listener_accept_queue_limit",
        None,
        Kind::Gauge,
        "The most connections that may wait there.",
    )
};
pub(super) const ACCEPT_QUEUE_PEAK: Description = Description {
    labels: &["port"],
    note: "Of the last one to two minutes, itself not counted; in mode `btf`. It shows bursts between two scrapes. The 100 \
           ports used last, each until nothing has arrived for the time of `--label-expiry`.",
    ..metric(
        "tcptrace_listener_accept_queue_peak",
        None,
        Kind::Gauge,
        "The most connections that one which arrived found waiting for accept().",
    )
};
pub(super) const EVENTS: Description = Description {
    labels: &["type"],
    ..metric("tcptrace_events", None, Kind::Counter, "Events that the tracer took in.")
};
pub(super) const EVENTS_LOST: Description = Description {
    labels: &["where"],
    note: "`ring`: transitions that found the buffer full, remedied by a larger `--buffer`; `ring_other`: other \
           records that did; `kernel`: transitions for which the kernel skipped the program and that were not recovered (docs/modes.md), \
           absent where the kernel does not count skips: before 5.12, in mode `tracepoint` before 6.7 or without BTF; `malformed`: records that could not be understood.",
    ..metric("tcptrace_events_lost", None, Kind::Counter, "Events that were lost.")
};
pub(super) const EVENTS_RECOVERED: Description = Description {
    note: "They are among `tcptrace_events_total` and are not lost.",
    ..metric(
        "tcptrace_events_recovered",
        None,
        Kind::Counter,
        "Transitions that the twin program recorded because the kernel skipped the first program.",
    )
};
pub(super) const EVENTS_DUPLICATE: Description = Description {
    note: "The second record of each was dropped: no event is counted twice.",
    ..metric(
        "tcptrace_events_duplicate",
        None,
        Kind::Counter,
        "Transitions that both the first program and the twin program recorded.",
    )
};
pub(super) const TRACKED: Description =
    metric("tcptrace_connections_tracked", None, Kind::Gauge, "Connections in the table.");
pub(super) const EVICTED: Description = Description {
    note: "Remedied by a larger `--max-connections`.",
    ..metric(
        "tcptrace_connections_evicted",
        None,
        Kind::Counter,
        "Connections that were forgotten because the table was full.",
    )
};
pub(super) const UNMATCHED: Description = metric(
    "tcptrace_transitions_unmatched",
    None,
    Kind::Counter,
    "Transitions of sockets whose beginning was not seen.",
);
pub(super) const GAPS: Description = metric(
    "tcptrace_transition_gaps",
    None,
    Kind::Counter,
    "Transitions that did not follow from the one before: one was missed.",
);
pub(super) const UNFOLLOWED: Description = metric(
    "tcptrace_unfollowed",
    None,
    Kind::Counter,
    "Half-open handshakes and remains of connections that were too many to follow.",
);
pub(super) const TIME_WAIT_REUSED: Description = metric(
    "tcptrace_time_wait_reused",
    None,
    Kind::Counter,
    "Connections that took the ends of one in TIME_WAIT before its time was over.",
);
pub(super) const LABEL_OVERFLOW: Description = Description {
    labels: &["label"],
    note: "`series` are combinations that found the page full. `port` is the label of `tcptrace_listener_accept_queue`.",
    ..metric(
        "tcptrace_label_overflow",
        None,
        Kind::Counter,
        "Times that a label's value was one too many, and `~other` stood for it.",
    )
};
pub(super) const COUNTS_AGE: Description = Description {
    note: "Some milliseconds, unless the thread that reads events hangs or gets no processor: then everything else here \
           is as old. Absent for a recording.",
    ..metric("tcptrace_counts_age", SECONDS, Kind::Gauge, "Time since the counts of this page were made.")
};
pub(super) const MODE: Description = Description {
    labels: &["mode", "kernel"],
    ..metric("tcptrace_mode", None, Kind::Info, "How the kernel is traced, and its release.")
};
pub(super) const BUILD: Description = Description {
    labels: &["version"],
    ..metric("tcptrace_build", None, Kind::Info, "The program's version.")
};
pub(super) const BPF_RUN: Description = Description {
    note: "Of the program at every transition. Absent unless the kernel keeps BPF statistics, which cost time \
           themselves (`sysctl kernel.bpf_stats_enabled=1`).",
    ..metric("tcptrace_bpf_run", SECONDS, Kind::Counter, "Processor time that the eBPF program took.")
};
pub(super) const PROCESS_CPU: Description =
    metric("process_cpu", SECONDS, Kind::Counter, "Processor time of this process, user and system.");
pub(super) const PROCESS_RESIDENT: Description =
    metric("process_resident_memory", BYTES, Kind::Gauge, "Resident memory of this process.");
pub(super) const PROCESS_VIRTUAL: Description =
    metric("process_virtual_memory", BYTES, Kind::Gauge, "Virtual memory of this process.");
pub(super) const PROCESS_OPEN_FDS: Description =
    metric("process_open_fds", None, Kind::Gauge, "File descriptors that this process has open.");
pub(super) const PROCESS_MAX_FDS: Description = metric(
    "process_max_fds",
    None,
    Kind::Gauge,
    "The most file descriptors that this process may have open.",
);
pub(super) const PROCESS_START: Description =
    metric("process_start_time", SECONDS, Kind::Gauge, "When this process started, since the epoch.");

/// Every metric, in the order of the page.
pub const CATALOG: &[Description] = &[
    HANDSHAKE_DURATION,
    HANDSHAKE_RTT,
    HANDSHAKES,
    SYN_RETRANSMITS,
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
    EVENTS,
    EVENTS_LOST,
    EVENTS_RECOVERED,
    EVENTS_DUPLICATE,
    TRACKED,
    EVICTED,
    UNMATCHED,
    GAPS,
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
