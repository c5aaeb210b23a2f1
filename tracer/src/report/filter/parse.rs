//! Ports, networks and states of filters, parsed from the command line.

use std::net::IpAddr;

use ipnet::IpNet;
use tracer_core::event::TcpState;

/// A set of ports, such as `80,443,8000-8099`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Vec<std::ops::RangeInclusive<u16>>);

impl PortSet {
    /// Returns whether the set contains a port.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl std::str::FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            text.trim().parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(|| {
                format!("`{}` is not a port: use 1 to 65535, as in 80,443,8000-8099", text.trim())
            })
        };
        text.split(',')
            .map(|part| match part.split_once('-') {
                None => port(part).map(|port| port..=port),
                Some((first, last)) => {
                    let (first, last) = (port(first)?, port(last)?);
                    if first > last {
                        return Err(format!("the range {first}-{last} is empty: write {last}-{first}"));
                    }
                    Ok(first..=last)
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Parses an address or a network in CIDR notation.
///
/// # Errors
///
/// A message that names the text and the accepted forms.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!("`{text}` is neither an address nor a network: use 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32")
    })
}

/// Parses a TCP state by its kernel or OpenTelemetry name.
///
/// # Errors
///
/// A message that lists the states.
pub fn parse_state(text: &str) -> Result<TcpState, String> {
    TcpState::parse(text).ok_or_else(|| {
        let names: Vec<_> = TcpState::ALL.iter().map(|state| state.name()).collect();
        format!("`{text}` is not a TCP state: use one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_and_ranges() {
        let ports: PortSet = "80, 443,8000-8099".parse().unwrap();
        for inside in [80, 443, 8000, 8050, 8099] {
            assert!(ports.contains(inside), "{inside}");
        }
        for outside in [0, 79, 81, 7999, 8100] {
            assert!(!ports.contains(outside), "{outside}");
        }
    }

    #[test]
    fn errors_name_the_invalid_part() {
        for (text, part) in
            [("70000", "`70000`"), ("0", "`0`"), ("http", "`http`"), ("", "``"), ("90-80", "80-90")]
        {
            let error = text.parse::<PortSet>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn networks_and_addresses() {
        assert_eq!(parse_network("10.0.0.0/8").unwrap().prefix_len(), 8);
        assert_eq!(parse_network("192.0.2.1").unwrap().prefix_len(), 32);
        assert_eq!(parse_network("::1").unwrap().prefix_len(), 128);
        assert!(parse_network("10.0.0/8").unwrap_err().contains("`10.0.0/8`"));
        assert!(parse_state("open").unwrap_err().contains("syn_sent"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,40}") {
            let _ = text.parse::<PortSet>();
            let _ = parse_network(&text);
            let _ = parse_state(&text);
        }
    }
}
