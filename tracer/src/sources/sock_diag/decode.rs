//! From the bytes of one message to a [`SocketSnapshot`]: pure, and total on any bytes.

use std::net::{IpAddr, Ipv6Addr};

use tracer_core::event::{AcceptQueue, Endpoint, TcpState};

use crate::sources::sock_diag::{
    netlink::{
        AF_INET, AF_INET6, INET_DIAG_INFO, INET_DIAG_SKMEMINFO, Message, attributes, messages, u32_at, u64_at,
    },
    socket::{Memory, Shutdown, SocketSnapshot, Timer, TimerKind},
    tcp_info,
};

const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// `idiag_timer` of a timewait mini-socket, set by `inet_twsk_diag_fill` and nothing else.
const TIMER_TIME_WAIT: u8 = 3;

/// Why a message could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends before `struct inet_diag_msg` does.
    #[error(
        "the message of {0} bytes is too short for a socket, which takes 72; report it with the kernel version"
    )]
    Short(usize),
    /// The address family is neither IPv4 nor IPv6.
    #[error(
        "the message is about address family {0}, neither IPv4 nor IPv6; report it with the kernel version"
    )]
    Family(u8),
    /// The state is none of TCP.
    #[error("the message gives state {0}, which TCP does not have; report it with the kernel version")]
    State(u8),
    /// The length of an attribute does not fit.
    #[error("an attribute of the message does not fit into it; report it with the kernel version")]
    Attribute,
}

/// The sockets that one datagram of the answer to request `sequence` tells of.
pub fn sockets_in(datagram: &[u8], sequence: u32) -> Vec<Result<SocketSnapshot, DecodeError>> {
    messages(datagram, sequence)
        .filter_map(|framed| match framed.message {
            Message::Socket(body) => Some(message(body)),
            _ => None,
        })
        .collect()
}

/// What the attributes say, each if it was there.
#[derive(Default)]
struct Attributes<'a> {
    info: Option<&'a [u8]>,
    memory: Option<&'a [u8]>,
    shutdown: Option<u8>,
    v6_only: Option<u8>,
    cgroup_id: Option<u64>,
}

/// Reads the body of a `SOCK_DIAG_BY_FAMILY` message, `struct inet_diag_msg` and its attributes,
/// without the netlink header. [`SocketSnapshot::netns`] is left `None`.
///
/// Attributes it does not know are skipped, and a known one that is shorter than it was in 4.19
/// counts as absent.
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
    let [.., interface, cookie_low, cookie_high, expires, rqueue, wqueue, uid, inode] =
        words.map(u32::from_ne_bytes);
    let [l0, l1, l2, l3, r0, r1, r2, r3] = addresses;
    let state = TcpState::from_kernel(state).ok_or(DecodeError::State(state))?;
    let local = endpoint(family, [s0, s1], [l0, l1, l2, l3])?;
    let remote = endpoint(family, [d0, d1], [r0, r1, r2, r3])?;
    let attributes = read_attributes(rest)?;

    let mini = timer == TIMER_TIME_WAIT;
    // Every full socket has the shutdown attribute (inet_diag_msg_attrs_fill), requests never do.
    let request = state == TcpState::SynReceived && attributes.shutdown.is_none() && !mini;
    let full = !mini && !request;
    let listener = full && state == TcpState::Listen;
    let decoded = attributes
        .info
        .filter(|_| full && !listener)
        .and_then(|info| tcp_info::decode(info, state, rqueue, wqueue));

    Ok(SocketSnapshot {
        cookie: u64::from(cookie_low) | u64::from(cookie_high) << 32,
        netns: None,
        state,
        request,
        mini,
        local,
        remote,
        interface: Some(interface).filter(|&index| index != 0),
        uid: Some(uid).filter(|&uid| full && (uid != 0 || inode != 0)),
        inode: Some(u64::from(inode)).filter(|&inode| inode != 0),
        timer: read_timer(timer, expires, retransmits),
        rqueue,
        wqueue,
        accept_queue: listener.then_some(AcceptQueue { length: rqueue, limit: wqueue }),
        info: decoded.map(|decoded| decoded.info),
        activity: decoded.and_then(|decoded| decoded.activity),
        sending: decoded.map(|decoded| decoded.sending),
        memory: attributes.memory.and_then(read_memory),
        shutdown: attributes.shutdown.map(|bits| Shutdown { receive: bits & 1 != 0, send: bits & 2 != 0 }),
        cgroup_id: attributes.cgroup_id.filter(|&id| id != 0),
        // An address that counts as IPv4 has no use for it.
        v6_only: attributes.v6_only.filter(|_| listener && local.address.is_ipv6()).map(|flag| flag != 0),
    })
}

/// One end: the port and the address as the network orders them; IPv4 takes the first word only.
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
            INET_DIAG_SHUTDOWN => found.shutdown = payload.first().copied(),
            INET_DIAG_SKV6ONLY => found.v6_only = payload.first().copied(),
            INET_DIAG_CGROUP_ID => found.cgroup_id = u64_at(payload, 0),
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
    // Older kernels subtract the clock without a look at the sign: a timer that is just firing gives
    // a small negative number. No timer of TCP runs for the 24 days that would really be.
    let expires_ms = if expires > i32::MAX.cast_unsigned() { 0 } else { expires };
    Some(Timer { kind, expires_ms, retransmits })
}

/// `SK_MEMINFO_*` of `include/uapi/linux/sock_diag.h`.
fn read_memory(bytes: &[u8]) -> Option<Memory> {
    Some(Memory {
        receive_used: u32_at(bytes, 0)?,
        receive_limit: u32_at(bytes, 4)?,
        send_limit: u32_at(bytes, 12)?,
        send_used: u32_at(bytes, 20)?,
        drops: u32_at(bytes, 32)?,
    })
}
