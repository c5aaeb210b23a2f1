//! Refuses requests whose Host header names another host, against DNS rebinding.
//!
//! A web page of an attacker may resolve its own name to this host's address. The browser then sends that name as Host
//! and would let the page read the answer. An IP address as Host cannot be rebound.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::uri::Authority;

/// The names under which this host may be addressed.
#[derive(Clone, Debug, Default)]
pub(super) struct HostCheck {
    names: Vec<String>,
}

impl HostCheck {
    /// Permits these names, besides IP addresses and `localhost`.
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect() }
    }

    /// Returns whether a Host header is permitted. HTTP/1.0 requests and those over a Unix socket may have none; browsers
    /// always send it.
    pub(super) fn permits(&self, host: Option<&str>) -> bool {
        let Some(host) = host.filter(|host| !host.is_empty()) else { return true };
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        v6.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
            || name.parse::<Ipv4Addr>().is_ok()
            || name == "localhost"
            || self.names.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_own_names_are_permitted() {
        let check = HostCheck::new(["Node-1".to_owned(), "node-1.example.net".to_owned()]);
        for host in [
            "127.0.0.1:10793",
            "[::1]:10793",
            "localhost",
            "localhost:10793",
            "node-1",
            "NODE-1.example.net.:443",
        ] {
            assert!(check.permits(Some(host)), "{host}");
        }
        for host in
            ["attacker.example", "node-1.attacker.example:10793", "127.0.0.1.attacker.example", "[::1", "a b"]
        {
            assert!(!check.permits(Some(host)), "{host}");
        }
        assert!(check.permits(None));
    }
}
