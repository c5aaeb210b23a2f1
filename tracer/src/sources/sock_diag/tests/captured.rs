//! Messages from Linux 6.18 on x86-64 for sockets on loopback, and arbitrary bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tracer_core::event::{AcceptQueue, CgroupId, Endpoint, Micros, Millis, SocketCookie, TcpInfo, TcpState};

use crate::sources::sock_diag::{
    SocketSnapshot, Timer, TimerKind,
    decode::{DecodeError, message},
};

const LISTEN: &str = include_str!("captured/listen.hex");
const LISTEN_IPV6: &str = include_str!("captured/listen_ipv6.hex");
const CLOSE_WAIT: &str = include_str!("captured/close_wait.hex");
const REQUEST_MAPPED: &str = include_str!("captured/request_mapped.hex");
const FIN_WAIT_2_TIMEWAIT: &str = include_str!("captured/fin_wait_2_timewait.hex");
const TIME_WAIT_MAPPED: &str = include_str!("captured/time_wait_mapped.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn loopback(port: u16) -> Endpoint {
    Endpoint { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port }
}

/// A socket with only the fields that request and timewait sockets have.
fn minisock(cookie: u64, state: TcpState, local: u16, remote: u16) -> SocketSnapshot {
    SocketSnapshot {
        cookie: SocketCookie(cookie),
        netns: None,
        state,
        request: false,
        timewait: false,
        local: loopback(local),
        remote: loopback(remote),
        inode: None,
        timer: None,
        rqueue: 0,
        wqueue: 0,
        accept_queue: None,
        info: None,
        since_ack: None,
        interface: None,
        rto: None,
        drops: None,
        cgroup_id: None,
    }
}

#[test]
#[cfg(target_endian = "little")]
fn listeners_have_an_accept_queue() {
    let expected = SocketSnapshot {
        remote: Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 },
        inode: Some(49190),
        rqueue: 2,
        wqueue: 3,
        accept_queue: Some(AcceptQueue { length: 2, limit: 3 }),
        drops: Some(0),
        cgroup_id: Some(CgroupId(1)),
        ..minisock(4104, TcpState::Listen, 43551, 0)
    };
    assert_eq!(message(&bytes(LISTEN)), Ok(expected));

    let socket = message(&bytes(LISTEN_IPV6)).unwrap();
    assert_eq!(socket.local.address, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
}

#[test]
#[cfg(target_endian = "little")]
fn connections_have_all_fields() {
    let expected = SocketSnapshot {
        inode: Some(49218),
        rqueue: 6,
        info: Some(TcpInfo {
            bytes_received: 5,
            segments_sent: 1,
            segments_received: 4,
            data_segments_received: 1,
            srtt: Some(Micros(25)),
            min_rtt: Some(Micros(25)),
            mss: 32768,
            unread_bytes: 5,
            ..TcpInfo::default()
        }),
        since_ack: Some(Millis(0)),
        rto: Some(Micros(200_000)),
        drops: Some(0),
        cgroup_id: Some(CgroupId(1)),
        ..minisock(4114, TcpState::CloseWait, 42455, 34658)
    };
    assert_eq!(message(&bytes(CLOSE_WAIT)), Ok(expected));
}

#[test]
#[cfg(target_endian = "little")]
fn request_and_timewait_sockets_have_no_counters() {
    let timer = |kind, expires| Some(Timer { kind, expires: Millis(expires), retransmits: 0 });
    let request = SocketSnapshot {
        request: true,
        timer: timer(TimerKind::Retransmit, 1000),
        ..minisock(2033, TcpState::SynReceived, 38009, 53010)
    };
    assert_eq!(message(&bytes(REQUEST_MAPPED)), Ok(request));
    let orphan = SocketSnapshot {
        timewait: true,
        timer: timer(TimerKind::TimeWait, 59_992),
        ..minisock(2035, TcpState::FinWait2, 43102, 34983)
    };
    assert_eq!(message(&bytes(FIN_WAIT_2_TIMEWAIT)), Ok(orphan));
    let ended = SocketSnapshot {
        timewait: true,
        timer: timer(TimerKind::TimeWait, 60_000),
        ..minisock(4116, TcpState::TimeWait, 39645, 48126)
    };
    assert_eq!(message(&bytes(TIME_WAIT_MAPPED)), Ok(ended));
}

#[test]
fn invalid_messages_are_named() {
    let good = bytes(CLOSE_WAIT);
    assert_eq!(message(&good[..71]), Err(DecodeError::Short(71)));
    assert_eq!(message(&good[..74]), Err(DecodeError::Attribute));
    let changed = |offset: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[offset] = value;
        message(&bytes)
    };
    assert_eq!(changed(0, 1), Err(DecodeError::Family(1)));
    assert_eq!(changed(1, 12), Err(DecodeError::State(12)));
    let timer = changed(2, 9).unwrap().timer.unwrap();
    assert_eq!(timer.kind, TimerKind::Other(9));
}

#[test]
fn an_overdue_timer_expires_now() {
    let mut bytes = bytes(CLOSE_WAIT);
    bytes[2] = 4;
    bytes[3] = 7;
    for (expires, expected) in [(u32::MAX - 3, 0), (0, 0), (120_000, 120_000)] {
        bytes[52..56].copy_from_slice(&expires.to_ne_bytes());
        let timer = message(&bytes).unwrap().timer;
        let kind = TimerKind::ZeroWindowProbe;
        assert_eq!(timer, Some(Timer { kind, expires: Millis(expected), retransmits: 7 }));
    }
}

#[test]
fn attributes_of_later_kernels_are_skipped() {
    let known = bytes(CLOSE_WAIT);
    let mut longer = known.clone();
    longer.extend([[7u16.to_ne_bytes(), 999u16.to_ne_bytes()].concat(), vec![1, 2, 3, 0]].concat());
    assert_eq!(message(&longer), message(&known));
}

/// Decodes without a panic, and the result is consistent.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(socket) = message(bytes) else {
        return Ok(());
    };
    prop_assert!(!(socket.request && socket.timewait));
    prop_assert!(socket.is_full() || socket.info.is_none());
    prop_assert_eq!(socket.accept_queue.is_some(), socket.is_full() && socket.state == TcpState::Listen);
    prop_assert!(socket.unread_bytes().is_none_or(|count| count <= socket.rqueue));
    prop_assert!(socket.unacknowledged_bytes().is_none_or(|count| count <= socket.wqueue));
    for endpoint in [socket.local, socket.remote] {
        let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().is_some();
        prop_assert!(!matches!(endpoint.address, IpAddr::V6(address) if mapped(address)));
    }
    let _ = socket.state_age_at_least();
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes)?;
    }

    #[test]
    fn any_damaged_message_decodes_without_a_panic(
        which in 0..4usize,
        cut in 0..600usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
    ) {
        let mut bytes = bytes([LISTEN_IPV6, CLOSE_WAIT, REQUEST_MAPPED, TIME_WAIT_MAPPED][which]);
        bytes.truncate(cut.max(1));
        for (index, value) in damage {
            let length = bytes.len();
            bytes[index.index(length)] = value;
        }
        check(&bytes)?;
    }
}
