//! Handshakes as rows: the groups, the slowest, how they are distributed.

use std::fmt::{self, Write as _};

use serde::Serialize;
use tracer_core::{
    analysis::{Bucket, GroupKey, GroupReport, HandshakeAttempt},
    escape::escape,
    event::{ClockOffset, Endpoint, Timestamp},
    lifecycle::HandshakeCaveat,
};

use crate::report::{
    TimeStyle,
    handshake_words::{fault, group_name, group_text, story},
    sink::Row,
    text::{self, EndpointText},
    transition::{known_address, known_port, network_type},
    wall_time,
};

/// A group of handshakes, ready to be written; its JSON form is the contract in docs/output.md.
#[derive(Clone, Debug, Serialize)]
pub struct HandshakeGroupRow {
    r#type: &'static str,
    group: String,
    count: u64,
    established: u64,
    failed: u64,
    failures: Vec<FailureRow>,
    lost_syn: u64,
    lost_syn_known: u64,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    max_us: Option<f64>,
    total_us: f64,
    network_us: f64,
    resend_wait_us: f64,
    cost_us: f64,
    why: Option<String>,
    #[serde(skip)]
    shown: ShownGroup,
}

/// How many openings ended in one way other than established.
#[derive(Clone, Debug, Serialize)]
struct FailureRow {
    reason: &'static str,
    count: u64,
}

/// What the table shows in another form than JSON.
#[derive(Clone, Debug)]
struct ShownGroup {
    name: String,
    quantiles_ns: [Option<u64>; 4],
    network: Option<u64>,
    resends: Option<u64>,
}

impl HandshakeGroupRow {
    /// Describes a group.
    pub fn new(group: &GroupReport<'_>) -> Self {
        let stats = group.stats;
        let durations = stats.durations();
        let quantiles_ns = [
            durations.quantile_ns(0.5),
            durations.quantile_ns(0.9),
            durations.quantile_ns(0.99),
            durations.max_ns(),
        ];
        let [p50_us, p90_us, p99_us, max_us] = quantiles_ns.map(|ns| ns.map(text::microseconds));
        let (lost_syn, lost_syn_known) = stats.lost_a_syn();
        let total = durations.sum_ns();
        let percent = |part: u64| (part * 100).checked_div(total);
        let why: Vec<String> = group.culprit.faults.iter().map(fault).collect();
        Self {
            r#type: "handshake_group",
            group: group_name(group.key),
            count: stats.count(),
            established: stats.established(),
            failed: stats.not_completed(),
            failures: stats
                .failures()
                .map(|(outcome, count)| FailureRow { reason: outcome.name(), count })
                .collect(),
            lost_syn,
            lost_syn_known,
            p50_us,
            p90_us,
            p99_us,
            max_us,
            total_us: text::microseconds(total),
            network_us: text::microseconds(stats.network_ns()),
            resend_wait_us: text::microseconds(stats.resends_ns()),
            cost_us: text::microseconds(group.culprit.cost_ns),
            why: (!why.is_empty()).then(|| why.join("; ")),
            shown: ShownGroup {
                name: group_text(group.key),
                quantiles_ns,
                network: percent(stats.network_ns()),
                resends: percent(stats.resends_ns()),
            },
        }
    }
}

impl Row for HandshakeGroupRow {
    const COLUMNS: &'static [&'static str] = &[
        "type",
        "group",
        "count",
        "established",
        "failed",
        "failures",
        "lost_syn",
        "lost_syn_known",
        "p50_us",
        "p90_us",
        "p99_us",
        "max_us",
        "total_us",
        "network_us",
        "resend_wait_us",
        "cost_us",
        "why",
    ];

    fn header(line: &mut String, wide: bool, _time: TimeStyle) -> fmt::Result {
        write!(
            line,
            "{:<23} {:>7} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8} {:>4} {:>4}",
            "GROUP", "COUNT", "FAILED", "LOST", "P50", "P90", "P99", "MAX", "NET", "WAIT"
        )?;
        if wide {
            write!(line, "  {:<32}", "FAILURES")?;
        }
        write!(line, "  WHY")
    }

    fn line(&self, line: &mut String, wide: bool, _time: TimeStyle) -> fmt::Result {
        let [p50, p90, p99, max] = self.shown.quantiles_ns.map(text::duration);
        let percent = |part: Option<u64>| part.map_or_else(|| "-".to_owned(), |part| format!("{part}%"));
        write!(
            line,
            "{:<23} {:>7} {:>6} {:>6} {p50:>8} {p90:>8} {p99:>8} {max:>8} {:>4} {:>4}",
            self.shown.name,
            self.count,
            self.failed,
            self.lost_syn,
            percent(self.shown.network),
            percent(self.shown.resends),
        )?;
        if wide {
            let failures: Vec<String> =
                self.failures.iter().map(|failure| format!("{} {}", failure.count, failure.reason)).collect();
            write!(line, "  {:<32}", if failures.is_empty() { "-".to_owned() } else { failures.join(", ") })?;
        }
        write!(line, "  {}", self.why.as_deref().unwrap_or("-"))
    }
}

/// One of the slowest handshakes, ready to be written.
#[derive(Clone, Debug, Serialize)]
pub struct SlowHandshakeRow {
    r#type: &'static str,
    time: String,
    group: String,
    role: &'static str,
    network_type: &'static str,
    local_address: String,
    local_port: Option<u16>,
    remote_address: Option<String>,
    remote_port: Option<u16>,
    outcome: &'static str,
    duration_us: Option<f64>,
    duration_source: Option<&'static str>,
    caveat: Option<&'static str>,
    rtt_us: Option<f64>,
    resend_wait_us: Option<f64>,
    syn_retransmits: Option<u8>,
    pid: Option<u32>,
    process: Option<String>,
    netns: Option<u32>,
    story: String,
    #[serde(skip)]
    shown: ShownSlow,
}

#[derive(Clone, Debug)]
struct ShownSlow {
    time: Timestamp,
    clock: ClockOffset,
    local: Endpoint,
    remote: Endpoint,
    duration_ns: Option<u64>,
}

impl SlowHandshakeRow {
    /// Describes a handshake.
    pub fn new(key: &GroupKey, opening: &HandshakeAttempt, clock: ClockOffset) -> Self {
        Self {
            r#type: "handshake_slow",
            time: wall_time::rfc3339(opening.ended, clock).to_string(),
            group: group_name(key),
            role: opening.role.name(),
            network_type: network_type(opening.local),
            local_address: opening.local.address.to_string(),
            local_port: known_port(opening.local),
            remote_address: known_address(opening.remote).map(|address| address.to_string()),
            remote_port: known_port(opening.remote),
            outcome: opening.outcome.name(),
            duration_us: opening.duration_ns.map(text::microseconds),
            duration_source: opening.duration_ns.map(|_| opening.source.name()),
            caveat: opening.caveat.map(HandshakeCaveat::name),
            rtt_us: opening.rtt_ns.map(text::microseconds),
            resend_wait_us: opening.split().resends.map(text::microseconds),
            syn_retransmits: opening.retransmits,
            pid: opening.process.map(|process| process.pid),
            process: opening.process.map(|process| escape(process.name())),
            netns: opening.netns,
            story: story(opening),
            shown: ShownSlow {
                time: opening.ended,
                clock,
                local: opening.local,
                remote: opening.remote,
                duration_ns: opening.duration_ns,
            },
        }
    }
}

impl Row for SlowHandshakeRow {
    const COLUMNS: &'static [&'static str] = &[
        "type",
        "time",
        "group",
        "role",
        "network_type",
        "local_address",
        "local_port",
        "remote_address",
        "remote_port",
        "outcome",
        "duration_us",
        "duration_source",
        "caveat",
        "rtt_us",
        "resend_wait_us",
        "syn_retransmits",
        "pid",
        "process",
        "netns",
        "story",
    ];

    fn header(line: &mut String, _wide: bool, time: TimeStyle) -> fmt::Result {
        wall_time::write_time_head(line, "ENDED", time)?;
        write!(line, "{:>7} {:<15} {:<23} {:<23} {:>8}  STORY", "PID", "PROCESS", "LOCAL", "REMOTE", "TIME")
    }

    fn line(&self, line: &mut String, _wide: bool, time: TimeStyle) -> fmt::Result {
        let shown = &self.shown;
        wall_time::write_time(line, shown.time, shown.clock, time)?;
        write!(
            line,
            "{:>7} {:<15} {:<23} {:<23} {:>8}  {}",
            text::OrDash(self.pid),
            self.process.as_deref().unwrap_or("-"),
            EndpointText(shown.local),
            EndpointText(shown.remote),
            text::duration(shown.duration_ns),
            self.story,
        )
    }
}

/// A part of the distribution of handshake durations, ready to be written.
#[derive(Clone, Debug, Serialize)]
pub struct HandshakeBucketRow {
    r#type: &'static str,
    from_us: f64,
    below_us: Option<f64>,
    count: u64,
    lost_syn: u64,
    #[serde(skip)]
    bucket: Bucket,
    #[serde(skip)]
    most: u64,
}

/// The width of the longest bar.
const BAR: u64 = 48;

impl HandshakeBucketRow {
    /// Describes a bucket; `most` is the count of the fullest.
    pub fn new(bucket: Bucket, most: u64) -> Self {
        Self {
            r#type: "handshake_bucket",
            from_us: text::microseconds(bucket.from_ns),
            below_us: bucket.below_ns.map(text::microseconds),
            count: bucket.count,
            lost_syn: bucket.lost,
            bucket,
            most,
        }
    }
}

impl Row for HandshakeBucketRow {
    const COLUMNS: &'static [&'static str] = &["type", "from_us", "below_us", "count", "lost_syn"];

    fn header(line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        write!(line, "{:>8}   {:>7}", "FROM", "COUNT")
    }

    fn line(&self, line: &mut String, _wide: bool, _time: TimeStyle) -> fmt::Result {
        let from = text::short_duration(self.bucket.from_ns);
        // A sign that stands at every moment when SYNs are sent again.
        let mark = if self.bucket.begins_with_resend() { "╟" } else { "│" };
        let bar = bar(self.count, self.most);
        write!(line, "{from:>8} {mark} {:>7} {bar}", self.count)?;
        if self.bucket.lost > 0 {
            write!(line, " {} lost a SYN", self.bucket.lost)?;
        }
        Ok(())
    }
}

/// A bar in eighths of a character; what is not nothing has one eighth.
fn bar(count: u64, most: u64) -> String {
    let eighths = (count * BAR * 8).checked_div(most).unwrap_or(0).max(u64::from(count > 0));
    let mut bar = "█".repeat(usize::try_from(eighths / 8).unwrap_or(0));
    if let Some(part) = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(usize::try_from(eighths % 8).unwrap_or(0))
    {
        bar.push_str(part);
    }
    bar
}
