//! The report of `handshakes` as text.

use std::fmt::{self, Write as _};

use tracer_core::{
    analysis::{Fault, HandshakeReport, Histogram},
    counted::counted,
    event::ClockOffset,
};

use crate::report::{
    row::Row as _,
    rows::{
        handshake_bucket::HandshakeBucketRow, handshake_group::HandshakeGroupRow,
        slow_handshake::SlowHandshakeRow,
    },
    text::{
        handshake::{fault_text, group_text},
        quantity::spaced_duration,
        style::{Mark, Palette},
        table::append_line,
        table_style::TableStyle,
    },
};

/// Options of the report.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeTable {
    /// The most groups to list.
    pub groups: usize,
    /// The look. Wide, it has the failures by reason.
    pub style: TableStyle,
    /// The traced host's clock.
    pub clock: ClockOffset,
}

/// Groups that the first line names.
const NAMED: usize = 5;

impl HandshakeTable {
    /// Writes the report: the worst offenders, the groups, the slowest handshakes, and the histogram.
    ///
    /// # Errors
    ///
    /// None: writing to a string does not fail.
    pub fn write(&self, report: &HandshakeReport<'_>, text: &mut String) -> fmt::Result {
        let style = self.style;
        text.push_str(&style.width.wrapped(&headline(report, style.palette), 2));
        text.push('\n');
        append_line(text, style.width, |line| HandshakeGroupRow::header(line, style))?;
        for group in report.groups.iter().take(self.groups) {
            let row = HandshakeGroupRow::new(group);
            append_line(text, style.width, |line| row.line(line, style))?;
        }
        if report.groups.len() > self.groups {
            let more = &report.groups[self.groups..];
            let count: u64 = more.iter().map(|group| group.stats.count()).sum();
            let groups = counted(more.len(), "more group");
            writeln!(text, "and {groups} with {}", counted(count, "handshake"))?;
        }
        if !report.slowest.is_empty() {
            text.push('\n');
            append_line(text, style.width, |line| SlowHandshakeRow::header(line, style))?;
            for (key, attempt) in report.slowest {
                let row = SlowHandshakeRow::new(key, attempt, self.clock);
                append_line(text, style.width, |line| row.line(line, style))?;
            }
        }
        let drawn = histogram_lines(report.histogram, style);
        if !drawn.is_empty() {
            writeln!(text, "\n{}", drawn.join("\n"))?;
        }
        Ok(())
    }
}

/// Draws the histogram; returns no lines if it is empty.
pub fn histogram_lines(histogram: &Histogram, style: TableStyle) -> Vec<String> {
    let max_count = histogram.buckets().map(|bucket| bucket.count).max().unwrap_or(0);
    if max_count == 0 {
        return Vec::new();
    }
    let mut head = String::new();
    // Writing to a string does not fail.
    let _ = HandshakeBucketRow::header(&mut head, style);
    let mut lines = vec![head];
    for bucket in histogram.buckets() {
        let mut line = String::new();
        let _ = HandshakeBucketRow::new(bucket, max_count).line(&mut line, style);
        lines.push(line.trim_end().to_owned());
    }
    if histogram.buckets().any(|bucket| bucket.begins_with_retransmit()) {
        lines.push("         ╟ SYNs and SYN-ACKs are retransmitted here".to_owned());
    }
    lines
}

/// Names the worst offenders in one line, or sums up a host without any.
fn headline(report: &HandshakeReport<'_>, palette: Palette) -> String {
    let offenders: Vec<String> = report
        .groups
        .iter()
        .filter(|group| group.score.is_offender())
        .take(NAMED)
        .map(|group| {
            let (first, more) =
                group.score.faults.split_first().map_or((None, &[][..]), |(it, more)| (Some(it), more));
            // The most serious kind, and what this host itself contributes.
            let own = more.iter().find(|fault| matches!(fault, Fault::Dropping { .. }));
            let why: Vec<String> = first.into_iter().chain(own).map(fault_text).collect();
            format!("{} ({})", palette.painted(group_text(group.key), Mark::Bad), why.join("; "))
        })
        .collect();
    if !offenders.is_empty() {
        return format!("{} {}", palette.painted("Worst offenders:", Mark::Bad), offenders.join(", "));
    }
    let total = report.total;
    if total.count() == 0 {
        return "No handshake was seen".to_owned();
    }
    let median = report
        .host_median
        .map(|host| format!(", host's median {}", spaced_duration(host)))
        .unwrap_or_default();
    let unserved = match total.unserved() {
        0 => String::new(),
        count => format!(" ({count} refused because nobody listens)"),
    };
    format!(
        "{} {}, {} failed{unserved}, {} resent a SYN{median}",
        palette.painted("Nothing stands out:", Mark::Good),
        counted(total.count(), "handshake"),
        total.not_completed(),
        total.retransmitted().0
    )
}
