//! A group of handshakes.

use std::fmt;

use arrayvec::ArrayVec;
use tracer_core::{
    analysis::{GroupReport, HandshakeOutcome},
    event::Nanos,
    lifecycle::SegmentDrop,
};

use crate::report::{
    fields::fields,
    rows::segment_drop::drops,
    text::{
        OrDash, Text,
        handshake::{fault_text, group_name, group_text},
        quantity::{duration, microseconds},
        style::Mark,
        table::table,
    },
};

/// A group of handshakes that share a peer, a process or another key.
#[derive(Clone, Debug)]
pub struct HandshakeGroupRow<'a> {
    group: &'a GroupReport<'a>,
    p50: Option<Nanos>,
    p90: Option<Nanos>,
    p99: Option<Nanos>,
    max: Option<Nanos>,
    faults: Option<String>,
}

/// How many handshakes of a group failed for one reason.
#[derive(Clone, Copy, Debug)]
struct FailureCount {
    reason: HandshakeOutcome,
    count: u64,
}

impl<'a> HandshakeGroupRow<'a> {
    /// Creates the row of a group.
    pub fn new(group: &'a GroupReport<'a>) -> Self {
        let durations = group.stats.durations();
        let faults: Vec<String> = group.score.faults.iter().map(fault_text).collect();
        Self {
            group,
            p50: durations.quantile(0.5),
            p90: durations.quantile(0.9),
            p99: durations.quantile(0.99),
            max: durations.max(),
            faults: (!faults.is_empty()).then(|| faults.join("; ")),
        }
    }

    /// Returns the mark of the faults: those of an offender, or those that cost little.
    fn why_mark(&self) -> Mark {
        if self.group.score.is_offender() { Mark::Bad } else { Mark::Warning }
    }

    fn total(&self) -> Nanos {
        self.group.stats.durations().sum()
    }

    /// Returns the share of [`Self::total`] in percent.
    fn percent(&self, part: Nanos) -> OrDash<Percent> {
        OrDash(part.saturating_mul(100).0.checked_div(self.total().0).map(Percent))
    }

    fn failures(&self) -> Vec<FailureCount> {
        self.group.stats.failures().map(|(reason, count)| FailureCount { reason, count }).collect()
    }
}

fields! { FailureCount, |failure| {
    /// A [close reason](close-reasons.md), or `abandoned`: this host answered, and the client never completed
    reason: &'static str = failure.reason.name();
    /// Handshakes that failed for this reason
    count: u64 ["handshakes"] = failure.count;
}}

fields! { HandshakeGroupRow<'_>, |row| {
    /// `handshake_group`
    type: &'static str = "handshake_group";
    /// The key that the group's handshakes share, chosen by `--by`. `~other` sums up the groups beyond
    /// `--max-groups`
    group: String = group_name(row.group.key);
    /// Handshakes that completed, failed or were abandoned
    count: u64 ["handshakes"] = row.group.stats.count();
    /// Handshakes that completed
    established: u64 ["handshakes"] = row.group.stats.established();
    /// Handshakes that failed or were abandoned
    failed: u64 ["handshakes"] = row.group.stats.not_completed();
    /// `{reason, count}` for each `reason` of `failed`: a [close reason](close-reasons.md), or `abandoned` (this
    /// host answered, and the client never completed). In CSV `refused:12 timed_out:3`
    failures: Vec<FailureCount> = row.failures();
    /// Completed handshakes with a retransmitted SYN; for a server, SYN-ACK
    lost_syn: u64 ["handshakes"] = row.group.stats.retransmitted().0;
    /// Completed handshakes whose retransmissions are known
    lost_syn_known: u64 ["handshakes"] = row.group.stats.retransmitted().1;
    /// Median duration of completed handshakes, within 1 %. Null if none completed
    p50_us: Option<f64> ["us"] = row.p50.map(microseconds);
    /// 90th percentile, within 1 %. Null if none completed
    p90_us: Option<f64> ["us"] = row.p90.map(microseconds);
    /// 99th percentile, within 1 %. Null if none completed
    p99_us: Option<f64> ["us"] = row.p99.map(microseconds);
    /// Longest duration, exact. Null if none completed
    max_us: Option<f64> ["us"] = row.max.map(microseconds);
    /// Sum of all known durations
    total_us: f64 ["us"] = microseconds(row.total());
    /// Part of `total_us` spent in network round trips, if known
    network_us: f64 ["us"] = microseconds(row.group.stats.network());
    /// Part of `total_us` spent waiting for retransmissions of SYNs or SYN-ACKs, if known
    resend_wait_us: f64 ["us"] = microseconds(row.group.stats.retransmit_wait());
    /// Average time lost per handshake, which orders the groups: see [handshakes.md](handshakes.md#the-order)
    cost_us: f64 ["us"] = microseconds(row.group.score.cost);
    /// The group's problem, in words that may change; null if there is none
    why: Option<&str> = row.faults.as_deref();
    /// Segments of the group's handshakes that this host dropped, at most three kinds, as in `connection`
    syn_drops: ArrayVec<SegmentDrop, 3> = drops(row.group.stats.drops());
}}

table! { HandshakeGroupRow<'_>, |row, wide| {
    left 23 "GROUP" = group_text(row.group.key).as_str(), mark Mark::Bad.when(row.group.score.is_offender());
    right 7 "COUNT" = row.group.stats.count();
    right 6 "FAILED" = row.group.stats.not_completed(), mark Mark::Bad.when(row.group.stats.not_completed() > 0);
    right 6 "RESENT" = row.group.stats.retransmitted().0, drop 2, mark Mark::Warning.when(row.group.stats.retransmitted().0 > 0);
    right 8 "P50" = duration(row.p50), drop 1;
    right 8 "P90" = duration(row.p90), drop 5;
    right 8 "P99" = duration(row.p99);
    right 8 "MAX" = duration(row.max), drop 3;
    right 4 "NET" = row.percent(row.group.stats.network()), drop 4;
    right 4 "WAIT" = row.percent(row.group.stats.retransmit_wait()), drop 4;
    left 0 "" = "", if wide;
    left 32 "FAILURES" = FailuresText(&row.failures()), if wide;
    left 0 "" = "";
    left 0 "WHY" = row.faults.as_deref().unwrap_or("-"), least 30, mark row.why_mark();
}}

/// A share in percent.
#[derive(Clone, Copy, Debug)]
struct Percent(u64);

impl Text for Percent {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        self.0.write_to(text)?;
        text.write_char('%')
    }
}

/// Failures by reason, `12 refused, 3 timed_out`, or `-`.
#[derive(Clone, Copy, Debug)]
struct FailuresText<'a>(&'a [FailureCount]);

impl Text for FailuresText<'_> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        if self.0.is_empty() {
            return text.write_char('-');
        }
        for (index, failure) in self.0.iter().enumerate() {
            text.write_str(if index == 0 { "" } else { ", " })?;
            write!(text, "{} {}", failure.count, failure.reason.name())?;
        }
        Ok(())
    }
}
