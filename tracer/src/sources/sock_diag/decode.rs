//! Decodes a message into a [`SocketSnapshot`]. Pure, and never panics on any input.

use std::net::{IpAddr, Ipv6Addr};

use tracer_core::event::{AcceptQueue, CgroupId, Endpoint, Millis, SocketCookie, TcpState};

use crate::sources::sock_diag::{
    netlink::{
        AF_INET, AF_INET6, INET_DIAG_INFO, INET_DIAG_SKMEMINFO, Message, attributes, messages, u32_at, u64_at,
    },
    socket::{SocketSnapshot, Timer, TimerKind},
    tcp_info,
};

const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// `idiag_timer` of a timewait socket, set only by `inet_twsk_diag_fill`.
const TIMER_TIME_WAIT: u8 = 3;

/// Why a message could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is shorter than `struct inet_diag_msg`.
    #[error(
        "the socket message has {0} bytes, fewer than the required 72; report this with the kernel version"
    )]
    Short(usize),
    /// The address family is neither IPv4 nor IPv6.
    #[error(
        "the socket message has the address family {0}, neither IPv4 nor IPv6; report this with the kernel version"
    )]
    Family(u8),
    /// The state is not a TCP state.
    #[error("the socket message has the unknown TCP state {0}; report this with the kernel version")]
    State(u8),
    /// The length of an attribute is invalid.
    #[error("an attribute of the socket message has an invalid length; report this with the kernel version")]
    Attribute,
}

/// Decodes the sockets in one datagram of the answer to request `sequence`.
pub fn sockets_in(datagram: &[u8], sequence: u32) -> Vec<Result<SocketSnapshot, DecodeError>> {
    messages(datagram, sequence)
        .filter_map(|framed| match framed.message {
            Message::Socket(body) => Some(message(body)),
            _ => None,
        })
        .collect()
}

/// The known attributes that the message contains.
#[derive(Default)]
struct Attributes<'a> {
    info: Option<&'a [u8]>,
    memory: Option<&'a [u8]>,
    has_shutdown: bool,
    cgroup_id: Option<CgroupId>,
}

/// Decodes the body of a `SOCK_DIAG_BY_FAMILY` message: `struct inet_diag_msg` and its attributes, without the netlink
/// header. [`SocketSnapshot::netns`] stays `None`.
///
/// Unknown attributes are skipped. A known attribute that is shorter than in 4.19 counts as absent.
///
/// # Errors
/// See [`DecodeError`].
pub fn message(bytes: &[u8]) -> Result<SocketSnapshot, DecodeError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<72>() else {
        return Err(DecodeError::Short(bytes.len()));
    };
    let words: [[u8; 4]; 18] = std::array::from_fn(|word| std::array::from_fn(|byte| fixed[4 * word + byte]));
    let [[family, state, timer, retransmits], [s0, s1, d0, d1], addresses @ .., _, _, _, _, _, _, _, _] =
        words;
    let [.., interface, cookie_low, cookie_high, expires, rqueue, wqueue, _uid, inode] =
        words.map(u32::from_ne_bytes);
    let [l0, l1, l2, l3, r0, r1, r2, r3] = addresses;
    let state = TcpState::from_kernel(state).ok_or(DecodeError::State(state))?;
    let local = endpoint(family, [s0, s1], [l0, l1, l2, l3])?;
    let remote = endpoint(family, [d0, d1], [r0, r1, r2, r3])?;
    let attributes = read_attributes(rest)?;

    let timewait = timer == TIMER_TIME_WAIT;
    // Every full socket has the shutdown attribute (inet_diag_msg_attrs_fill), and no request socket has it.
    let request = state == TcpState::SynReceived && !attributes.has_shutdown && !timewait;
    let full = !timewait && !request;
    let listener = full && state == TcpState::Listen;
    let decoded = attributes
        .info
        .filter(|_| full && !listener)
        .and_then(|info| tcp_info::decode(info, state, rqueue, wqueue));

    Ok(SocketSnapshot {
        cookie: SocketCookie(u64::from(cookie_low) | u64::from(cookie_high) << 32),
        netns: None,
        state,
        request,
        timewait,
        local,
        remote,
        inode: Some(u64::from(inode)).filter(|&inode| inode != 0),
        timer: read_timer(timer, expires, retransmits),
        rqueue,
        wqueue,
        accept_queue: listener.then_some(AcceptQueue { length: rqueue, limit: wqueue }),
        info: decoded.map(|decoded| decoded.info),
        since_ack: decoded.and_then(|decoded| decoded.since_ack),
        rto: decoded.map(|decoded| decoded.rto),
        interface: Some(interface).filter(|&interface| interface != 0),
        // `SK_MEMINFO_DROPS` of `include/uapi/linux/sock_diag.h`.
        drops: attributes.memory.and_then(|memory| u32_at(memory, 32)),
        cgroup_id: attributes.cgroup_id.filter(|&id| id != CgroupId(0)),
    })
}

/// Decodes a port and an address in network byte order. IPv4 uses only the first word.
fn endpoint(family: u8, port: [u8; 2], address: [[u8; 4]; 4]) -> Result<Endpoint, DecodeError> {
    let address = match family {
        AF_INET => IpAddr::from(address[0]),
        AF_INET6 => {
            let [a, b, c, d] = address.map(|word| u128::from(u32::from_be_bytes(word)));
            let address = Ipv6Addr::from_bits(a << 96 | b << 64 | c << 32 | d);
            address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
        }
        _ => return Err(DecodeError::Family(family)),
    };
    Ok(Endpoint { address, port: u16::from_be_bytes(port) })
}

fn read_attributes(bytes: &[u8]) -> Result<Attributes<'_>, DecodeError> {
    let mut found = Attributes::default();
    for attribute in attributes(bytes) {
        let (kind, payload) = attribute.map_err(|()| DecodeError::Attribute)?;
        match kind {
            INET_DIAG_INFO => found.info = Some(payload),
            INET_DIAG_SKMEMINFO => found.memory = Some(payload),
            INET_DIAG_SHUTDOWN => found.has_shutdown = !payload.is_empty(),
            INET_DIAG_CGROUP_ID => found.cgroup_id = u64_at(payload, 0).map(CgroupId),
            _ => {}
        }
    }
    Ok(found)
}

fn read_timer(kind: u8, expires: u32, retransmits: u8) -> Option<Timer> {
    let kind = match kind {
        0 => return None,
        1 => TimerKind::Retransmit,
        2 => TimerKind::Keepalive,
        TIMER_TIME_WAIT => TimerKind::TimeWait,
        4 => TimerKind::ZeroWindowProbe,
        other => TimerKind::Other(other),
    };
    // Older kernels subtract the clock without a check of the sign, so a timer that is firing has a small negative
    // value. No TCP timer runs for the 24 days that this would mean as an unsigned value.
    let expires = Millis(if expires > i32::MAX.cast_unsigned() { 0 } else { expires });
    Some(Timer { kind, expires, retransmits })
}
