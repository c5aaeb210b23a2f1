//! Why a network namespace dropped connection requests.

use std::fmt::{self, Write as _};

use tracer_core::{counted::counted_as, event::Netns};

use crate::{
    host::ListenDrops,
    report::{
        fields::fields,
        row::Row,
        rows::listener::ListenerRow,
        text::{style::Mark, table_style::TableStyle},
    },
};

/// Why a network namespace dropped connection requests during the run.
#[derive(Clone, Copy, Debug)]
pub struct ListenerDropsRow {
    netns: Option<Netns>,
    drops: ListenDrops,
}

impl ListenerDropsRow {
    /// Creates the row of a namespace; `drops` are its counts during the run, none if they are unknown.
    pub fn new(netns: Option<Netns>, drops: Option<ListenDrops>) -> Self {
        Self { netns, drops: drops.unwrap_or_default() }
    }

    /// Returns the causes with a count above zero, in words.
    fn causes(&self) -> Vec<String> {
        let ListenDrops {
            listen_overflows,
            listen_drops,
            syn_queue_full_drops,
            syn_cookies_sent,
            syn_cookies_received,
            syn_cookies_failed,
        } = self.drops;
        [
            (listen_drops, "dropped by listeners", "dropped by listeners"),
            (listen_overflows, "because the accept queue was full", "because the accept queue was full"),
            (syn_queue_full_drops, "because the SYN queue was full", "because the SYN queue was full"),
            (syn_cookies_sent, "SYN cookie sent", "SYN cookies sent"),
            (syn_cookies_received, "SYN cookie received", "SYN cookies received"),
            (syn_cookies_failed, "invalid SYN cookie", "invalid SYN cookies"),
        ]
        .into_iter()
        .filter_map(|(count, one, many)| Some(counted_as(count.filter(|&count| count > 0)?, one, many)))
        .collect()
    }

    /// Returns whether any count is above zero.
    pub fn has_causes(&self) -> bool {
        !self.causes().is_empty()
    }
}

fields! { ListenerDropsRow, |row| {
    /// `listener_drops`
    type: &'static str = "listener_drops";
    /// Inode of the network namespace
    netns: Option<Netns> = row.netns;
    /// SYNs and final ACKs dropped because the accept queue was full (`ListenOverflows`)
    listen_overflows: Option<u64> ["segments"] = row.drops.listen_overflows;
    /// SYNs and final ACKs that listeners dropped for any cause, `listen_overflows` included (`ListenDrops`)
    listen_drops: Option<u64> ["segments"] = row.drops.listen_drops;
    /// SYNs dropped because the SYN queue was full and SYN cookies are off (`TCPReqQFullDrop`)
    syn_queue_full_drops: Option<u64> ["segments"] = row.drops.syn_queue_full_drops;
    /// SYN cookies sent because the SYN queue was full (`SyncookiesSent`)
    syn_cookies_sent: Option<u64> ["segments"] = row.drops.syn_cookies_sent;
    /// Valid SYN cookies that clients returned (`SyncookiesRecv`)
    syn_cookies_received: Option<u64> ["segments"] = row.drops.syn_cookies_received;
    /// Invalid SYN cookies that arrived (`SyncookiesFailed`)
    syn_cookies_failed: Option<u64> ["segments"] = row.drops.syn_cookies_failed;
}}

impl Row for ListenerDropsRow {
    fn header(line: &mut String, style: TableStyle) -> fmt::Result {
        ListenerRow::header(line, style)
    }

    fn line(&self, line: &mut String, style: TableStyle) -> fmt::Result {
        match self.netns {
            Some(netns) => write!(line, "network namespace {netns}: ")?,
            None => line.push_str("this network namespace: "),
        }
        line.push_str(&style.palette.painted(self.causes().join(", "), Mark::Bad));
        Ok(())
    }
}
