//! The report of `handshakes --join` as text.

use std::fmt;

use tracer_core::analysis::JoinReport;

use crate::report::{
    row::Row as _,
    rows::joined_handshake::JoinedHandshakeRow,
    text::{
        joined::{JoinHosts, join_summary},
        table::append_line,
        table_style::TableStyle,
    },
};

/// Options of the report.
#[derive(Clone, Copy, Debug)]
pub struct JoinTable<'a> {
    /// The most handshakes to list.
    pub slowest: usize,
    /// The look. Wide, it has the endpoints as the server sees them, and the one-way times.
    pub style: TableStyle,
    /// The names of the hosts.
    pub hosts: &'a JoinHosts,
}

impl JoinTable<'_> {
    /// Writes the report: how the recordings fit together, and the slowest handshakes.
    ///
    /// # Errors
    ///
    /// None: writing to a string does not fail.
    pub fn write(&self, report: &JoinReport<'_>, text: &mut String) -> fmt::Result {
        for line in join_summary(&report.counts, report.clock.as_ref(), self.hosts) {
            text.push_str(&self.style.width.wrapped(&line, 2));
            text.push('\n');
        }
        if report.handshakes.is_empty() {
            return Ok(());
        }
        text.push('\n');
        append_line(text, self.style.width, |line| JoinedHandshakeRow::header(line, self.style))?;
        for joined in report.handshakes.iter().take(self.slowest) {
            let row = JoinedHandshakeRow::new(joined, self.hosts);
            append_line(text, self.style.width, |line| row.line(line, self.style))?;
        }
        Ok(())
    }
}
