//! Openings to sum up.

use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{Endpoint, Process, Timestamp},
    lifecycle::{CloseReason, DurationSource, Role},
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

/// A client's handshake that was all network.
pub(crate) fn client(to: Endpoint, duration_ns: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        ended: Timestamp(duration_ns),
        role: Role::Client,
        local: end("10.0.0.1", 40_000),
        remote: to,
        process: Some(process(4711, "orders-api")),
        netns: Some(4_026_531_840),
        cgroup_id: None,
        outcome: HandshakeOutcome::Established,
        duration_ns: Some(duration_ns),
        source: DurationSource::Observed,
        caveat: None,
        rtt_ns: Some(duration_ns),
        retransmits: Some(0),
        error: None,
    }
}

/// The same, after SYNs that were lost, with the waits of a schedule.
pub(crate) fn lossy(to: Endpoint, rtt_ns: u64, lost: u8, waited_ns: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        duration_ns: Some(waited_ns + rtt_ns),
        rtt_ns: Some(rtt_ns),
        retransmits: Some(lost),
        ..client(to, rtt_ns)
    }
}

pub(crate) fn failed(to: Endpoint, reason: CloseReason, after_ns: u64) -> HandshakeAttempt {
    HandshakeAttempt { outcome: HandshakeOutcome::Failed(reason), rtt_ns: None, ..client(to, after_ns) }
}

/// A server's handshake as the kernel measured it.
pub(crate) fn served(port: u16, from: Endpoint, duration_ns: u64) -> HandshakeAttempt {
    HandshakeAttempt {
        role: Role::Server,
        local: end("10.0.0.1", port),
        source: DurationSource::Measured,
        ..client(from, duration_ns)
    }
}
