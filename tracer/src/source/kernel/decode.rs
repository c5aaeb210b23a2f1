//! From a record in the ring buffer to an [`Event`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tracer_ebpf::{AF_INET, AF_INET6, Record, RecordKind, TcpInfo as WireInfo, Wire as _, flags};

use crate::{
    event::{
        AcceptQueue, Endpoint, Event, FirstRead, MiniSocketEnd, Process, SocketFlags, SocketId,
        SynAckRetransmit, TcpInfo, Timestamp, Transition,
    },
    lifecycle::TcpState,
};

/// `sk_shutdown` bits, `include/net/sock.h`.
const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// Hides socket addresses, which would tell a reader of the output where the kernel's memory is.
///
/// Multiplying by an odd number is a bijection, so identities stay distinct.
#[derive(Clone, Copy, Debug)]
pub struct AddressKey(u64);

impl AddressKey {
    /// A key that is different at every start.
    pub fn random() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self(RandomState::new().hash_one("socket"))
    }

    fn hide(self, address: u64) -> SocketId {
        SocketId((address ^ self.0).wrapping_mul(self.0 | 1))
    }
}

/// Reads one record. `None` when it is none that this version writes.
pub fn event(bytes: &[u8], key: AddressKey) -> Option<Event> {
    let record = Record::read_from(bytes)?;
    let info = if record.flags & flags::INFO == 0 {
        None
    } else {
        Some(WireInfo::read_from(bytes.get(size_of::<Record>()..)?)?)
    };
    match record.kind {
        kind if kind == RecordKind::Transition as u8 => {
            Some(Event::Transition(transition(&record, info.as_ref(), key)?))
        }
        kind if kind == RecordKind::SynAckRetransmit as u8 => {
            Some(Event::SynAckRetransmit(SynAckRetransmit {
                time: Timestamp(record.time_ns),
                listener: key.hide(record.socket),
                local: local(&record)?,
                remote: remote(&record)?,
                netns: netns(&record),
                attempts: record.attempts.max(1),
                first_sent: (record.value != 0).then_some(Timestamp(record.value)),
                accept_queue: accept_queue(&record),
            }))
        }
        kind if kind == RecordKind::FirstRead as u8 => Some(Event::FirstRead(FirstRead {
            time: Timestamp(record.time_ns),
            socket: key.hide(record.socket),
            process: process(&record)?,
        })),
        kind if kind == RecordKind::TimeWaitEnd as u8 => Some(Event::MiniSocketEnd(MiniSocketEnd {
            time: Timestamp(record.time_ns),
            state: TcpState::from_kernel(record.old_state)?,
            local: local(&record)?,
            remote: remote(&record)?,
            netns: netns(&record),
        })),
        _ => None,
    }
}

fn local(record: &Record) -> Option<Endpoint> {
    Some(Endpoint { address: address(record.family, &record.local_address)?, port: record.local_port })
}

fn remote(record: &Record) -> Option<Endpoint> {
    Some(Endpoint { address: address(record.family, &record.remote_address)?, port: record.remote_port })
}

fn netns(record: &Record) -> Option<u32> {
    (record.flags & flags::NETNS != 0).then_some(record.netns)
}

fn process(record: &Record) -> Option<Process> {
    (record.flags & flags::PROCESS != 0).then_some(Process {
        pid: record.tgid,
        uid: record.uid,
        comm: record.comm,
    })
}

fn accept_queue(record: &Record) -> Option<AcceptQueue> {
    (record.flags & flags::ACCEPT_QUEUE != 0)
        .then_some(AcceptQueue { length: record.accept_queue, limit: record.accept_queue_limit })
}

fn transition(record: &Record, info: Option<&WireInfo>, key: AddressKey) -> Option<Transition> {
    let has = |flag| record.flags & flag != 0;
    let (from, to) = (TcpState::from_kernel(record.old_state)?, TcpState::from_kernel(record.new_state)?);
    let opening = from == TcpState::Closed && to == TcpState::SynSent;
    Some(Transition {
        time: Timestamp(record.time_ns),
        socket: key.hide(record.socket),
        cookie: (record.cookie != 0).then_some(record.cookie),
        from,
        to,
        // Before the port is bound the field may hold the port of the descriptor's last connection.
        local: local(record).map(|local| {
            if opening && has(flags::PORT_UNBOUND) { Endpoint { port: 0, ..local } } else { local }
        })?,
        remote: remote(record)?,
        process: process(record),
        netns: netns(record),
        cgroup_id: has(flags::CGROUP).then_some(record.value),
        accept_queue: accept_queue(record),
        flags: has(flags::SOCKET_FIELDS).then_some(SocketFlags {
            error: record.error,
            shutdown_receive: record.shutdown & RCV_SHUTDOWN != 0,
            shutdown_send: record.shutdown & SEND_SHUTDOWN != 0,
            peer_fin: has(flags::PEER_FIN),
            linger_zero: has(flags::LINGER_ZERO),
            attached: has(flags::ATTACHED),
        }),
        info: info.map(|info| tcp_info(info, has(flags::PEER_FIN))),
    })
}

/// `peer_fin` is taken off the counts: a FIN takes one sequence number and is no data.
fn tcp_info(wire: &WireInfo, peer_fin: bool) -> TcpInfo {
    TcpInfo {
        bytes_sent: wire.bytes_sent.saturating_sub(wire.bytes_retransmitted),
        bytes_received: wire.bytes_received.saturating_sub(u64::from(peer_fin)),
        segments_sent: wire.segments_sent,
        segments_received: wire.segments_received,
        data_segments_received: wire.data_segments_received,
        retransmits: wire.retransmits,
        srtt_us: (wire.srtt_us != 0).then_some(wire.srtt_us),
        min_rtt_us: (wire.min_rtt_us != u32::MAX).then_some(wire.min_rtt_us),
        mss: wire.mss,
        user_timeout_ms: (wire.user_timeout_ms != 0).then_some(wire.user_timeout_ms),
        unacked_bytes: wire.unacked,
        unread_bytes: wire.unread.saturating_sub(u32::from(peer_fin)),
        segments_in_flight: wire.packets_out,
        pending_retransmits: wire.pending_retransmits,
        probes: wire.probes,
        soft_error: wire.soft_error,
    }
}

/// An address as the wire has it; a v4-mapped one as the IPv4 address it stands for.
fn address(family: u8, bytes: &[u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        AF_INET6 => Some(Ipv6Addr::from(*bytes).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tracer_ebpf::tcp_state;

    fn record() -> Record {
        let mut local_address = [0; 16];
        local_address[..4].copy_from_slice(&[10, 0, 0, 1]);
        let mut remote_address = [0; 16];
        remote_address[..4].copy_from_slice(&[10, 0, 0, 2]);
        Record {
            time_ns: 5,
            socket: 0xffff_8880_1234_5678,
            cookie: 0,
            value: 77,
            local_address,
            remote_address,
            comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
            flags: flags::PROCESS | flags::NETNS | flags::PORT_UNBOUND,
            netns: 4_026_531_840,
            tgid: 42,
            uid: 1000,
            accept_queue: 0,
            accept_queue_limit: 0,
            local_port: 4242,
            remote_port: 443,
            error: 0,
            shutdown: 0,
            attempts: 0,
            kind: RecordKind::Transition as u8,
            old_state: tcp_state::CLOSE,
            new_state: tcp_state::SYN_SENT,
            family: AF_INET,
            reserved: 0,
        }
    }

    fn decoded(record: &Record) -> Transition {
        match event(record.as_bytes(), AddressKey::random()) {
            Some(Event::Transition(transition)) => transition,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unbound_port_is_not_believed() {
        let transition = decoded(&record());
        assert_eq!(transition.local, Endpoint { address: "10.0.0.1".parse().unwrap(), port: 0 });
        assert_eq!(transition.remote, Endpoint { address: "10.0.0.2".parse().unwrap(), port: 443 });
        let bound = Record { flags: flags::PROCESS, ..record() };
        assert_eq!(decoded(&bound).local.port, 4242);
    }

    #[test]
    fn what_is_not_flagged_is_absent() {
        let transition = decoded(&record());
        assert_eq!(transition.process.map(|process| (process.pid, process.uid)), Some((42, 1000)));
        assert_eq!(transition.process.unwrap().name(), b"curl");
        assert_eq!((transition.netns, transition.cgroup_id), (Some(4_026_531_840), None));
        assert_eq!((transition.cookie, transition.flags, transition.info), (None, None, None));
    }

    #[test]
    fn a_v4_mapped_address_is_ipv4() {
        let mapped = "::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets();
        let transition = decoded(&Record { family: AF_INET6, remote_address: mapped, ..record() });
        assert_eq!(transition.remote.address, "192.0.2.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn hidden_addresses_stay_distinct_and_do_not_show() {
        let key = AddressKey::random();
        let addresses = [0xffff_8880_0000_0000, 0xffff_8880_0000_0040, 0xffff_8880_0000_0080];
        let hidden: std::collections::HashSet<_> =
            addresses.iter().map(|&address| key.hide(address)).collect();
        assert_eq!(hidden.len(), 3);
        assert!(addresses.iter().all(|&address| key.hide(address) != SocketId(address)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = event(&bytes, AddressKey(7));
        }

        #[test]
        fn any_kind_and_states(kind: u8, old_state: u8, new_state: u8, family: u8, flags: u32) {
            let record = Record { kind, old_state, new_state, family, flags, ..record() };
            let _ = event(record.as_bytes(), AddressKey(7));
        }
    }
}
