//! The lists that opt-in labels take their values from: networks, and services by port.

use std::{cmp::Reverse, net::IpAddr, path::Path};

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::report::{PortSet, parse_network};

/// Most lines of a list: each of services is looked at for every connection.
const MOST: usize = 1000;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("the list {path} cannot be read: {error}; check its path and that this user may read it")]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// Networks and their names, one a line: `10.0.0.0/8 office`, or without a name the network itself.
/// The narrowest that holds an address is the one.
#[derive(Debug, Default)]
pub struct Networks {
    ipv4: Prefixes,
    ipv6: Prefixes,
}

/// The names of networks by their first address, for each length of a prefix; the longest comes first.
type Prefixes = Vec<(u8, HashMap<IpAddr, String, foldhash::fast::RandomState>)>;

impl Networks {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or names the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, ListError> {
        let list = lines(path, |line| {
            let (network, name) = line.split_once(char::is_whitespace).unwrap_or((line, line));
            Ok((parse_network(network)?.trunc(), name.trim().to_owned()))
        })?;
        let mut networks = Self::default();
        for (network, name) in list {
            let prefixes = if network.addr().is_ipv4() { &mut networks.ipv4 } else { &mut networks.ipv6 };
            let length = network.prefix_len();
            let place = prefixes.binary_search_by_key(&Reverse(length), |(it, _)| Reverse(*it));
            let place = place.unwrap_or_else(|place| {
                prefixes.insert(place, (length, HashMap::default()));
                place
            });
            prefixes[place].1.entry(network.addr()).or_insert(name);
        }
        Ok(networks)
    }

    /// The name of the narrowest network that holds an address; empty when none does.
    pub fn of(&self, address: IpAddr) -> &str {
        let prefixes = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let names = prefixes.iter().filter_map(|(length, networks)| {
            networks.get(&IpNet::new(address, *length).ok()?.trunc().addr())
        });
        names.map(String::as_str).next().unwrap_or_default()
    }
}

/// Services and the ports of their servers, one a line: `web 80,443,8000-8099`. The first that has a port
/// is the one.
#[derive(Debug, Default)]
pub struct Services(Vec<(String, PortSet)>);

impl Services {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or names the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, ListError> {
        lines(path, |line| {
            let (name, ports) = line.split_once(char::is_whitespace).ok_or_else(|| {
                format!("`{line}` has no ports: write a name and ports, as in `web 80,443`")
            })?;
            Ok((name.to_owned(), ports.trim().parse()?))
        })
        .map(Self)
    }

    /// The service behind a server's port; empty when none is named.
    pub fn of(&self, port: u16) -> &str {
        self.0.iter().find(|(_, ports)| ports.contains(port)).map_or("", |(name, _)| name)
    }
}

/// Reads the lines that are neither empty nor comments.
fn lines<T>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, ListError> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| ListError::Read { path: shown.clone(), error })?;
    let mut parsed = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |reason| ListError::Line { path: shown.clone(), line: index + 1, reason };
        if parsed.len() == MOST {
            return Err(wrong(format!("more than {MOST} entries: join some of them")));
        }
        parsed.push(parse(line).map_err(wrong)?);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn the_narrowest_network_is_the_one() {
        let list = file(
            "# offices\n10.0.0.0/8 inside\n10.1.0.0/16 berlin office\n\n2001:db8::/32\n10.9.8.7/16 x # host\n",
        );
        let networks = Networks::read(list.path()).unwrap();
        let of = |address: &str| networks.of(address.parse().unwrap());
        assert_eq!((of("10.1.2.3"), of("10.2.0.1")), ("berlin office", "inside"));
        assert_eq!((of("2001:db8::1"), of("192.0.2.1")), ("2001:db8::/32", ""));
        assert_eq!(of("10.9.1.1"), "x");
        // The first of two names, every address, and a single one.
        let list = file("0.0.0.0/0 world\n10.0.0.0/8 first\n10.1.1.1/8 second\n10.0.0.7/32 host\n::/0\n");
        let networks = Networks::read(list.path()).unwrap();
        let of = |address: &str| networks.of(address.parse().unwrap());
        assert_eq!((of("192.0.2.1"), of("10.0.0.8"), of("10.0.0.7")), ("world", "first", "host"));
        assert_eq!(of("2001:db8::1"), "::/0");
    }

    #[test]
    fn services_have_ports() {
        let list = file("web  80,443\nhigh 8000-8099\n");
        let services = Services::read(list.path()).unwrap();
        assert_eq!((services.of(443), services.of(8050), services.of(22)), ("web", "high", ""));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let list = file("web 80\ndb\n");
        let error = Services::read(list.path()).unwrap_err().to_string();
        assert!(error.contains(":2: `db` has no ports") && error.contains("web 80,443"), "{error}");
        let list = file("10.0.0/8 x\n");
        let error = Networks::read(list.path()).unwrap_err().to_string();
        assert!(error.contains(":1: `10.0.0/8`"), "{error}");
        let error = Networks::read(Path::new("/no/such/list")).unwrap_err().to_string();
        assert!(error.contains("/no/such/list") && error.contains("check its path"), "{error}");
    }
}
