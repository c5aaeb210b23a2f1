//! Generates docs/metrics.md from the catalog.

use std::fmt::Write as _;

use tracer_core::{
    event::{HandshakeSegment, TcpState},
    lifecycle::CloseReason,
};

use crate::{
    agent::metrics::{
        CATALOG, Label, MetricKind,
        histogram::{HANDSHAKE_BOUNDS, LIFETIME_BOUNDS, seconds},
        names::{ACCEPT_WAITS, EVENT_TYPES, LISTENER_DUMPS, Lost, NETWORK_TYPES, OutcomeLabel, ROLES},
    },
    sources::Coverage,
};

const HEAD: &str = "\
# Metrics

The metrics of `tcptrace-bpf serve` under `/metrics`. This page is generated: `UPDATE_DOCS=1 cargo test -p \
tcptrace-bpf --test metrics` writes it, and without that variable the test compares.

Names start with `tcptrace_`, units are seconds and bytes, and states have OpenTelemetry's names. The format is
Prometheus text, OpenMetrics or protobuf, negotiated by the `Accept` header. In protobuf, every histogram also has
native buckets (schema 3, 9 % wide). A Prometheus that ingests native buckets drops the classic ones by default, but the
rules and the dashboard of this repository query the classic ones. Read [native \
histograms](operating.md#native-histograms) before you enable them.

All counters start at 0 with the agent. They cover the whole host, or with `--netns` one network namespace.

";

const LABELS: &str = "\
## Opt-in labels

By default, all label values come from fixed sets: there are no addresses, client ports or processes. `--label` adds
labels to the metrics marked with `+`. Those metrics then show only series with a count above 0.

| option | label | value |
|---|---|---|
| `--label local_port` | `local_port` | The server's listening port; absent for clients |
| `--label process` | `process` | The process name of the owner |
| `--label container` | `container` | The first 12 digits of the container id |
| `--label cgroup` | `cgroup` | The cgroup path; the last 64 bytes of a longer path |
| `--label k8s_namespace` | `k8s_namespace` | The Kubernetes namespace of the pod |
| `--label k8s_pod` | `k8s_pod` | The name of the Kubernetes pod; the last 64 bytes of a longer name |
| `--label k8s_workload` | `k8s_workload` | The Kubernetes workload, [derived from the pod's name](output.md#workloads), without its namespace |
| `--label remote_cidr=FILE` | `remote_cidr` | The narrowest network in FILE that contains the remote address. A line of FILE is a network and an optional name: `10.0.0.0/8 office` |
| `--label service=FILE` | `service` | The service in FILE that lists the server's port. A line of FILE is a name and ports: `web 80,443` |

In both lists, `#` starts a comment and the limit is 1000 entries. A label without a value is omitted.

Each label has at most `--label-limit` values. Further values count as `~other`, and in
`tcptrace_label_overflow_total`. Once a minute, a value counted under `~other` replaces the least used value if it was
used more than twice as often. All labelled series together take at most 850 kB of the page. Beyond that, the least used
combinations are dropped and new ones count under `~other`. A series without use for `--label-expiry` is dropped.

A dropped series takes its count with it, and `~other` does not jump. So `rate()` and `increase()` over all series never
count an event twice. For the same reason, use `increase()` for the number of events, not the sum of the values.

";

/// Returns the text of docs/metrics.md.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("## All metrics\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for description in CATALOG {
        let kind = match description.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Info => "info",
        };
        let labels: Vec<_> = description.labels.iter().map(|label| format!("`{label}`")).collect();
        let mut labels = labels.join(", ");
        if description.owned {
            labels.push_str(if labels.is_empty() { "+" } else { ", +" });
        }
        let note = description.note.split_whitespace().collect::<Vec<_>>().join(" ");
        let meaning = format!("{} {note}", description.help);
        let _ = writeln!(text, "| `{}` | {kind} | {labels} | {} |", description.name(), meaning.trim_end());
    }
    text.push_str("\n## Label values\n\n| label | values |\n|---|---|\n");
    let states = |without: &[TcpState]| {
        TcpState::ALL.into_iter().filter(|state| !without.contains(state)).map(TcpState::name).collect()
    };
    let rows: [(&str, Vec<&str>); 13] = [
        ("`role`", ROLES.iter().map(|role| role.name()).collect()),
        ("`network_type`", NETWORK_TYPES.to_vec()),
        ("`result`", OutcomeLabel::ALL.iter().map(|outcome| outcome.name()).collect()),
        ("`reason`", CloseReason::ALL.iter().map(|reason| reason.name()).collect()),
        ("`segment`", HandshakeSegment::ALL.iter().map(|segment| segment.name()).collect()),
        ("`until`", ACCEPT_WAITS.to_vec()),
        ("`state`", states(&[TcpState::Closed])),
        ("`from`, `to`", states(&[])),
        ("`where`", Lost::ALL.iter().map(|lost| lost.name()).collect()),
        ("`gap`", Coverage::NAMES.into_iter().chain([LISTENER_DUMPS]).collect()),
        ("`namespace`", vec!["pid", "network", "cgroup"]),
        ("`type`", EVENT_TYPES.to_vec()),
        ("`label`", Label::ALL.iter().map(|label| label.name()).chain(["series", "port"]).collect()),
    ];
    for (label, values) in rows {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        let _ = writeln!(text, "| {label} | {} |", values.join(", "));
    }
    text.push_str(
        "\nThe reasons above are those of `tcptrace_connections_closed_total`. Those of refused SYNs and of dropped segments are the \
         kernel's names in lower case. Handshakes never have the role `unknown`. `port` is a listening port, `mode` is `btf` or `tracepoint`.\n\n",
    );
    text.push_str(LABELS);
    text.push_str("## Bucket bounds\n\nUpper bounds of the classic buckets, seconds.\n\n");
    for (title, bounds) in [
        (
            "`tcptrace_handshake_duration_seconds`, `tcptrace_handshake_rtt_seconds`, `tcptrace_accept_wait_seconds`",
            HANDSHAKE_BOUNDS.upper(),
        ),
        (
            "`tcptrace_state_duration_seconds`, `tcptrace_connection_duration_seconds`",
            LIFETIME_BOUNDS.upper(),
        ),
    ] {
        let bounds: Vec<_> = bounds.iter().map(|&bound| seconds(bound).to_string()).collect();
        let _ = writeln!(text, "- {title}: {}", bounds.join(", "));
    }
    text
}
