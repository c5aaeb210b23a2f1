//! The lists behind the labels `remote_cidr` and `service`: names of networks, and services by port.

use std::{cmp::Reverse, net::IpAddr};

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::report::{PortSet, parse_network};

/// Most entries of a list. Every connection is compared with each service.
const MAX_ENTRIES: usize = 1000;

/// A line of a list that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// The line, from 1.
    pub line: usize,
    /// The mistake and its remedy.
    pub reason: String,
}

/// Names of networks. The narrowest network that contains an address names it.
#[derive(Debug, Default)]
pub struct Networks {
    ipv4: Prefixes,
    ipv6: Prefixes,
}

/// The names of networks by their first address, for each prefix length; the longest prefix comes first.
type Prefixes = Vec<(u8, HashMap<IpAddr, String, foldhash::fast::RandomState>)>;

impl Networks {
    /// Parses a list of one network per line: `10.0.0.0/8 office`. A network without a name is its own name.
    ///
    /// # Errors
    ///
    /// The first line that is not a network, or that exceeds the limit of 1000 entries.
    pub fn parse(list: &str) -> Result<Self, LineError> {
        let list = entries(list, |line| {
            let (network, name) = line.split_once(char::is_whitespace).unwrap_or((line, line));
            Ok((parse_network(network)?.trunc(), name.trim().to_owned()))
        })?;
        let mut networks = Self::default();
        for (network, name) in list {
            let prefixes = if network.addr().is_ipv4() { &mut networks.ipv4 } else { &mut networks.ipv6 };
            let length = network.prefix_len();
            let index = prefixes.binary_search_by_key(&Reverse(length), |(it, _)| Reverse(*it));
            let index = index.unwrap_or_else(|index| {
                prefixes.insert(index, (length, HashMap::default()));
                index
            });
            prefixes[index].1.entry(network.addr()).or_insert(name);
        }
        Ok(networks)
    }

    /// Returns the name of the narrowest network that contains an address; empty when no network does.
    pub(super) fn of(&self, address: IpAddr) -> &str {
        let prefixes = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let names = prefixes.iter().filter_map(|(length, networks)| {
            networks.get(&IpNet::new(address, *length).ok()?.trunc().addr())
        });
        names.map(String::as_str).next().unwrap_or_default()
    }
}

/// Services and their ports. The first service that lists a port names it.
#[derive(Debug, Default)]
pub struct Services(Vec<(String, PortSet)>);

impl Services {
    /// Parses a list of one service per line: `web 80,443,8000-8099`.
    ///
    /// # Errors
    ///
    /// The first line without a name or valid ports, or that exceeds the limit of 1000 entries.
    pub fn parse(list: &str) -> Result<Self, LineError> {
        entries(list, |line| {
            let (name, ports) = line.split_once(char::is_whitespace).ok_or_else(|| {
                format!("`{line}` has no ports: write a name and ports, as in `web 80,443`")
            })?;
            Ok((name.to_owned(), ports.trim().parse()?))
        })
        .map(Self)
    }

    /// Returns the service on a server's port; empty when no service lists the port.
    pub(super) fn of(&self, port: u16) -> &str {
        self.0.iter().find(|(_, ports)| ports.contains(port)).map_or("", |(name, _)| name)
    }
}

/// Parses the lines of a list. Blank lines and `#` comments are skipped.
fn entries<T>(list: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, LineError> {
    let mut parsed = Vec::new();
    for (index, line) in list.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let error = |reason| LineError { line: index + 1, reason };
        if parsed.len() == MAX_ENTRIES {
            return Err(error(format!("more than {MAX_ENTRIES} entries: merge some of them")));
        }
        parsed.push(parse(line).map_err(error)?);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_network_names_an_address() {
        let networks = Networks::parse(
            "# offices\n10.0.0.0/8 inside\n10.1.0.0/16 berlin office\n\n2001:db8::/32\n10.9.8.7/16 x # host\n",
        )
        .unwrap();
        let of = |address: &str| networks.of(address.parse().unwrap());
        assert_eq!((of("10.1.2.3"), of("10.2.0.1")), ("berlin office", "inside"));
        assert_eq!((of("2001:db8::1"), of("192.0.2.1")), ("2001:db8::/32", ""));
        assert_eq!(of("10.9.1.1"), "x");
        // A network listed twice, the default routes, and a single host.
        let list = "0.0.0.0/0 world\n10.0.0.0/8 first\n10.1.1.1/8 second\n10.0.0.7/32 host\n::/0\n";
        let networks = Networks::parse(list).unwrap();
        let of = |address: &str| networks.of(address.parse().unwrap());
        assert_eq!((of("192.0.2.1"), of("10.0.0.8"), of("10.0.0.7")), ("world", "first", "host"));
        assert_eq!(of("2001:db8::1"), "::/0");
    }

    #[test]
    fn services_are_found_by_port() {
        let services = Services::parse("web  80,443\nhigh 8000-8099\n").unwrap();
        assert_eq!((services.of(443), services.of(8050), services.of(22)), ("web", "high", ""));
    }

    #[test]
    fn an_error_gives_the_line_and_the_remedy() {
        let error = Services::parse("web 80\ndb\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.reason.contains("`db` has no ports") && error.reason.contains("web 80,443"), "{error}");
        let error = Networks::parse("10.0.0/8 x\n").unwrap_err();
        assert!(error.line == 1 && error.reason.contains("`10.0.0/8`"), "{error}");
        let many = "web 80\n".repeat(MAX_ENTRIES + 1);
        assert_eq!(Services::parse(&many).unwrap_err().line, MAX_ENTRIES + 1);
    }
}
