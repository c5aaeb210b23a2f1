//! The sums of a comparison.

use tracer_core::analysis::{ComparePeriod, CompareReport, SIGNIFICANCE, Verdict};

use crate::report::{
    fields::fields,
    text::{comparison::ComparedHosts, name::EscapedText, table::table},
};

/// The sums of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct ComparisonRow<'a> {
    report: &'a CompareReport<'a>,
    before: &'a ComparePeriod,
    after: &'a ComparePeriod,
    hosts: &'a ComparedHosts,
}

impl<'a> ComparisonRow<'a> {
    /// Creates the row.
    pub fn new(
        report: &'a CompareReport<'a>,
        before: &'a ComparePeriod,
        after: &'a ComparePeriod,
        hosts: &'a ComparedHosts,
    ) -> Self {
        Self { report, before, after, hosts }
    }

    /// Returns the number of handshakes before and after.
    pub(in crate::report) fn handshakes(&self) -> (u64, u64) {
        (self.before.handshakes(), self.after.handshakes())
    }

    /// Returns the handshakes and closes beyond the limit.
    pub(in crate::report) fn beyond_limit(&self) -> u64 {
        self.before.beyond_limit().saturating_add(self.after.beyond_limit())
    }
}

fields! { ComparisonRow<'_>, |row| {
    /// `comparison`
    type: &'static str = "comparison";
    /// Name of the host of BEFORE
    before_host: EscapedText<'_> = EscapedText(row.hosts.before.as_bytes());
    /// Name of the host of AFTER, or of this host
    after_host: EscapedText<'_> = EscapedText(row.hosts.after.as_bytes());
    /// Handshakes before the change
    before_handshakes: u64 ["handshakes"] = row.before.handshakes();
    /// Handshakes after the change
    after_handshakes: u64 ["handshakes"] = row.after.handshakes();
    /// Closed connections before the change that had been established
    before_closed: u64 ["connections"] = row.before.closes();
    /// The same after the change
    after_closed: u64 ["connections"] = row.after.closes();
    /// Groups that both periods have
    groups: u64 ["groups"] = row.report.groups.len() as u64;
    /// Groups that only BEFORE has; nothing is claimed about them
    only_before: u64 ["groups"] = row.report.only_before;
    /// Groups that only AFTER has
    only_after: u64 ["groups"] = row.report.only_after;
    /// Tests with enough events for a claim
    tests: u64 ["tests"] = row.report.tests;
    /// Probability of any false claim, at most
    significance: f64 = SIGNIFICANCE;
    /// Shifts with the verdict `worse`
    worse: u64 ["shifts"] = row.report.count(Verdict::Worse);
    /// Shifts with the verdict `better`
    better: u64 ["shifts"] = row.report.count(Verdict::Better);
    /// Shifts with the verdict `changed`
    changed: u64 ["shifts"] = row.report.count(Verdict::Changed);
    /// Handshakes and closes beyond the limit of two million each in a period, which are not compared
    beyond_limit: u64 = row.beyond_limit();
}}

// Tables have the same in sentences: see `CompareTable`.
table! { ComparisonRow<'_>, |row, wide| {
    right 6 "WORSE" = row.report.count(Verdict::Worse);
    right 6 "BETTER" = row.report.count(Verdict::Better);
}}
