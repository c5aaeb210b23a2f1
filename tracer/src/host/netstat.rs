//! The counters of a network namespace that explain dropped connection requests, from `/proc/net/netstat`.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Largest file that is read. It has 8 KiB in 6.18.
const MAX_BYTES: usize = 256 << 10;

/// Why a network namespace dropped connection requests: counters of `TcpExt`. None where the kernel has no such counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenDrops {
    /// SYNs and final ACKs dropped because the accept queue was full (`ListenOverflows`).
    pub listen_overflows: Option<u64>,
    /// SYNs and final ACKs that listeners dropped for any cause (`ListenDrops`).
    pub listen_drops: Option<u64>,
    /// SYNs dropped because the SYN queue was full and SYN cookies are off (`TCPReqQFullDrop`).
    pub syn_queue_full_drops: Option<u64>,
    /// SYN cookies sent (`SyncookiesSent`).
    pub syn_cookies_sent: Option<u64>,
    /// Valid SYN cookies received (`SyncookiesRecv`).
    pub syn_cookies_received: Option<u64>,
    /// Invalid SYN cookies received (`SyncookiesFailed`).
    pub syn_cookies_failed: Option<u64>,
}

impl ListenDrops {
    /// Returns the counters in the text of `/proc/net/netstat`: for each group a line of names and a line of values.
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let value = |name: &str| {
            let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
            pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok())
        };
        Self {
            listen_overflows: value("ListenOverflows"),
            listen_drops: value("ListenDrops"),
            syn_queue_full_drops: value("TCPReqQFullDrop"),
            syn_cookies_sent: value("SyncookiesSent"),
            syn_cookies_received: value("SyncookiesRecv"),
            syn_cookies_failed: value("SyncookiesFailed"),
        }
    }

    /// Returns the counts since `earlier`. The kernel's counters wrap.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let count = |counter: fn(&Self) -> Option<u64>| {
            counter(self).zip(counter(earlier)).map(|(now, before)| now.wrapping_sub(before))
        };
        Self {
            listen_overflows: count(|it| it.listen_overflows),
            listen_drops: count(|it| it.listen_drops),
            syn_queue_full_drops: count(|it| it.syn_queue_full_drops),
            syn_cookies_sent: count(|it| it.syn_cookies_sent),
            syn_cookies_received: count(|it| it.syn_cookies_received),
            syn_cookies_failed: count(|it| it.syn_cookies_failed),
        }
    }
}

/// The open `netstat` file of a network namespace. It can be read again without privileges.
#[derive(Debug)]
pub(crate) struct NetstatFile(File);

impl NetstatFile {
    /// Opens the file of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The error of `open`.
    pub(crate) fn here() -> io::Result<Self> {
        File::open("/proc/thread-self/net/netstat").map(Self)
    }

    /// Returns the counters now.
    ///
    /// # Errors
    ///
    /// The error of `read`.
    pub(crate) fn read(&self) -> io::Result<ListenDrops> {
        let mut bytes = vec![0; 16 << 10];
        let mut length = 0;
        // A read from the start makes the kernel write the file again.
        loop {
            let read = self.0.read_at(&mut bytes[length..], length as u64)?;
            length += read;
            if read == 0 || length >= MAX_BYTES {
                return Ok(ListenDrops::parse(&String::from_utf8_lossy(&bytes[..length])));
            }
            if length == bytes.len() {
                bytes.resize(2 * length, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed ListenOverflows ListenDrops TCPReqQFullDrop\n\
                    TcpExt: 1 2 3 4 18446744073709551615 6\n\
                    IpExt: InNoRoutes ListenDrops\nIpExt: 7 8\n";
        let counters = ListenDrops::parse(text);
        let expected = ListenDrops {
            listen_overflows: Some(4),
            listen_drops: Some(u64::MAX),
            syn_queue_full_drops: Some(6),
            syn_cookies_sent: Some(1),
            syn_cookies_received: Some(2),
            syn_cookies_failed: Some(3),
        };
        assert_eq!(counters, expected);
        let later = ListenDrops {
            listen_drops: Some(2),
            syn_cookies_sent: Some(5),
            syn_cookies_failed: None,
            ..expected
        };
        let during = ListenDrops {
            listen_overflows: Some(0),
            listen_drops: Some(3),
            syn_queue_full_drops: Some(0),
            syn_cookies_sent: Some(4),
            syn_cookies_received: Some(0),
            syn_cookies_failed: None,
        };
        assert_eq!(later.since(&expected), during);
    }

    #[test]
    fn missing_and_damaged_counters_are_unknown() {
        for text in [
            "",
            "TcpExt: ListenOverflows\n",
            "TcpExt: ListenOverflows\nTcpExt: many\n",
            "TcpExt: A ListenOverflows\nTcpExt: 1\n",
            "IpExt: ListenOverflows\nIpExt: 1\n",
            "TcpExt: ListenOverflows\nTcpExt: -1\n",
        ] {
            assert_eq!(ListenDrops::parse(text), ListenDrops::default(), "{text:?}");
        }
    }

    #[test]
    fn the_file_of_this_namespace_is_read_again() {
        let file = NetstatFile::here().unwrap();
        let first = file.read().unwrap();
        assert!(first.listen_drops.is_some(), "{first:?}");
        assert!(file.read().unwrap().since(&first).listen_overflows.is_some());
    }
}
