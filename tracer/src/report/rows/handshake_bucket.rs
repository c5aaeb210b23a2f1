//! A bucket of the histogram of handshake durations.

use std::fmt::{self, Write as _};

use tracer_core::analysis::Bucket;

use crate::report::{
    fields::fields,
    row::Row,
    text::{
        quantity::{microseconds, short_duration},
        style::Mark,
        table_style::TableStyle,
        table_width::TableWidth,
    },
};

/// Width of the longest bar, characters.
const BAR_WIDTH: u16 = 48;
/// Columns beside the longest bar: the start of the bucket, the counts, and the words behind the bar.
const BESIDE_BAR: u16 = 40;

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
    fn header(line: &mut String, style: TableStyle) -> fmt::Result {
        let title = format!("{:>8}   {:>7}", "FROM", "COUNT");
        line.push_str(&style.palette.painted(title, Mark::Title));
        Ok(())
    }

    fn line(&self, line: &mut String, style: TableStyle) -> fmt::Result {
        let Bucket { count, lost, .. } = self.bucket;
        let from = short_duration(self.bucket.from);
        // Marks the times at which SYNs are retransmitted.
        let mark = if self.bucket.begins_with_retransmit() { "╟" } else { "│" };
        write!(line, "{from:>8} {mark} {count:>7} {}", bar(count, self.max_count, bar_width(style.width)))?;
        if lost > 0 {
            line.push(' ');
            line.push_str(&style.palette.painted(format!("{lost} resent a SYN"), Mark::Warning));
        }
        Ok(())
    }
}

/// Returns the width of the longest bar in a table of this width.
fn bar_width(width: TableWidth) -> u16 {
    match width {
        TableWidth::Fit(width) => width.saturating_sub(BESIDE_BAR).clamp(8, BAR_WIDTH),
        TableWidth::Standard | TableWidth::Wide => BAR_WIDTH,
    }
}

/// Draws a bar in eighths of a character, at least one eighth unless `count` is 0.
fn bar(count: u64, max_count: u64, width: u16) -> String {
    let eighths =
        (count * u64::from(width) * 8).checked_div(max_count).unwrap_or(0).max(u64::from(count > 0));
    let mut bar = "█".repeat(usize::try_from(eighths / 8).unwrap_or(0));
    if let Some(part) = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(usize::try_from(eighths % 8).unwrap_or(0))
    {
        bar.push_str(part);
    }
    bar
}
