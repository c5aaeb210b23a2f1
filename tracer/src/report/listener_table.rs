//! The report of `listeners` as text.

use std::fmt;

use crate::report::{
    row::Row as _,
    rows::{listener::ListenerRow, listener_drops::ListenerDropsRow},
    text::{table::append_line, table_style::TableStyle},
};

/// The listeners, the worst first, and the causes of the drops in each network namespace.
#[derive(Clone, Debug)]
pub struct ListenerTable<'a> {
    /// The listeners to show.
    pub listeners: Vec<ListenerRow<'a>>,
    /// How many more listeners there are.
    pub more: usize,
    /// The network namespaces of the listeners.
    pub drops: Vec<ListenerDropsRow>,
    /// The look. Wide, it has the network namespace of each listener.
    pub style: TableStyle,
}

impl ListenerTable<'_> {
    /// Writes the report.
    ///
    /// # Errors
    ///
    /// None: writing to a string does not fail.
    pub fn write(&self, text: &mut String) -> fmt::Result {
        let style = self.style;
        append_line(text, style.width, |line| ListenerRow::header(line, style))?;
        for row in &self.listeners {
            append_line(text, style.width, |line| row.line(line, style))?;
        }
        if self.listeners.is_empty() && self.more == 0 {
            text.push_str("no listening sockets\n");
        }
        if self.more > 0 {
            append_line(text, style.width, |line| {
                fmt::Write::write_fmt(line, format_args!("and {} more", self.more))
            })?;
        }
        let mut gap = "\n";
        for row in self.drops.iter().filter(|row| row.has_causes()) {
            text.push_str(std::mem::take(&mut gap));
            append_line(text, style.width, |line| row.line(line, style))?;
        }
        Ok(())
    }
}
