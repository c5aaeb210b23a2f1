//! A bucket of the histogram of handshake durations.

use std::fmt::{self, Write as _};

use tracer_core::analysis::Bucket;

use crate::report::{
    fields::fields,
    row::Row,
    text::{
        quantity::{microseconds, short_duration},
        table_width::TableWidth,
        wall_time::TimeStyle,
    },
};

/// Width of the longest bar, characters.
const BAR_WIDTH: u64 = 48;

/// A bucket of the histogram of handshake durations.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeBucketRow {
    bucket: Bucket,
    max_count: u64,
}

impl HandshakeBucketRow {
    /// Creates the row of a bucket; `max_count` is the count of the fullest bucket, which scales the bars.
    pub fn new(bucket: Bucket, max_count: u64) -> Self {
        Self { bucket, max_count }
    }
}

fields! { HandshakeBucketRow, |row| {
    /// `handshake_bucket`
    type: &'static str = "handshake_bucket";
    /// Lower bound of the durations, inclusive
    from_us: f64 ["us"] = microseconds(row.bucket.from);
    /// Upper bound, exclusive; null for the last bucket
    below_us: Option<f64> ["us"] = row.bucket.below.map(microseconds);
    /// Handshakes in the bucket
    count: u64 ["handshakes"] = row.bucket.count;
    /// Handshakes of `count` with a retransmitted SYN or SYN-ACK
    lost_syn: u64 ["handshakes"] = row.bucket.lost;
}}

impl Row for HandshakeBucketRow {
    fn header(line: &mut String, _width: TableWidth, _time: TimeStyle) -> fmt::Result {
        write!(line, "{:>8}   {:>7}", "FROM", "COUNT")
    }

    fn line(&self, line: &mut String, _width: TableWidth, _time: TimeStyle) -> fmt::Result {
        let Bucket { count, lost, .. } = self.bucket;
        let from = short_duration(self.bucket.from);
        // Marks the times at which SYNs are retransmitted.
        let mark = if self.bucket.begins_with_retransmit() { "╟" } else { "│" };
        write!(line, "{from:>8} {mark} {count:>7} {}", bar(count, self.max_count))?;
        if lost > 0 {
            write!(line, " {lost} resent a SYN")?;
        }
        Ok(())
    }
}

/// Draws a bar in eighths of a character, at least one eighth unless `count` is 0.
fn bar(count: u64, max_count: u64) -> String {
    let eighths = (count * BAR_WIDTH * 8).checked_div(max_count).unwrap_or(0).max(u64::from(count > 0));
    let mut bar = "█".repeat(usize::try_from(eighths / 8).unwrap_or(0));
    if let Some(part) = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(usize::try_from(eighths % 8).unwrap_or(0))
    {
        bar.push_str(part);
    }
    bar
}
