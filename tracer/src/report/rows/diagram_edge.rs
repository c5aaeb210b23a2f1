//! An edge of the state diagram.

use tracer_core::{
    analysis::{Edge, EdgeStats, is_pathological},
    event::Nanos,
};

use crate::report::{
    fields::fields,
    text::{
        marks::entered_mark,
        quantity::{duration, microseconds},
        style::Mark,
        table::table,
    },
};

/// An edge of the state diagram, with the connections that took it.
#[derive(Clone, Copy, Debug)]
pub struct DiagramEdgeRow {
    edge: Edge,
    count: u64,
    failures: u64,
    p50: Option<Nanos>,
    p99: Option<Nanos>,
    max: Option<Nanos>,
}

impl DiagramEdgeRow {
    /// Creates the row of an edge.
    pub fn new(edge: Edge, stats: &EdgeStats) -> Self {
        let durations = &stats.durations;
        Self {
            edge,
            count: stats.count,
            failures: stats.failures,
            p50: durations.quantile(0.5),
            p99: durations.quantile(0.99),
            max: durations.max(),
        }
    }
}

fields! { DiagramEdgeRow, |row| {
    /// `diagram_edge`
    type: &'static str = "diagram_edge";
    /// State left
    from: &'static str = row.edge.0.name();
    /// State entered. `time_wait` also where the kernel replaces the socket by a timewait socket, without a
    /// transition
    to: &'static str = row.edge.1.name();
    /// Connections that took the edge
    count: u64 ["connections"] = row.count;
    /// Connections of `count` that closed there with a [failure](close-reasons.md)
    failures: u64 ["connections"] = row.failures;
    /// Median time in the state left, within 1 %. Null if unknown
    p50_us: Option<f64> ["us"] = row.p50.map(microseconds);
    /// 99th percentile of that time, within 1 %. Null if unknown
    p99_us: Option<f64> ["us"] = row.p99.map(microseconds);
    /// Longest such time, exact. Null if unknown
    max_us: Option<f64> ["us"] = row.max.map(microseconds);
    /// State left: `from` under the name that transitions and recordings have
    from_state: &'static str = row.edge.0.name();
    /// State entered: `to` under that name
    to_state: &'static str = row.edge.1.name();
}}

table! { DiagramEdgeRow, |row, wide| {
    left 11 "FROM" = row.edge.0.kernel_name();
    left 1 "" = if is_pathological(row.edge) { "✕" } else { "→" }, mark Mark::Bad.when(is_pathological(row.edge));
    left 11 "TO" = row.edge.1.kernel_name(), mark entered_mark(row.edge.0, row.edge.1);
    right 8 "COUNT" = row.count;
    right 8 "FAILED" = row.failures, mark Mark::Bad.when(row.failures > 0);
    right 9 "P50" = duration(row.p50);
    right 9 "P99" = duration(row.p99);
    right 9 "MAX" = duration(row.max);
}}
