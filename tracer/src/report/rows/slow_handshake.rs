//! One of the slowest handshakes.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use tracer_core::{
    analysis::{GroupKey, HandshakeAttempt},
    event::{ClockOffset, Netns},
    lifecycle::{HandshakeCaveat, SegmentDrop},
};

use crate::report::{
    fields::fields,
    rows::segment_drop::drops,
    text::{
        OrDash,
        endpoint::{EndpointText, known_address, known_port, network_type},
        handshake::{group_name, story},
        marks::attempt_mark,
        name::ProcessName,
        quantity::{duration, microseconds},
        table::table,
        wall_time::{Rfc3339, rfc3339},
    },
};

/// One of the slowest handshakes.
#[derive(Clone, Copy, Debug)]
pub struct SlowHandshakeRow<'a> {
    key: &'a GroupKey,
    attempt: &'a HandshakeAttempt,
    clock: ClockOffset,
}

impl<'a> SlowHandshakeRow<'a> {
    /// Creates the row of a handshake in the group of `key`.
    pub fn new(key: &'a GroupKey, attempt: &'a HandshakeAttempt, clock: ClockOffset) -> Self {
        Self { key, attempt, clock }
    }

    fn ended(&self) -> Rfc3339 {
        rfc3339(self.attempt.ended, self.clock)
    }
}

fields! { SlowHandshakeRow<'_>, |row| {
    /// `handshake_slow`
    type: &'static str = "handshake_slow";
    /// When the handshake ended; for an abandoned one, when the last SYN-ACK was sent
    time: Rfc3339 ["ns"] = row.ended();
    /// Its group
    group: String = group_name(row.key);
    /// As in `connection`
    role: &'static str = row.attempt.role.name();
    /// `ipv4` or `ipv6`
    network_type: &'static str = network_type(row.attempt.local);
    /// As in `connection`
    local_address: IpAddr = row.attempt.local.address;
    /// As in `connection`
    local_port: Option<u16> = known_port(row.attempt.local);
    /// As in `connection`
    remote_address: Option<IpAddr> = known_address(row.attempt.remote);
    /// As in `connection`
    remote_port: Option<u16> = known_port(row.attempt.remote);
    /// `established`, a [close reason](close-reasons.md), or `abandoned`
    outcome: &'static str = row.attempt.outcome.name();
    /// Duration of the handshake. Failed: time until the failure. Abandoned: time from the first SYN-ACK to the last
    duration_us: Option<f64> ["us"] = row.attempt.duration.map(microseconds);
    /// As `handshake_source` in `connection`
    duration_source: Option<&'static str> =
        row.attempt.duration.map(|_| row.attempt.source.name());
    /// As `handshake_caveat` in `connection`
    caveat: Option<&'static str> = row.attempt.caveat.map(HandshakeCaveat::name);
    /// As `handshake_rtt_us` in `connection`
    rtt_us: Option<f64> ["us"] = row.attempt.rtt.map(microseconds);
    /// Time spent waiting for retransmissions; null if unknown
    resend_wait_us: Option<f64> ["us"] = row.attempt.split().retransmit_wait.map(microseconds);
    /// As in `connection`
    syn_retransmits: Option<u8> ["segments"] = row.attempt.retransmits;
    /// Process id of the owner
    pid: Option<u32> = row.attempt.process.map(|process| process.pid);
    /// Name of the owner
    process: Option<ProcessName> = row.attempt.process.map(ProcessName);
    /// Inode of the network namespace
    netns: Option<Netns> = row.attempt.netns;
    /// What happened, in words that may change
    story: String = story(row.attempt);
    /// As in `connection`
    syn_lost: Option<bool> = row.attempt.lost;
    /// As in `connection`
    syn_drops: ArrayVec<SegmentDrop, 3> = drops(&row.attempt.drops);
    /// As in `connection`
    backend_address: Option<IpAddr> = row.attempt.backend.map(|backend| backend.address);
    /// As in `connection`
    backend_port: Option<u16> = row.attempt.backend.map(|backend| backend.port);
}}

table! { SlowHandshakeRow<'_>, |row, wide| {
    [time] "ENDED" = row.ended();
    right 7 "PID" = OrDash(row.attempt.process.map(|process| process.pid)), drop 3;
    left 15 "PROCESS" = OrDash(row.attempt.process.map(ProcessName)), drop 1;
    left 23 "LOCAL" = EndpointText(row.attempt.local), drop 2;
    left 23 "REMOTE" = EndpointText(row.attempt.remote);
    right 8 "TIME" = duration(row.attempt.duration);
    left 0 "" = "";
    left 0 "STORY" = story(row.attempt).as_str(), least 30, mark attempt_mark(row.attempt);
}}
