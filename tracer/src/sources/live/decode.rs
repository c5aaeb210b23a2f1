//! Decodes a record into an [`Event`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tracer_core::event::{
    AcceptQueue, Call, CgroupId, Endpoint, Event, HandshakeSegment, InitialSequences, KernelName, Micros,
    Millis, Netns, Process, ResetReceived, ResetSent, SegmentDropped, SocketCookie, SocketFlags, SocketId,
    SynAckRetransmit, TcpInfo, TcpState, ThreadName, Timestamp, TimewaitEnd, Transition,
};
use tracer_ebpf::{AF_INET, AF_INET6, Parts, Record, RecordKind, TcpInfo as WireInfo, flags};

use crate::sources::live::reasons::Reasons;

/// Flags of the TCP header (RFC 9293, section 3.1).
const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;

/// The reason for the drop of a SYN by a full accept queue, and the function that drops it.
const ACCEPT_QUEUE_FULL: (&[u8], &[u8]) = (b"accept_queue_full", b"tcp_conn_request");

/// Bits of `sk_shutdown` (`include/net/sock.h`).
const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// Obfuscates socket addresses, so that the output does not reveal kernel addresses.
///
/// A multiplication by an odd number is a bijection, so distinct addresses stay distinct.
#[derive(Clone, Copy, Debug)]
pub struct AddressKey(u64);

impl AddressKey {
    /// Creates a random key.
    pub fn random() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self(RandomState::new().hash_one("socket"))
    }

    fn obfuscate(self, address: u64) -> SocketId {
        SocketId((address ^ self.0).wrapping_mul(self.0 | 1))
    }
}

/// Returns whether the twin program wrote the record at the start of `bytes`.
#[inline]
pub fn is_by_twin(bytes: &[u8]) -> bool {
    let at = std::mem::offset_of!(Record, flags);
    let flags = bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_ne_bytes(*bytes));
    flags.is_some_and(|flags| flags & flags::TWIN != 0)
}

/// Decodes the record at the start of `bytes`, passes its event to `take`, and returns the length of the record.
///
/// `take` gets `None` for a record that cannot be decoded. The length is `None` if the record is truncated. The event
/// is passed by reference because it is as large as a record, and a copy would be expensive.
#[inline]
pub fn event(
    bytes: &[u8],
    key: AddressKey,
    reasons: &Reasons,
    take: impl FnOnce(Option<&Event>),
) -> Option<usize> {
    let Some((parts, length)) = Parts::read_from(bytes) else {
        take(None);
        return None;
    };
    take(of_parts(&parts, key, reasons).as_ref());
    Some(length)
}

#[inline]
fn of_parts(parts: &Parts, key: AddressKey, reasons: &Reasons) -> Option<Event> {
    let record = &parts.record;
    Some(match record.kind {
        kind if kind == RecordKind::Transition as u8 => Event::Transition(transition(parts, key)?),
        kind if kind == RecordKind::SynAckRetransmit as u8 => {
            let (local, remote) = endpoints(parts)?;
            Event::SynAckRetransmit(SynAckRetransmit {
                time: Timestamp(record.time_ns),
                listener: key.obfuscate(record.socket),
                local,
                remote,
                netns: netns(parts),
                attempts: record.attempts.max(1),
                first_sent: (record.value != 0).then_some(Timestamp(record.value)),
                accept_queue: accept_queue(parts),
                acked: record.flags & flags::ACKED != 0,
                sequences: (record.flags & flags::SEQUENCES != 0).then(|| of_request(record.cookie)),
            })
        }
        kind if kind == RecordKind::FirstRead as u8 => Event::FirstRead(call(parts, key)?),
        kind if kind == RecordKind::FirstWrite as u8 => Event::FirstWrite(call(parts, key)?),
        kind if kind == RecordKind::TimeWaitEnd as u8 => {
            let (local, remote) = endpoints(parts)?;
            Event::TimewaitEnd(TimewaitEnd {
                time: Timestamp(record.time_ns),
                state: TcpState::from_kernel(record.old_state)?,
                local,
                remote,
                netns: netns(parts),
            })
        }
        kind if kind == RecordKind::Accepted as u8 => Event::Accepted(call(parts, key)?),
        kind if kind == RecordKind::ResetSent as u8 => {
            let (local, remote) = endpoints(parts)?;
            Event::ResetSent(ResetSent {
                time: Timestamp(record.time_ns),
                socket: (record.socket != 0).then(|| key.obfuscate(record.socket)),
                state: TcpState::from_kernel(record.old_state),
                local,
                remote,
                netns: netns(parts),
                reason: (record.flags & flags::REASON != 0).then(|| reasons.reset(record.value)),
            })
        }
        kind if kind == RecordKind::ResetReceived as u8 => Event::ResetReceived(ResetReceived {
            time: Timestamp(record.time_ns),
            socket: key.obfuscate(record.socket),
        }),
        kind if kind == RecordKind::SegmentDropped as u8 => {
            Event::SegmentDropped(segment_dropped(parts, key, reasons)?)
        }
        _ => return None,
    })
}

fn call(parts: &Parts, key: AddressKey) -> Option<Call> {
    Some(Call {
        time: Timestamp(parts.record.time_ns),
        socket: key.obfuscate(parts.record.socket),
        process: process(parts)?,
        thread: thread(parts),
    })
}

fn segment_dropped(parts: &Parts, key: AddressKey, reasons: &Reasons) -> Option<SegmentDropped> {
    let record = &parts.record;
    let (source, destination) = endpoints(parts)?;
    let (reason, function) = if record.flags & flags::ACCEPT_QUEUE_FULL != 0 {
        let (reason, function) = ACCEPT_QUEUE_FULL;
        (KernelName::new(reason), Some(KernelName::new(function)))
    } else {
        let function = parts.function.map(|function| KernelName::new(&function.name));
        (reasons.drop(record.value), function.filter(|name| !name.is_empty()))
    };
    Some(SegmentDropped {
        time: Timestamp(record.time_ns),
        socket: (record.socket != 0).then(|| key.obfuscate(record.socket)),
        source,
        destination,
        netns: netns(parts),
        segment: match record.attempts & (SYN | ACK) {
            SYN => HandshakeSegment::Syn,
            ACK => HandshakeSegment::Ack,
            0 => return None,
            _ => HandshakeSegment::SynAck,
        },
        reason,
        function,
    })
}

/// Returns the local and the remote endpoint. A v4-mapped address becomes IPv4.
#[inline]
fn endpoints(parts: &Parts) -> Option<(Endpoint, Endpoint)> {
    let record = &parts.record;
    let (local, remote): (IpAddr, IpAddr) = match (record.family, &parts.addresses) {
        (AF_INET, None) => {
            (Ipv4Addr::from(record.local_address).into(), Ipv4Addr::from(record.remote_address).into())
        }
        (AF_INET6, Some(addresses)) => {
            let address = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical();
            (address(addresses.local), address(addresses.remote))
        }
        _ => return None,
    };
    Some((
        Endpoint { address: local, port: record.local_port },
        Endpoint { address: remote, port: record.remote_port },
    ))
}

fn netns(parts: &Parts) -> Option<Netns> {
    (parts.record.flags & flags::NETNS != 0).then_some(Netns(parts.record.netns))
}

fn process(parts: &Parts) -> Option<Process> {
    parts.process.map(|process| Process { pid: process.tgid, uid: process.uid, comm: process.comm })
}

fn thread(parts: &Parts) -> Option<ThreadName> {
    parts.thread.map(|thread| ThreadName(thread.comm))
}

fn accept_queue(parts: &Parts) -> Option<AcceptQueue> {
    parts.accept_queue.map(|queue| AcceptQueue { length: queue.length, limit: queue.limit })
}

#[inline]
fn transition(parts: &Parts, key: AddressKey) -> Option<Transition> {
    let record = &parts.record;
    let has = |flag| record.flags & flag != 0;
    let (from, to) = (TcpState::from_kernel(record.old_state)?, TcpState::from_kernel(record.new_state)?);
    let connects = from == TcpState::Closed && to == TcpState::SynSent;
    let (local, remote) = endpoints(parts)?;
    Some(Transition {
        time: Timestamp(record.time_ns),
        socket: key.obfuscate(record.socket),
        cookie: (record.cookie != 0).then_some(SocketCookie(record.cookie)),
        from,
        to,
        // Before the port is bound, the field may have the port of the socket's last connection.
        local: if connects && has(flags::PORT_UNBOUND) { Endpoint { port: 0, ..local } } else { local },
        remote,
        process: process(parts),
        thread: thread(parts),
        netns: netns(parts),
        cgroup_id: has(flags::CGROUP).then_some(CgroupId(record.value)),
        accept_queue: accept_queue(parts),
        data_segments: has(flags::DATA_SEGMENTS).then_some(record.extra),
        unaccepted_segments: has(flags::UNACCEPTED_SEGMENTS).then_some(record.extra),
        interface: has(flags::INTERFACE).then_some(record.extra),
        transparent: has(flags::TRANSPARENT),
        defer_accept: has(flags::DEFER_ACCEPT),
        flags: has(flags::SOCKET_FIELDS).then_some(SocketFlags {
            error: record.error,
            shutdown_receive: record.shutdown & RCV_SHUTDOWN != 0,
            shutdown_send: record.shutdown & SEND_SHUTDOWN != 0,
            peer_fin: has(flags::PEER_FIN),
            linger_zero: has(flags::LINGER_ZERO),
            attached: has(flags::ATTACHED),
            repair: has(flags::REPAIR),
            linger2_negative: has(flags::LINGER2_NEGATIVE),
            fast_open_deferred: has(flags::FAST_OPEN_DEFERRED),
        }),
        info: parts.info.as_ref().map(|info| tcp_info(info, has(flags::PEER_FIN))),
        sequences: parts
            .info
            .as_ref()
            .filter(|_| !has(flags::REPAIR))
            .and_then(|info| initial_sequences(info, from, to)),
    })
}

/// Returns the initial sequence numbers of a request socket: this host's in the high half, the client's in the low one.
fn of_request(numbers: u64) -> InitialSequences {
    let half = |shift: u32| u32::try_from(numbers >> shift & u64::from(u32::MAX)).unwrap_or_default();
    InitialSequences { local: half(32), remote: Some(half(0)) }
}

/// Returns the initial sequence numbers of a handshake that ends with this transition.
#[inline]
fn initial_sequences(info: &WireInfo, from: TcpState, to: TcpState) -> Option<InitialSequences> {
    let remote = Some(info.received_from.wrapping_sub(1));
    match (from, to) {
        (TcpState::SynSent, TcpState::Established) => {
            Some(InitialSequences { local: info.sent_from, remote })
        }
        (TcpState::SynReceived, TcpState::Established) => {
            Some(InitialSequences { local: info.sent_from.wrapping_sub(1), remote })
        }
        // Without a segment the number is an earlier connection's.
        (TcpState::SynSent, TcpState::Closed) if info.segments_sent > 0 => {
            Some(InitialSequences { local: info.sent_from, remote: None })
        }
        _ => None,
    }
}

/// Decodes the counters. With `peer_fin`, one byte is subtracted: a FIN takes a sequence number and is not data.
#[inline]
fn tcp_info(wire: &WireInfo, peer_fin: bool) -> TcpInfo {
    TcpInfo {
        bytes_sent: wire.bytes_sent.saturating_sub(wire.bytes_retransmitted),
        bytes_received: wire.bytes_received.saturating_sub(u64::from(peer_fin)),
        segments_sent: wire.segments_sent,
        segments_received: wire.segments_received,
        data_segments_received: wire.data_segments_received,
        retransmits: wire.retransmits,
        srtt: (wire.srtt_us != 0).then_some(Micros(wire.srtt_us)),
        min_rtt: (wire.min_rtt_us != u32::MAX).then_some(Micros(wire.min_rtt_us)),
        mss: wire.mss,
        user_timeout: (wire.user_timeout_ms != 0).then_some(Millis(wire.user_timeout_ms)),
        unacked_bytes: wire.unacked,
        unread_bytes: wire.unread.saturating_sub(u32::from(peer_fin)),
        segments_in_flight: wire.packets_out,
        pending_retransmits: wire.pending_retransmits,
        probes: wire.probes,
        soft_error: wire.soft_error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_ebpf::{Ipv6Addresses, tcp_state};

    use super::*;

    fn parts() -> Parts {
        Parts {
            record: Record {
                time_ns: 5,
                socket: 0xffff_8880_1234_5678,
                cookie: 0,
                value: 77,
                local_address: [10, 0, 0, 1],
                remote_address: [10, 0, 0, 2],
                flags: flags::PROCESS | flags::NETNS | flags::PORT_UNBOUND,
                netns: 4_026_531_840,
                local_port: 4242,
                remote_port: 443,
                error: 0,
                shutdown: 0,
                attempts: 0,
                kind: RecordKind::Transition as u8,
                old_state: tcp_state::CLOSE,
                new_state: tcp_state::SYN_SENT,
                family: AF_INET,
                extra: 0,
            },
            addresses: None,
            process: Some(tracer_ebpf::Process {
                tgid: 42,
                uid: 1000,
                comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
            }),
            thread: None,
            accept_queue: None,
            info: None,
            function: None,
        }
    }

    fn bytes(parts: &Parts) -> Vec<u8> {
        parts.slices().collect::<Vec<_>>().concat()
    }

    fn decoded(parts: &Parts) -> Transition {
        let bytes = bytes(parts);
        match decode(&bytes, AddressKey::random()) {
            (Some(Event::Transition(transition)), Some(length)) if length == bytes.len() => transition,
            other => panic!("{other:?}"),
        }
    }

    fn decode(bytes: &[u8], key: AddressKey) -> (Option<Event>, Option<usize>) {
        let mut decoded = None;
        let length = event(bytes, key, &Reasons::default(), |event| decoded = event.copied());
        (decoded, length)
    }

    #[test]
    fn an_unbound_port_is_zero() {
        let transition = decoded(&parts());
        assert_eq!(transition.local, Endpoint { address: "10.0.0.1".parse().unwrap(), port: 0 });
        assert_eq!(transition.remote, Endpoint { address: "10.0.0.2".parse().unwrap(), port: 443 });
        let bound = Parts { record: Record { flags: flags::PROCESS, ..parts().record }, ..parts() };
        assert_eq!(decoded(&bound).local.port, 4242);
    }

    #[test]
    fn fields_without_their_flag_are_absent() {
        let transition = decoded(&parts());
        assert_eq!(transition.process.map(|process| (process.pid, process.uid)), Some((42, 1000)));
        assert_eq!(transition.process.unwrap().name(), b"curl");
        assert_eq!((transition.netns, transition.cgroup_id), (Some(Netns(4_026_531_840)), None));
        assert_eq!((transition.cookie, transition.flags, transition.info), (None, None, None));
    }

    #[test]
    fn a_v4_mapped_address_is_ipv4() {
        let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let addresses = Ipv6Addresses { local: octets("2001:db8::1"), remote: octets("::ffff:192.0.2.7") };
        let record =
            Record { family: AF_INET6, flags: flags::IPV6_ADDRESSES | flags::PROCESS, ..parts().record };
        let transition = decoded(&Parts { record, addresses: Some(addresses), ..parts() });
        assert_eq!(transition.local.address, "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(transition.remote.address, "192.0.2.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_record_with_all_parts_is_decoded() {
        let all = flags::IPV6_ADDRESSES
            | flags::PROCESS
            | flags::THREAD
            | flags::ACCEPT_QUEUE
            | flags::INFO
            | flags::FUNCTION;
        let whole = Parts {
            record: Record { family: AF_INET6, flags: all, ..parts().record },
            addresses: Some(Ipv6Addresses { local: [1; 16], remote: [2; 16] }),
            thread: Some(tracer_ebpf::ThreadName { comm: *b"worker-1\0\0\0\0\0\0\0\0" }),
            accept_queue: Some(tracer_ebpf::AcceptQueue { length: 3, limit: 128 }),
            info: Some(WireInfo { srtt_us: 7, min_rtt_us: u32::MAX, ..WireInfo::default() }),
            function: Some(tracer_ebpf::FunctionName { name: [b'x'; 32] }),
            ..parts()
        };
        assert_eq!(bytes(&whole).len(), tracer_ebpf::MAX_RECORD);
        assert_eq!(Parts::read_from(&bytes(&whole)), Some((whole, tracer_ebpf::MAX_RECORD)));
        let transition = decoded(&whole);
        assert_eq!(transition.process.unwrap().name(), b"curl");
        assert_eq!(transition.thread.as_ref().map(ThreadName::name), Some(&b"worker-1"[..]));
        assert_eq!(transition.accept_queue, Some(AcceptQueue { length: 3, limit: 128 }));
        assert_eq!(transition.info.and_then(|info| info.srtt), Some(Micros(7)));
        assert_eq!(decode(&bytes(&whole)[..tracer_ebpf::MAX_RECORD - 1], AddressKey(7)), (None, None));
    }

    #[test]
    fn a_dropped_segment_has_its_kind_its_reason_and_its_function() {
        let dropped = |attempts, flags| {
            let kind = RecordKind::SegmentDropped as u8;
            let record = Record { kind, attempts, flags: flags::FUNCTION | flags, ..parts().record };
            let function =
                Some(tracer_ebpf::FunctionName { name: *b"nft_do_chain [nf_tables]\0\0\0\0\0\0\0\0" });
            let parts = Parts { record, function, process: None, ..parts() };
            match decode(&bytes(&parts), AddressKey(7)).0 {
                Some(Event::SegmentDropped(event)) => {
                    Some((event.segment, event.reason.to_string(), event.function.unwrap().to_string()))
                }
                None => None,
                other => panic!("{other:?}"),
            }
        };
        let by_rule = |segment| Some((segment, "reason_77".to_owned(), "nft_do_chain".to_owned()));
        assert_eq!(dropped(SYN, flags::REASON), by_rule(HandshakeSegment::Syn));
        assert_eq!(dropped(SYN | ACK, flags::REASON), by_rule(HandshakeSegment::SynAck));
        assert_eq!(dropped(ACK | 0x18, flags::REASON), by_rule(HandshakeSegment::Ack));
        assert_eq!(dropped(0, flags::REASON), None);
        let queue = (HandshakeSegment::Syn, "accept_queue_full".to_owned(), "tcp_conn_request".to_owned());
        assert_eq!(dropped(SYN, flags::ACCEPT_QUEUE_FULL), Some(queue));
    }

    #[test]
    fn a_reset_without_a_socket_has_none() {
        let sent = |socket, flags| {
            let kind = RecordKind::ResetSent as u8;
            let record = Record { kind, socket, flags, value: 1, ..parts().record };
            match decode(&bytes(&Parts { record, process: None, ..parts() }), AddressKey(7)).0 {
                Some(Event::ResetSent(event)) => {
                    (event.socket.is_some(), event.reason.map(|reason| reason.to_string()))
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(sent(0, flags::REASON), (false, Some("reason_1".to_owned())));
        assert_eq!(sent(5, 0), (true, None));
    }

    #[test]
    fn one_field_means_what_its_flag_says() {
        let with = |flag| {
            let record = Record { flags: parts().record.flags | flag, extra: 9, ..parts().record };
            let transition = decoded(&Parts { record, ..parts() });
            (transition.data_segments, transition.unaccepted_segments, transition.interface)
        };
        assert_eq!(with(0), (None, None, None));
        assert_eq!(with(flags::DATA_SEGMENTS), (Some(9), None, None));
        assert_eq!(with(flags::UNACCEPTED_SEGMENTS), (None, Some(9), None));
        assert_eq!(with(flags::INTERFACE), (None, None, Some(9)));
    }

    #[test]
    fn flags_of_a_listener() {
        let with = |flag| {
            let record = Record { flags: parts().record.flags | flag, ..parts().record };
            let transition = decoded(&Parts { record, ..parts() });
            (transition.transparent, transition.defer_accept)
        };
        assert_eq!(with(0), (false, false));
        assert_eq!(with(flags::TRANSPARENT), (true, false));
        assert_eq!(with(flags::DEFER_ACCEPT), (false, true));
    }

    #[test]
    fn each_flag_of_the_socket_has_its_field() {
        let with = |flag| {
            let record = Record { flags: flags::SOCKET_FIELDS | flag, ..parts().record };
            decoded(&Parts { record, process: None, ..parts() }).flags.unwrap()
        };
        let none = SocketFlags::default();
        assert_eq!(with(0), none);
        assert_eq!(with(flags::REPAIR), SocketFlags { repair: true, ..none });
        assert_eq!(with(flags::LINGER2_NEGATIVE), SocketFlags { linger2_negative: true, ..none });
        assert_eq!(with(flags::FAST_OPEN_DEFERRED), SocketFlags { fast_open_deferred: true, ..none });
    }

    #[test]
    fn a_handshake_has_its_initial_sequence_numbers() {
        let with = |old_state, new_state, flags, segments_sent| {
            let record = Record {
                old_state,
                new_state,
                flags: flags::INFO | flags::SOCKET_FIELDS | flags,
                ..parts().record
            };
            let info = WireInfo { sent_from: 0, received_from: 8, segments_sent, ..WireInfo::default() };
            decoded(&Parts { record, process: None, info: Some(info), ..parts() }).sequences
        };
        let numbers = |local, remote| Some(InitialSequences { local, remote });
        assert_eq!(with(tcp_state::SYN_SENT, tcp_state::ESTABLISHED, 0, 2), numbers(0, Some(7)));
        assert_eq!(with(tcp_state::SYN_RECV, tcp_state::ESTABLISHED, 0, 0), numbers(u32::MAX, Some(7)));
        assert_eq!(with(tcp_state::SYN_SENT, tcp_state::CLOSE, 0, 1), numbers(0, None));
        assert_eq!(with(tcp_state::SYN_SENT, tcp_state::CLOSE, 0, 0), None);
        assert_eq!(with(tcp_state::SYN_SENT, tcp_state::ESTABLISHED, flags::REPAIR, 2), None);
        assert_eq!(with(tcp_state::LAST_ACK, tcp_state::CLOSE, 0, 9), None);
    }

    #[test]
    fn a_half_open_handshake_has_both_numbers() {
        let numbers = |flags| {
            let kind = RecordKind::SynAckRetransmit as u8;
            let record = Record { kind, flags, cookie: 5 << 32 | 9, ..parts().record };
            match decode(&bytes(&Parts { record, process: None, ..parts() }), AddressKey(7)).0 {
                Some(Event::SynAckRetransmit(event)) => event.sequences,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(numbers(flags::SEQUENCES), Some(InitialSequences { local: 5, remote: Some(9) }));
        assert_eq!(numbers(0), None);
    }

    #[test]
    fn a_resend_for_an_ack_that_came_is_marked() {
        let acked = |flags| {
            let kind = RecordKind::SynAckRetransmit as u8;
            let record = Record { kind, flags, ..parts().record };
            match decode(&bytes(&Parts { record, process: None, ..parts() }), AddressKey(7)).0 {
                Some(Event::SynAckRetransmit(event)) => event.acked,
                other => panic!("{other:?}"),
            }
        };
        assert!(acked(flags::ACKED));
        assert!(!acked(0));
    }

    #[test]
    fn the_twins_records_are_marked() {
        let marked = Record { flags: flags::TWIN | parts().record.flags, ..parts().record };
        assert!(is_by_twin(&bytes(&Parts { record: marked, ..parts() })));
        assert!(!is_by_twin(&bytes(&parts())));
        assert!(!is_by_twin(&[0xff; 40]));
    }

    #[test]
    fn an_unknown_record_has_a_length() {
        let record = Record { new_state: 99, ..parts().record };
        let strange = bytes(&Parts { record, ..parts() });
        assert_eq!(decode(&strange, AddressKey(7)), (None, Some(strange.len())));
    }

    #[test]
    fn obfuscated_addresses_are_distinct_and_changed() {
        let key = AddressKey::random();
        let addresses = [0xffff_8880_0000_0000, 0xffff_8880_0000_0040, 0xffff_8880_0000_0080];
        let hidden: std::collections::HashSet<_> =
            addresses.iter().map(|&address| key.obfuscate(address)).collect();
        assert_eq!(hidden.len(), 3);
        assert!(addresses.iter().all(|&address| key.obfuscate(address) != SocketId(address)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes, AddressKey(7));
        }

        #[test]
        fn any_kind_and_states_decode_without_a_panic(kind: u8, old_state: u8, new_state: u8, family: u8, flags: u32) {
            let record = Record { kind, old_state, new_state, family, flags, ..parts().record };
            let _ = decode(&bytes(&Parts { record, ..parts() }), AddressKey(7));
        }
    }
}
