//! Addresses and ports.

use std::{fmt, net::IpAddr};

use tracer_core::event::Endpoint;

use crate::report::text::write::{Text, display_as_text};

/// An address.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct AddressText(pub(in crate::report) IpAddr);

impl Text for AddressText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => {
                let [first, others @ ..] = address.octets();
                first.write_to(text)?;
                for octet in others {
                    text.write_char('.')?;
                    octet.write_to(text)?;
                }
                Ok(())
            }
            IpAddr::V6(address) => write!(text, "{address}"),
        }
    }
}

/// An endpoint as `address:port`, with IPv6 in brackets and `*` for an unknown port.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct EndpointText(pub(in crate::report) Endpoint);

impl Text for EndpointText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        ZonedEndpoint(self.0, None).write_to(text)
    }
}

display_as_text!(EndpointText);

/// An endpoint whose link-local address has its zone, the index of an interface (RFC 4007, section 11): `[fe80::1%2]:80`.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct ZonedEndpoint(pub(in crate::report) Endpoint, pub(in crate::report) Option<u32>);

impl Text for ZonedEndpoint {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // The longest, of IPv6 without a zone, has 47 characters.
        let Self(Endpoint { address, port }, zone) = *self;
        match address {
            IpAddr::V4(_) => AddressText(address).write_to(text)?,
            IpAddr::V6(ipv6) => {
                text.write_char('[')?;
                AddressText(address).write_to(text)?;
                if let Some(zone) = zone.filter(|_| ipv6.is_unicast_link_local()) {
                    text.write_char('%')?;
                    zone.write_to(text)?;
                }
                text.write_char(']')?;
            }
        }
        text.write_char(':')?;
        if port == 0 { text.write_char('*') } else { port.write_to(text) }
    }
}

display_as_text!(ZonedEndpoint);

/// Formats an endpoint as `address:port`, with IPv6 in brackets and `*` for an unknown port.
pub fn endpoint_text(endpoint: Endpoint) -> String {
    EndpointText(endpoint).to_string()
}

/// Returns the event's endpoint, or the connection's if the event has no port.
pub(in crate::report) fn bound(event: Endpoint, connection: Option<Endpoint>) -> Endpoint {
    if event.port == 0 { connection.unwrap_or(event) } else { event }
}

/// Returns `ipv4` or `ipv6`.
pub(crate) fn network_type(local: Endpoint) -> &'static str {
    if local.address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Returns the port, unless none is bound.
pub(crate) fn known_port(endpoint: Endpoint) -> Option<u16> {
    (endpoint.port != 0).then_some(endpoint.port)
}

/// Returns the remote address if there is a peer. Listeners, and sockets the kernel has not connected yet, have port 0.
pub(crate) fn known_address(remote: Endpoint) -> Option<IpAddr> {
    (remote.port != 0).then_some(remote.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let text = |address: &str, port| {
            EndpointText(Endpoint { address: address.parse().unwrap(), port }).to_string()
        };
        assert_eq!(text("192.0.2.1", 80), "192.0.2.1:80");
        assert_eq!(text("2001:db8::1", 443), "[2001:db8::1]:443");
        assert_eq!(text("192.0.2.1", 0), "192.0.2.1:*");
        let longest = text("1111:2222:3333:4444:5555:6666:7777:8888", 65535);
        let zoned = |address: &str, zone| {
            ZonedEndpoint(Endpoint { address: address.parse().unwrap(), port: 80 }, zone).to_string()
        };
        assert_eq!(zoned("fe80::1", Some(2)), "[fe80::1%2]:80");
        assert_eq!(zoned("fe80::1", None), "[fe80::1]:80");
        assert_eq!(zoned("2001:db8::1", Some(2)), "[2001:db8::1]:80");
        assert_eq!(zoned("169.254.0.1", Some(2)), "169.254.0.1:80");
        assert_eq!(longest, "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
    }
}
