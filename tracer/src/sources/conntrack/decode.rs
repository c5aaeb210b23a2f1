//! Decodes messages about entries of the conntrack table (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
//!
//! Addresses and ports are in network byte order, the framing is in host byte order.

use std::net::IpAddr;

use tracer_core::event::Endpoint;

use crate::sources::sock_diag::netlink::{align, attributes, u16_at, u32_at};

/// `NFNL_SUBSYS_CTNETLINK`, the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: an entry, in an announcement and in a dump.
const NEW: u16 = SUBSYSTEM;
/// `IPCTNL_MSG_CT_GET`.
pub(super) const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_GET_STATS`: the number of entries. The cheapest request that only conntrack answers.
pub(super) const GET_STATS: u16 = SUBSYSTEM | 5;

pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource.
const NFGENMSG: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

const IPPROTO_TCP: u8 = 6;

/// A TCP connection whose destination is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// The client's endpoint.
    pub(crate) client: Endpoint,
    /// The endpoint that it dialled.
    pub(crate) service: Endpoint,
    /// The endpoint that answers.
    pub(crate) backend: Endpoint,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An entry of a translated TCP connection.
    Translated(Translation),
    /// The number of entries.
    Entries(u32),
    /// The end of a dump, or the acknowledgement of a request.
    Done,
    /// The kernel refused the request: an errno.
    Error(i32),
    /// Anything else, such as an entry without a translation.
    Other,
}

/// Encodes a request for entries of every family.
pub(super) fn request(kind: u16, flags: u16, sequence: u32) -> [u8; HEADER + NFGENMSG] {
    const LENGTH: u32 = 20;
    const _: () = assert!(LENGTH as usize == HEADER + NFGENMSG, "the length covers header and request");
    let mut bytes = [0; HEADER + NFGENMSG];
    bytes[0..4].copy_from_slice(&LENGTH.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// Splits a datagram into its messages. Ends at the first one with an invalid length.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length)?;
        let body = message.get(HEADER..)?;
        let kind = u16_at(message, 4)?;
        // The last message need not be padded.
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some(decoded(kind, body))
    })
}

fn decoded(kind: u16, body: &[u8]) -> Message {
    let message = match kind {
        NEW => translation(body).map(Message::Translated),
        GET_STATS => entries(body).map(Message::Entries),
        NLMSG_DONE | NLMSG_ERROR => u32_at(body, 0).map(|code| match code.cast_signed() {
            0 => Message::Done,
            error => Message::Error(error.saturating_neg()),
        }),
        _ => None,
    };
    message.unwrap_or(Message::Other)
}

/// Returns the payload of an attribute; `None` if there is none, or if the attributes are malformed up to it.
fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    for attribute in attributes(bytes) {
        let (kind, payload) = attribute.ok()?;
        if kind == wanted {
            return Some(payload);
        }
    }
    None
}

fn entries(body: &[u8]) -> Option<u32> {
    let payload = attribute(body.get(NFGENMSG..)?, CTA_STATS_GLOBAL_ENTRIES)?;
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

/// Returns the translation of an entry; `None` if it is not TCP, or if its destination is not translated.
fn translation(body: &[u8]) -> Option<Translation> {
    let attributes = body.get(NFGENMSG..)?;
    let (client, service) = tuple(attribute(attributes, CTA_TUPLE_ORIG)?)?;
    let (backend, _) = tuple(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    (backend != service).then_some(Translation { client, service, backend })
}

/// Returns the source and the destination of a tuple of TCP.
fn tuple(bytes: &[u8]) -> Option<(Endpoint, Endpoint)> {
    let protocol = attribute(bytes, CTA_TUPLE_PROTO)?;
    if attribute(protocol, CTA_PROTO_NUM)? != [IPPROTO_TCP] {
        return None;
    }
    let addresses = attribute(bytes, CTA_TUPLE_IP)?;
    let address = |four: u16, six: u16| -> Option<IpAddr> {
        if let Some(bytes) = attribute(addresses, four) {
            return <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
        }
        <[u8; 16]>::try_from(attribute(addresses, six)?).ok().map(IpAddr::from)
    };
    let port = |kind: u16| Some(u16::from_be_bytes(attribute(protocol, kind)?.try_into().ok()?));
    let source =
        Endpoint { address: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port: port(CTA_PROTO_SRC_PORT)? };
    let destination =
        Endpoint { address: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port: port(CTA_PROTO_DST_PORT)? };
    Some((source, destination))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + payload.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn octets(address: &str) -> Vec<u8> {
        match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    fn tuple(kind: u16, protocol: u8, from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
        let six = u16::from(from.0.contains(':')) * 2;
        let addresses =
            [attribute(CTA_IP_V4_SRC + six, &octets(from.0)), attribute(CTA_IP_V4_DST + six, &octets(to.0))]
                .concat();
        let ports = [
            attribute(CTA_PROTO_NUM, &[protocol]),
            attribute(CTA_PROTO_SRC_PORT, &from.1.to_be_bytes()),
            attribute(CTA_PROTO_DST_PORT, &to.1.to_be_bytes()),
        ]
        .concat();
        // Nested attributes have a flag.
        let nested =
            [attribute(0x8000 | CTA_TUPLE_IP, &addresses), attribute(0x8000 | CTA_TUPLE_PROTO, &ports)];
        attribute(0x8000 | kind, &nested.concat())
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = request(kind, 0, 1)[..HEADER].to_vec();
        bytes[..4].copy_from_slice(&u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes());
        bytes.extend(body);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn entry(protocol: u8, reply: (&str, u16)) -> Vec<u8> {
        let client = if reply.0.contains(':') { ("fd00::9", 40_000) } else { ("10.1.0.9", 40_000) };
        let service = if reply.0.contains(':') { ("fd00:96::1", 443) } else { ("10.96.0.1", 443) };
        let tuples = [
            tuple(CTA_TUPLE_ORIG, protocol, client, service),
            tuple(CTA_TUPLE_REPLY, protocol, reply, client),
            attribute(3, &[0, 0, 0, 8]),
        ];
        message(NEW, &[&[2, 0, 0, 0], &tuples.concat()[..]].concat())
    }

    fn endpoint(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port }
    }

    #[test]
    fn a_translated_entry_names_its_backend() {
        let datagram = [
            entry(IPPROTO_TCP, ("10.1.2.3", 8443)),
            entry(IPPROTO_TCP, ("10.96.0.1", 443)),
            entry(17, ("10.1.2.3", 53)),
            entry(IPPROTO_TCP, ("10.96.0.1", 8443)),
            entry(IPPROTO_TCP, ("fd00::3", 8443)),
        ]
        .concat();
        let four = |backend| {
            Message::Translated(Translation {
                client: endpoint("10.1.0.9", 40_000),
                service: endpoint("10.96.0.1", 443),
                backend,
            })
        };
        let six = Message::Translated(Translation {
            client: endpoint("fd00::9", 40_000),
            service: endpoint("fd00:96::1", 443),
            backend: endpoint("fd00::3", 8443),
        });
        assert_eq!(
            messages(&datagram).collect::<Vec<_>>(),
            [
                four(endpoint("10.1.2.3", 8443)),
                Message::Other,
                Message::Other,
                four(endpoint("10.96.0.1", 8443)),
                six
            ]
        );
    }

    #[test]
    fn answers_end_with_their_result() {
        let refused = (-1i32).to_ne_bytes();
        let stats = [&[0; 4][..], &attribute(CTA_STATS_GLOBAL_ENTRIES, &7u32.to_be_bytes())].concat();
        let datagram = [
            message(GET_STATS, &stats),
            message(NLMSG_DONE, &[0; 4]),
            message(NLMSG_ERROR, &refused),
            message(NLMSG_ERROR, &[]),
            message(1, &[]),
        ]
        .concat();
        assert_eq!(
            messages(&datagram).collect::<Vec<_>>(),
            [Message::Entries(7), Message::Done, Message::Error(1), Message::Other, Message::Other]
        );
        assert_eq!(messages(&datagram[..10]).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = messages(&bytes).count();
            let _ = messages(&message(NEW, &bytes)).count();
        }
    }
}
