//! Addresses to listen on.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("`unix:` has no path: use unix:/run/tcptrace-bpf.sock".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "`{text}` is not an address with a port: use 127.0.0.1:10793, [::1]:10793 or unix:/path"
                )
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_errors_name_the_form() {
        assert_eq!("[::1]:1".parse(), Ok(ListenAddress::Tcp("[::1]:1".parse().unwrap())));
        assert_eq!("unix:/run/x".parse(), Ok(ListenAddress::Unix("/run/x".into())));
        for (text, part) in
            [("10793", "127.0.0.1:10793"), ("unix:", "no path"), ("localhost:80", "unix:/path")]
        {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
