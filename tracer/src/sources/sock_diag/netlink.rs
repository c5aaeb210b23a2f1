//! The netlink framing of `sock_diag` requests and messages (`man 7 netlink`).
//!
//! Numbers are in host byte order, except for addresses and ports.

use crate::sources::sock_diag::states::StateSet;

/// `AF_INET`.
pub(super) const AF_INET: u8 = 2;
/// `AF_INET6`.
pub(super) const AF_INET6: u8 = 10;
/// `INET_DIAG_INFO`, the number of the extension in a request and of the attribute in the answer.
pub(super) const INET_DIAG_INFO: u16 = 2;
/// `INET_DIAG_SKMEMINFO`, likewise.
pub(super) const INET_DIAG_SKMEMINFO: u16 = 7;

const IPPROTO_TCP: u8 = 6;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, `inet_diag_sockid`.
const REQUEST: usize = 8 + 48;

/// Encodes the request number `sequence` for the sockets of `family` in `states`.
pub(super) fn request(family: u8, sequence: u32, states: StateSet) -> [u8; HEADER + REQUEST] {
    const LENGTH: u32 = 72;
    const _: () = assert!(LENGTH as usize == HEADER + REQUEST, "the length covers header and request");
    const EXTENSIONS: u8 = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_SKMEMINFO - 1);

    let mut bytes = [0; HEADER + REQUEST];
    let (header, body) = bytes.split_at_mut(HEADER);
    header[0..4].copy_from_slice(&LENGTH.to_ne_bytes());
    header[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    header[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());

    body[0] = family;
    body[1] = IPPROTO_TCP;
    body[2] = EXTENSIONS;
    body[4..8].copy_from_slice(&states.mask().to_ne_bytes());
    // Ports of 0 select all sockets. A dump compares neither addresses nor the cookie.
    bytes
}

/// A message of the answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A socket: the body that [`decode::message`](super::decode::message) reads.
    Socket(&'a [u8]),
    /// The end of the answer.
    Done,
    /// The kernel refused or aborted the dump: an errno.
    Error(i32),
    /// A message of another request or of another type.
    Foreign,
    /// The length is invalid; the rest of the datagram cannot be decoded.
    Malformed,
}

/// A message and its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framed<'a> {
    /// The message.
    pub(super) message: Message<'a>,
    /// `NLM_F_DUMP_INTR`: the dump is inconsistent.
    pub(super) interrupted: bool,
}

/// Splits a datagram into the messages that answer request `sequence`.
pub(super) fn messages(datagram: &[u8], sequence: u32) -> Messages<'_> {
    Messages { rest: datagram, sequence }
}

/// Iterator of [`messages`].
#[derive(Clone, Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
    sequence: u32,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Framed<'a>;

    fn next(&mut self) -> Option<Framed<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let framed = self.split();
        if framed.is_none() {
            self.rest = &[];
        }
        Some(framed.unwrap_or(Framed { message: Message::Malformed, interrupted: false }))
    }
}

impl<'a> Messages<'a> {
    /// Removes the next message; `None` if its length is invalid.
    fn split(&mut self) -> Option<Framed<'a>> {
        let length = usize::try_from(u32_at(self.rest, 0)?).ok()?;
        let message = self.rest.get(..length)?;
        let body = message.get(HEADER..)?;
        let kind = u16_at(message, 4)?;
        let flags = u16_at(message, 6)?;
        let sequence = u32_at(message, 8)?;
        // The last message need not be padded.
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);

        let message = match kind {
            _ if sequence != self.sequence => Message::Foreign,
            SOCK_DIAG_BY_FAMILY => Message::Socket(body),
            // The end of a dump also contains its result.
            NLMSG_DONE => match u32_at(body, 0).map_or(0, u32::cast_signed) {
                0 => Message::Done,
                error => Message::Error(error.saturating_neg()),
            },
            NLMSG_ERROR => match u32_at(body, 0)?.cast_signed() {
                0 => Message::Foreign,
                error => Message::Error(error.saturating_neg()),
            },
            NLMSG_NOOP.. => Message::Foreign,
            0 => return None,
        };
        Some(Framed { message, interrupted: flags & NLM_F_DUMP_INTR != 0 })
    }
}

/// Splits `bytes` into attributes (`struct nlattr`): their types without flags, and their payloads.
///
/// Ends with an `Err` at the first attribute with an invalid length.
pub(in crate::sources) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), ()>> {
    /// Length and type.
    const ATTRIBUTE_HEADER: usize = 4;
    /// The upper two bits mean nested and network byte order (`NLA_TYPE_MASK`).
    const TYPE_MASK: u16 = 0x3fff;

    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = (|| {
            let length = usize::from(u16_at(rest, 0)?);
            let kind = u16_at(rest, 2)? & TYPE_MASK;
            let payload = rest.get(..length)?.get(ATTRIBUTE_HEADER..)?;
            rest = rest.get(align(length)..).unwrap_or(&[]);
            Some((kind, payload))
        })();
        if split.is_none() {
            rest = &[];
        }
        Some(split.ok_or(()))
    })
}

/// Returns the `u16` in host byte order at `offset`; `None` if `bytes` is too short.
pub(in crate::sources) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Returns the `u32` in host byte order at `offset`; `None` if `bytes` is too short.
pub(in crate::sources) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Returns the `u64` in host byte order at `offset`; `None` if `bytes` is too short.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Rounds up to a multiple of 4, where messages and attributes start (`NLMSG_ALIGN`, `NLA_ALIGN`).
pub(in crate::sources) const fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn split(datagram: &[u8]) -> Vec<(Message<'_>, bool)> {
        messages(datagram, 7).map(|framed| (framed.message, framed.interrupted)).collect()
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let refused = (-2i32).to_ne_bytes();
        let datagram = [
            message(SOCK_DIAG_BY_FAMILY, 2, 7, b"abcde"),
            message(SOCK_DIAG_BY_FAMILY, 2 | NLM_F_DUMP_INTR, 7, b""),
            message(SOCK_DIAG_BY_FAMILY, 2, 8, b"other"),
            message(NLMSG_NOOP, 0, 7, b""),
            message(NLMSG_ERROR, 0, 7, &refused),
            message(NLMSG_DONE, 2, 7, &0u32.to_ne_bytes()),
            message(NLMSG_DONE, 2, 7, &refused),
        ]
        .concat();
        assert_eq!(
            split(&datagram),
            [
                (Message::Socket(b"abcde"), false),
                (Message::Socket(b""), true),
                (Message::Foreign, false),
                (Message::Foreign, false),
                (Message::Error(2), false),
                (Message::Done, false),
                (Message::Error(2), false),
            ]
        );
    }

    #[test]
    fn an_invalid_length_ends_the_datagram() {
        let good = message(SOCK_DIAG_BY_FAMILY, 2, 7, b"abcd");
        for length in [0u32, 15, 21, u32::MAX] {
            let mut bad = good.clone();
            bad[..4].copy_from_slice(&length.to_ne_bytes());
            let datagram = [good.clone(), bad].concat();
            assert_eq!(
                split(&datagram),
                [(Message::Socket(b"abcd"), false), (Message::Malformed, false)],
                "{length}"
            );
        }
        assert_eq!(split(&[1, 2, 3]), [(Message::Malformed, false)]);
        assert_eq!(split(&message(NLMSG_ERROR, 0, 7, &[])), [(Message::Malformed, false)]);
    }

    #[test]
    fn the_request_selects_the_states() {
        let bytes = request(AF_INET6, 9, StateSet::ALL);
        assert_eq!(u32_at(&bytes, 0), Some(72));
        assert_eq!(u16_at(&bytes, 4), Some(20));
        assert_eq!(u16_at(&bytes, 6), Some(0x301));
        assert_eq!(u32_at(&bytes, 8), Some(9));
        assert_eq!(bytes[16..20], [10, 6, 0b100_0010, 0]);
        assert_eq!(u32_at(&bytes, 20), Some(0xffe));
        assert!(bytes[24..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn attributes_lose_their_flags_and_padding() {
        let mut bytes = Vec::new();
        bytes.extend([5u16.to_ne_bytes(), 8u16.to_ne_bytes()].concat());
        bytes.extend([3, 0, 0, 0]);
        bytes.extend([6u16.to_ne_bytes(), 0x8013u16.to_ne_bytes()].concat());
        bytes.extend([1, 2]);
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [Ok((8, &[3][..])), Ok((0x13, &[1, 2][..]))]);
        bytes.extend([0, 0, 3]);
        assert_eq!(attributes(&bytes).last(), Some(Err(())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes, 7).count() <= bytes.len() / HEADER + 1);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
