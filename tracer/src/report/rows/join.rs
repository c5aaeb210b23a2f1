//! How two recordings fit together.

use tracer_core::analysis::{ClockBounds, ClockEstimate, JoinCounts};
use tracer_core::event::{ClockOffset, Timestamp};

use crate::report::{
    fields::fields,
    text::{
        joined::JoinHosts,
        name::EscapedText,
        table::table,
        wall_time::{Rfc3339, rfc3339},
    },
};

/// The counts of a join, and the offset of the clocks.
#[derive(Clone, Copy, Debug)]
pub struct JoinRow<'a> {
    counts: &'a JoinCounts,
    clock: Option<&'a ClockEstimate>,
    hosts: &'a JoinHosts,
}

impl<'a> JoinRow<'a> {
    /// Creates the row.
    pub fn new(counts: &'a JoinCounts, clock: Option<&'a ClockEstimate>, hosts: &'a JoinHosts) -> Self {
        Self { counts, clock, hosts }
    }

    fn middle(&self, bounds: impl FnOnce(&ClockEstimate) -> ClockBounds) -> Option<f64> {
        self.clock.map(|clock| signed_microseconds(bounds(clock).middle()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days, then to the microsecond")]
fn signed_microseconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1000.0
}

fields! { JoinRow<'_>, |row| {
    /// `join`
    type: &'static str = "join";
    /// Name of the host whose recording is `--input`
    this_host: EscapedText<'_> = EscapedText(row.hosts.this.as_bytes());
    /// Name of the host whose recording is `--join`
    other_host: EscapedText<'_> = EscapedText(row.hosts.other.as_bytes());
    /// Handshakes with both ends, whatever the filters show
    matched: u64 ["handshakes"] = row.counts.matched();
    /// Handshakes of `matched` whose ends have the same two initial sequence numbers
    by_sequence_numbers: u64 ["handshakes"] = row.counts.by_sequences;
    /// Handshakes of `matched` whose client got no answer: the ends have the client's number and a port in common
    by_client_sequence_number: u64 ["handshakes"] = row.counts.by_client_sequence;
    /// Handshakes of `matched` that were refused because nobody listens: the ends have endpoints and time in common
    by_endpoints: u64 ["handshakes"] = row.counts.by_endpoints;
    /// Clients that failed at the other host, which has no handshake of them
    without_trace: u64 ["handshakes"] = row.counts.without_trace;
    /// Handshakes in which a segment was certainly lost
    with_loss: u64 ["handshakes"] = row.counts.with_loss;
    /// Ends of handshakes in the recording of this host
    this_handshakes: u64 ["handshakes"] = row.counts.this.handshakes;
    /// Ends without the other end
    this_unmatched: u64 ["handshakes"] = row.counts.this.unmatched;
    /// Ends for which several other ends fit
    this_ambiguous: u64 ["handshakes"] = row.counts.this.ambiguous;
    /// Ends without initial sequence numbers
    this_without_numbers: u64 ["handshakes"] = row.counts.this.without_numbers;
    /// Ends beyond the limit of one million
    this_beyond_limit: u64 ["handshakes"] = row.counts.this.beyond_limit;
    /// As `this_handshakes`, of the other host
    other_handshakes: u64 ["handshakes"] = row.counts.other.handshakes;
    /// As `this_unmatched`, of the other host
    other_unmatched: u64 ["handshakes"] = row.counts.other.unmatched;
    /// As `this_ambiguous`, of the other host
    other_ambiguous: u64 ["handshakes"] = row.counts.other.ambiguous;
    /// As `this_without_numbers`, of the other host
    other_without_numbers: u64 ["handshakes"] = row.counts.other.without_numbers;
    /// As `this_beyond_limit`, of the other host
    other_beyond_limit: u64 ["handshakes"] = row.counts.other.beyond_limit;
    /// How far the other host's clock is ahead of this host's; negative if it is behind. Null without a completed handshake that has both ends
    clock_offset_us: Option<f64> ["us"] = row.middle(|clock| clock.bounds);
    /// How far the true offset may be from `clock_offset_us`
    clock_offset_uncertainty_us: Option<f64> ["us"] =
        row.clock.map(|clock| signed_microseconds(clock.bounds.uncertainty()));
    /// When these bounds hold, on this host's clock
    clock_offset_time: Option<Rfc3339> ["ns"] =
        row.clock.map(|clock| rfc3339(Timestamp(0), ClockOffset { to_utc_ns: clock.at().into() }));
    /// The offset at the first handshake with both ends
    clock_offset_first_us: Option<f64> ["us"] = row.middle(|clock| clock.first);
    /// The offset at the last one
    clock_offset_last_us: Option<f64> ["us"] = row.middle(|clock| clock.last);
    /// Handshakes that contradict the earlier ones: a clock was set, or drifted by more than 200 ppm
    clock_contradictions: Option<u64> ["handshakes"] = row.clock.map(|clock| clock.contradictions);
}}

// Tables have the same in sentences: see `join_summary`.
table! { JoinRow<'_>, |row, wide| {
    right 9 "MATCHED" = row.counts.matched();
    right 9 "LOST" = row.counts.with_loss;
}}
