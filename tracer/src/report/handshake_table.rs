//! The report of `handshakes` for people.

use std::fmt::{self, Write as _};

use tracer_core::{
    analysis::{HandshakeReport, Histogram},
    event::ClockOffset,
};

use crate::report::{
    HandshakeBucketRow, HandshakeGroupRow, SlowHandshakeRow, TimeStyle,
    handshake_words::{fault, group_text, time},
    sink::Row,
};

/// How the report is written.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeTable {
    /// Most groups.
    pub groups: usize,
    /// With the failures by reason.
    pub wide: bool,
    /// How times of day are shown.
    pub time: TimeStyle,
    /// The traced host's clock.
    pub clock: ClockOffset,
}

/// Most groups that the first line names.
const NAMED: usize = 5;

impl HandshakeTable {
    /// Writes the report. The first line names the groups that are to blame, and the lines after the header are
    /// theirs.
    ///
    /// # Errors
    ///
    /// None of its own: writing to a string does not fail.
    pub fn write(&self, report: &HandshakeReport<'_>, text: &mut String) -> fmt::Result {
        text.push_str(&headline(report));
        text.push('\n');
        Self::line(text, |line| HandshakeGroupRow::header(line, self.wide, self.time))?;
        for group in report.groups.iter().take(self.groups) {
            let row = HandshakeGroupRow::new(group);
            Self::line(text, |line| row.line(line, self.wide, self.time))?;
        }
        if report.groups.len() > self.groups {
            let more = &report.groups[self.groups..];
            let count: u64 = more.iter().map(|group| group.stats.count()).sum();
            writeln!(text, "and {} more groups with {count} handshakes", more.len())?;
        }
        if !report.slowest.is_empty() {
            text.push('\n');
            Self::line(text, |line| SlowHandshakeRow::header(line, self.wide, self.time))?;
            for (key, opening) in report.slowest {
                let row = SlowHandshakeRow::new(key, opening, self.clock);
                Self::line(text, |line| row.line(line, self.wide, self.time))?;
            }
        }
        let drawn = histogram_lines(report.histogram);
        if !drawn.is_empty() {
            writeln!(text, "\n{}", drawn.join("\n"))?;
        }
        Ok(())
    }

    fn line(text: &mut String, write: impl FnOnce(&mut String) -> fmt::Result) -> fmt::Result {
        write(text)?;
        text.truncate(text.trim_end().len());
        text.push('\n');
        Ok(())
    }
}

/// The histogram, drawn; nothing when there is nothing in it.
pub fn histogram_lines(histogram: &Histogram) -> Vec<String> {
    let most = histogram.buckets().map(|bucket| bucket.count).max().unwrap_or(0);
    if most == 0 {
        return Vec::new();
    }
    let mut head = String::new();
    // Writing to a string does not fail.
    let _ = HandshakeBucketRow::header(&mut head, false, TimeStyle::None);
    let mut lines = vec![head];
    for bucket in histogram.buckets() {
        let mut line = String::new();
        let _ = HandshakeBucketRow::new(bucket, most).line(&mut line, false, TimeStyle::None);
        lines.push(line.trim_end().to_owned());
    }
    if histogram.buckets().any(|bucket| bucket.begins_with_resend()) {
        lines.push("         ╟ here SYNs and SYN-ACKs are sent again".to_owned());
    }
    lines
}

/// Who is to blame, in one line.
fn headline(report: &HandshakeReport<'_>) -> String {
    let culprits: Vec<String> = report
        .groups
        .iter()
        .filter(|group| group.culprit.is_one())
        .take(NAMED)
        .map(|group| {
            let why = group.culprit.faults.first().map(fault).unwrap_or_default();
            format!("{} ({why})", group_text(group.key))
        })
        .collect();
    if !culprits.is_empty() {
        return format!("Culprits: {}", culprits.join(", "));
    }
    let total = report.total;
    if total.count() == 0 {
        return "No handshake was seen".to_owned();
    }
    let usual = report.host_ns.map(|host| format!(", host's median {}", time(host))).unwrap_or_default();
    format!(
        "Nothing stands out: {} handshakes, {} failed, {} lost a SYN{usual}",
        total.count(),
        total.not_completed(),
        total.lost_a_syn().0
    )
}
