//! docs/metrics.md, made from the catalogue.

use std::fmt::Write as _;

use tracer_core::{event::TcpState, lifecycle::CloseReason};

use crate::agent::metrics::{
    CATALOG, HANDSHAKE_BOUNDS, Kind, LIFETIME_BOUNDS, Lost, OutcomeLabel,
    histogram::seconds,
    labels::Label,
    names::{EVENT_TYPES, NETWORK_TYPES, ROLES},
};

const HEAD: &str = "\
# Metrics

What `tcptrace-bpf serve` shows under `/metrics`. This page is made from the code: `UPDATE_DOCS=1 cargo test -p \
tcptrace-bpf --test metrics` writes it, and without that variable the test compares.

Names have the prefix `tcptrace_`, units are seconds and bytes, states have OpenTelemetry's names. The page comes as
Prometheus text, as OpenMetrics, or as protobuf, whichever the monitor prefers; as protobuf every histogram has
native buckets too (schema 3, 9 % wide). A Prometheus that keeps those leaves the classic ones out unless it is told to
keep both, and the rules and the dashboard of this repository ask for the classic ones: see [native \
histograms](operating.md#native-histograms) before you turn them on.

All counts begin at 0 with the daemon and are of the whole host, or with `--netns` of one network namespace.

";

const LABELS: &str = "\
## Opt-in labels

By default no label has a value from outside: no address, no port of a client, no process. `--label` adds labels to
the metrics marked with `+`, and then those metrics show only series in which something was counted.

| option | label | value |
|---|---|---|
| `--label local_port` | `local_port` | The port that a server listens on; clients have none |
| `--label process` | `process` | The owner's process name |
| `--label container` | `container` | The first twelve digits of the container's id |
| `--label cgroup` | `cgroup` | The path of the cgroup; of a long one the last 64 bytes |
| `--label remote_cidr=FILE` | `remote_cidr` | The narrowest network of FILE that holds the remote address. A line of FILE is a network and, if wanted, a name: `10.0.0.0/8 office` |
| `--label service=FILE` | `service` | The service of FILE that has the server's port. A line of FILE is a name and ports: `web 80,443` |

In both lists `#` begins a comment, and there may be 1000 entries. What has no value has no label.

Each label has at most `--label-limit` values. What is beyond it is counted under the value `~other`, and in
`tcptrace_label_overflow_total`. Once a minute the least used values give their places to those of `~other` that were
used more than twice as much. All series together take no more than 850 kB of the page; beyond that the least used
combinations of values end, and new ones are counted under `~other`. A series that nothing has used for
`--label-expiry` ends.

A series that ends takes its count with it: `~other` does not jump, so a `rate()` or `increase()` over all series never
counts an event twice. It also means that only `increase()`, and not the sum of the values, is the number of events.

";

/// The text of docs/metrics.md.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("## All of them\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for description in CATALOG {
        let kind = match description.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
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
    text.push_str("\n## Values of the labels\n\n| label | values |\n|---|---|\n");
    let states = |without: &[TcpState]| {
        TcpState::ALL.into_iter().filter(|state| !without.contains(state)).map(TcpState::name).collect()
    };
    let rows: [(&str, Vec<&str>); 9] = [
        ("`role`", ROLES.iter().map(|role| role.name()).collect()),
        ("`network_type`", NETWORK_TYPES.to_vec()),
        ("`result`", OutcomeLabel::ALL.iter().map(|outcome| outcome.name()).collect()),
        ("`reason`", CloseReason::ALL.iter().map(|reason| reason.name()).collect()),
        ("`state`", states(&[TcpState::Closed])),
        ("`from`, `to`", states(&[])),
        ("`where`", Lost::ALL.iter().map(|lost| lost.name()).collect()),
        ("`type`", EVENT_TYPES.to_vec()),
        ("`label`", Label::ALL.iter().map(|label| label.name()).chain(["series", "port"]).collect()),
    ];
    for (label, values) in rows {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        let _ = writeln!(text, "| {label} | {} |", values.join(", "));
    }
    text.push_str(
        "\nOpenings have no role `unknown`. `port` is a listening port, `mode` is `btf` or `tracepoint`.\n\n",
    );
    text.push_str(LABELS);
    text.push_str("## Boundaries\n\nUpper bounds of the classic buckets, seconds.\n\n");
    for (title, bounds) in [
        ("`tcptrace_handshake_duration_seconds`, `tcptrace_handshake_rtt_seconds`", HANDSHAKE_BOUNDS),
        ("`tcptrace_state_duration_seconds`, `tcptrace_connection_duration_seconds`", LIFETIME_BOUNDS),
    ] {
        let bounds: Vec<_> = bounds.iter().map(|&bound| seconds(bound).to_string()).collect();
        let _ = writeln!(text, "- {title}: {}", bounds.join(", "));
    }
    text
}
