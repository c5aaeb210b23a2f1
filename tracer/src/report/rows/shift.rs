//! A measure of a group before and after a change.

use tracer_core::{
    analysis::{GroupKey, PeriodShare, Shift},
    lifecycle::CloseReason,
};

use crate::report::{
    fields::fields,
    text::{
        comparison::{measure_text, period_text, probability_text},
        handshake::{group_name, group_text},
        marks::verdict_mark,
        quantity::microseconds,
        table::table,
    },
};

/// A measure of a group before and after a change.
#[derive(Clone, Copy, Debug)]
pub struct ShiftRow<'a> {
    key: &'a GroupKey,
    shift: &'a Shift,
}

impl<'a> ShiftRow<'a> {
    /// Creates the row.
    pub fn new(key: &'a GroupKey, shift: &'a Shift) -> Self {
        Self { key, shift }
    }
}

fn quantile(period: &PeriodShare) -> Option<f64> {
    period.quantile.map(microseconds)
}

fields! { ShiftRow<'_>, |row| {
    /// `shift`
    type: &'static str = "shift";
    /// The key that the group's handshakes and connections share, chosen by `--by`
    group: String = group_name(row.key);
    /// `handshake_failures`, `handshake_loss` (completed handshakes with a retransmitted SYN; for a server, SYN-ACK), `handshake_p50`, `handshake_p99`, `data_loss` (closed connections for which this host retransmitted data) or `close_reason`
    measure: &'static str = row.shift.measure.name();
    /// The [close reason](close-reasons.md) that a `close_reason` is about; null for other measures
    close_reason: Option<&'static str> = row.shift.measure.close_reason().map(CloseReason::name);
    /// `worse`, `better`, `changed` (a shift that is neither), `not_proven` or `too_few` (no result could be a proof)
    verdict: &'static str = row.shift.verdict.name();
    /// Handshakes or connections before the change that the measure counts; for a quantile, those above the quantile of both periods together
    before_count: u64 = row.shift.before.count;
    /// Handshakes or connections before the change for which this is known
    before_of: u64 = row.shift.before.of;
    /// As `before_count`, after the change
    after_count: u64 = row.shift.after.count;
    /// As `before_of`, after the change
    after_of: u64 = row.shift.after.of;
    /// The quantile before the change, exact; null for other measures
    before_us: Option<f64> ["us"] = quantile(&row.shift.before);
    /// The quantile after the change, exact; null for other measures
    after_us: Option<f64> ["us"] = quantile(&row.shift.after);
    /// How much more the share varies between time slices of a period than independent events do; at least 1
    design_effect: f64 = row.shift.design_effect;
    /// Probability of such a difference without a shift, from 0 to 1
    p_value: f64 = row.shift.p_value;
    /// `p_value`, corrected for the number of tests; a shift is claimed up to 0.01
    adjusted_p_value: f64 = row.shift.adjusted_p_value;
}}

table! { ShiftRow<'_>, |row, wide| {
    left 10 "VERDICT" = row.shift.verdict.name(), mark verdict_mark(row.shift.verdict);
    left 23 "GROUP" = group_text(row.key).as_str();
    left 23 "MEASURE" = measure_text(row.shift.measure).as_str();
    right 9 "BEFORE" = period_text(&row.shift.before).as_str();
    right 9 "AFTER" = period_text(&row.shift.after).as_str();
    right 8 "N BEFORE" = row.shift.before.of, drop 2;
    right 8 "N AFTER" = row.shift.after.of, drop 2;
    right 8 "P" = probability_text(row.shift.adjusted_p_value).as_str(), drop 1;
}}
