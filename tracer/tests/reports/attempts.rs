//! Handshake attempts.

use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{Endpoint, HandshakeSegment, KernelName, Nanos, Netns, Process, SegmentDropped, Timestamp},
    lifecycle::{CloseReason, DurationSource, ObservedDrops, Role, SegmentDrops},
};

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000 * US;
pub(crate) const SECOND: u64 = 1_000 * MS;

pub(crate) fn end(address: &str, port: u16) -> Endpoint {
    Endpoint { address: address.parse().unwrap(), port }
}

pub(crate) fn process(pid: u32, name: &str) -> Process {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    Process { pid, uid: 1000, comm }
}

/// Returns a client's handshake whose whole duration is the network round trip.
pub(crate) fn client(to: Endpoint, duration: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        thread: None,
        ended: Timestamp(duration),
        role: Role::Client,
        local: end("10.0.0.1", 40_000),
        remote: to,
        process: Some(process(4711, "orders-api")),
        netns: Some(Netns(4_026_531_840)),
        cgroup_id: None,
        outcome: HandshakeOutcome::Established,
        duration: Some(Nanos(duration)),
        source: DurationSource::Observed,
        caveat: None,
        rtt: Some(Nanos(duration)),
        retransmits: Some(0),
        lost: Some(false),
        error: None,
        drops: SegmentDrops::NONE,
        unserved: false,
        entered: None,
        sequences: None,
        half_open: None,
        backend: None,
    }
}

/// Returns a client's handshake after lost SYNs, with the total wait of a retransmission schedule.
pub(crate) fn lossy(to: Endpoint, rtt: u64, lost: u8, waited_ns: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        duration: Some(Nanos(waited_ns + rtt)),
        rtt: Some(Nanos(rtt)),
        retransmits: Some(lost),
        lost: Some(true),
        ..client(to, rtt)
    }
}

/// Returns a client's handshake that failed.
pub(crate) fn failed(to: Endpoint, reason: CloseReason, after_ns: u64) -> HandshakeAttempt {
    HandshakeAttempt { outcome: HandshakeOutcome::Failed(reason), rtt: None, ..client(to, after_ns) }
}

/// Returns a server's handshake with the duration measured by the kernel.
pub(crate) fn served(port: u16, from: Endpoint, duration: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        role: Role::Server,
        local: end("10.0.0.1", port),
        source: DurationSource::Measured,
        ..client(from, duration)
    }
}

/// Returns the drops of a handshake of which this host dropped one kind of segment, by a rule of nftables.
pub(crate) fn dropped(segment: HandshakeSegment, count: u32) -> SegmentDrops {
    let mut drops = SegmentDrops::observed(ObservedDrops::All);
    let ends = end("192.0.2.1", 443);
    for _ in 0..count {
        drops.add(&SegmentDropped {
            time: Timestamp(0),
            socket: None,
            source: ends,
            destination: ends,
            netns: None,
            segment,
            reason: KernelName::new(b"netfilter_drop"),
            function: Some(KernelName::new(b"nft_do_chain")),
        });
    }
    drops
}
