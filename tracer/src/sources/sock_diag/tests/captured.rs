//! Messages that Linux 6.18 on x86-64 sent for sockets on loopback, and what becomes of any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tracer_core::event::{AcceptQueue, Endpoint, TcpInfo, TcpState};

use crate::sources::sock_diag::{
    Activity, Memory, Sending, Shutdown, SocketSnapshot, Timer, TimerKind,
    decode::{DecodeError, message},
};

const LISTEN: &str = include_str!("captured/listen.hex");
const LISTEN_IPV6: &str = include_str!("captured/listen_ipv6.hex");
const CLOSE_WAIT: &str = include_str!("captured/close_wait.hex");
const REQUEST_MAPPED: &str = include_str!("captured/request_mapped.hex");
const FIN_WAIT_2_MINI: &str = include_str!("captured/fin_wait_2_mini.hex");
const TIME_WAIT_MAPPED: &str = include_str!("captured/time_wait_mapped.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn loopback(port: u16) -> Endpoint {
    Endpoint { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port }
}

/// What requests and mini-sockets have: the rest is absent.
fn stand_in(cookie: u64, state: TcpState, local: u16, remote: u16) -> SocketSnapshot {
    SocketSnapshot {
        cookie,
        netns: None,
        state,
        request: false,
        mini: false,
        local: loopback(local),
        remote: loopback(remote),
        interface: None,
        uid: None,
        inode: None,
        timer: None,
        rqueue: 0,
        wqueue: 0,
        accept_queue: None,
        info: None,
        activity: None,
        sending: None,
        memory: None,
        shutdown: None,
        cgroup_id: None,
        v6_only: None,
    }
}

#[test]
#[cfg(target_endian = "little")]
fn listeners_have_an_accept_queue() {
    let expected = SocketSnapshot {
        remote: Endpoint { address: Ipv4Addr::UNSPECIFIED.into(), port: 0 },
        uid: Some(0),
        inode: Some(49190),
        rqueue: 2,
        wqueue: 3,
        accept_queue: Some(AcceptQueue { length: 2, limit: 3 }),
        memory: Some(Memory {
            receive_used: 0,
            receive_limit: 131_072,
            send_used: 0,
            send_limit: 16_384,
            drops: 0,
        }),
        shutdown: Some(Shutdown { receive: false, send: false }),
        cgroup_id: Some(1),
        ..stand_in(4104, TcpState::Listen, 43551, 0)
    };
    assert_eq!(message(&bytes(LISTEN)), Ok(expected));

    let socket = message(&bytes(LISTEN_IPV6)).unwrap();
    assert_eq!(socket.local.address, IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    assert_eq!(socket.v6_only, Some(false));
}

#[test]
#[cfg(target_endian = "little")]
fn connections_have_everything() {
    let expected = SocketSnapshot {
        uid: Some(0),
        inode: Some(49218),
        rqueue: 6,
        info: Some(TcpInfo {
            bytes_received: 6,
            segments_sent: 1,
            segments_received: 4,
            data_segments_received: 1,
            srtt_us: Some(25),
            min_rtt_us: Some(25),
            mss: 32768,
            unread_bytes: 6,
            ..TcpInfo::default()
        }),
        activity: Some(Activity { data_sent_ms: 0, data_received_ms: 0, ack_received_ms: 0 }),
        sending: Some(Sending {
            not_sent_bytes: 0,
            peer_window: Some(65536),
            rto_us: 200_000,
            backoff: 0,
            busy_us: 0,
            window_limited_us: 0,
            buffer_limited_us: 0,
        }),
        memory: Some(Memory {
            receive_used: 837,
            receive_limit: 131_072,
            send_used: 0,
            send_limit: 3_939_840,
            drops: 0,
        }),
        shutdown: Some(Shutdown { receive: true, send: false }),
        cgroup_id: Some(1),
        ..stand_in(4114, TcpState::CloseWait, 42455, 34658)
    };
    assert_eq!(message(&bytes(CLOSE_WAIT)), Ok(expected));
}

#[test]
#[cfg(target_endian = "little")]
fn stand_ins_have_no_owner_and_no_counters() {
    let timer = |kind, expires_ms| Some(Timer { kind, expires_ms, retransmits: 0 });
    let request = SocketSnapshot {
        request: true,
        timer: timer(TimerKind::Retransmit, 1000),
        ..stand_in(2033, TcpState::SynReceived, 38009, 53010)
    };
    assert_eq!(message(&bytes(REQUEST_MAPPED)), Ok(request));
    let orphan = SocketSnapshot {
        mini: true,
        timer: timer(TimerKind::TimeWait, 59_992),
        ..stand_in(2035, TcpState::FinWait2, 43102, 34983)
    };
    assert_eq!(message(&bytes(FIN_WAIT_2_MINI)), Ok(orphan));
    let ended = SocketSnapshot {
        mini: true,
        timer: timer(TimerKind::TimeWait, 60_000),
        ..stand_in(4116, TcpState::TimeWait, 39645, 48126)
    };
    assert_eq!(message(&bytes(TIME_WAIT_MAPPED)), Ok(ended));
}

#[test]
fn damage_is_named() {
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
        assert_eq!(timer, Some(Timer { kind, expires_ms: expected, retransmits: 7 }));
    }
}

#[test]
fn attributes_of_later_kernels_are_skipped() {
    let known = bytes(CLOSE_WAIT);
    let mut longer = known.clone();
    longer.extend([[7u16.to_ne_bytes(), 999u16.to_ne_bytes()].concat(), vec![1, 2, 3, 0]].concat());
    assert_eq!(message(&longer), message(&known));
}

/// Never panics, and what it understands keeps its promises.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(socket) = message(bytes) else {
        return Ok(());
    };
    prop_assert!(!(socket.request && socket.mini));
    prop_assert!(socket.is_full() || (socket.uid, socket.info) == (None, None));
    prop_assert_eq!(socket.accept_queue.is_some(), socket.is_full() && socket.state == TcpState::Listen);
    prop_assert_eq!(socket.unread_bytes().is_some(), socket.end_of_stream_unread().is_some());
    prop_assert!(socket.unacknowledged_bytes().is_none_or(|count| count <= socket.wqueue));
    for endpoint in [socket.local, socket.remote] {
        let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().is_some();
        prop_assert!(!matches!(endpoint.address, IpAddr::V6(address) if mapped(address)));
    }
    let _ = socket.state_age_at_least_ms();
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check(&bytes)?;
    }

    #[test]
    fn any_damage_is_survived(
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
