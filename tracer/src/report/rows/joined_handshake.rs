//! A handshake with what both hosts know of it.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use tracer_core::{
    analysis::{HandshakeEnd, HandshakeOutcome, JoinedHandshake, MatchedBy, SpanBounds, UtcTime},
    event::{ClockOffset, Endpoint, Netns, Timestamp},
    lifecycle::SegmentDrop,
};

use crate::report::{
    fields::fields,
    rows::segment_drop::drops,
    text::{
        OrDash,
        endpoint::{EndpointText, known_address, known_port},
        joined::{JoinHosts, joined_story},
        marks::joined_mark,
        name::{EscapedText, ProcessName},
        quantity::{duration, microseconds},
        table::table,
        wall_time::{Rfc3339, rfc3339},
    },
};

/// A handshake of which both ends are known, or a failed client of which the server's host has no trace.
#[derive(Clone, Copy, Debug)]
pub struct JoinedHandshakeRow<'a> {
    joined: &'a JoinedHandshake<'a>,
    hosts: &'a JoinHosts,
}

impl<'a> JoinedHandshakeRow<'a> {
    /// Creates the row of a handshake between these hosts.
    pub fn new(joined: &'a JoinedHandshake<'a>, hosts: &'a JoinHosts) -> Self {
        Self { joined, hosts }
    }

    fn host(&self, is_here: bool) -> EscapedText<'a> {
        EscapedText(if is_here { &self.hosts.this } else { &self.hosts.other }.as_bytes())
    }

    fn server<T>(&self, value: impl FnOnce(&HandshakeEnd) -> T) -> Option<T> {
        self.joined.server.map(value)
    }

    fn server_end(&self) -> Option<Endpoint> {
        self.server(|server| server.local)
    }

    fn client_end(&self) -> Option<Endpoint> {
        self.server(|server| server.remote)
    }

    fn uncertainty(&self) -> Option<SpanBounds> {
        let one_way = self.joined.one_way;
        [one_way.syn, one_way.syn_ack, one_way.ack]
            .into_iter()
            .flatten()
            .max_by_key(|span| span.uncertainty())
    }
}

/// Returns a wall-clock time as the rows show it.
pub(super) fn wall_time(time: UtcTime) -> Rfc3339 {
    rfc3339(Timestamp(0), ClockOffset { to_utc_ns: time.nanoseconds().into() })
}

fn middle(span: Option<SpanBounds>) -> Option<f64> {
    span.map(|span| microseconds(span.middle()))
}

fields! { JoinedHandshakeRow<'_>, |row| {
    /// `joined_handshake`
    type: &'static str = "joined_handshake";
    /// When the handshake ended for the client, on the client's clock
    time: Rfc3339 ["ns"] = wall_time(row.joined.client.ended);
    /// What the ends were matched by: `sequence_numbers`, `client_sequence_number` or `endpoints`. Null if the server's host has no trace of the handshake
    matched_by: Option<&'static str> = row.joined.by.map(MatchedBy::name);
    /// Name of the client's host
    client_host: EscapedText<'_> = row.host(row.joined.client_is_here);
    /// Name of the server's host
    server_host: EscapedText<'_> = row.host(!row.joined.client_is_here);
    /// Client's address, as the client sees it
    client_address: IpAddr = row.joined.client.local.address;
    /// Client's port, as the client sees it
    client_port: Option<u16> = known_port(row.joined.client.local);
    /// Server's address, as the client sees it
    server_address: Option<IpAddr> = known_address(row.joined.client.remote);
    /// Server's port, as the client sees it
    server_port: Option<u16> = known_port(row.joined.client.remote);
    /// Client's address, as the server sees it: another one behind address translation
    client_address_at_server: Option<IpAddr> = row.client_end().and_then(known_address);
    /// Client's port, as the server sees it
    client_port_at_server: Option<u16> = row.client_end().and_then(known_port);
    /// Server's address, as the server sees it
    server_address_at_server: Option<IpAddr> = row.server_end().map(|end| end.address);
    /// Server's port, as the server sees it
    server_port_at_server: Option<u16> = row.server_end().and_then(known_port);
    /// As `outcome` in `handshake_slow`, of the client's end
    client_outcome: &'static str = row.joined.client.outcome.name();
    /// As `outcome` in `handshake_slow`, of the server's end. A handshake that is half-open when the recording ends is `abandoned`
    server_outcome: Option<&'static str> = row.server(|server| server.outcome).map(HandshakeOutcome::name);
    /// As `duration_us` in `handshake_slow`, of the client's end
    client_us: Option<f64> ["us"] = row.joined.client.duration.map(microseconds);
    /// As `duration_us` in `handshake_slow`, of the server's end
    server_us: Option<f64> ["us"] = row.server(|server| server.duration).flatten().map(microseconds);
    /// SYNs that the client sent again
    syn_retransmits: Option<u8> ["segments"] = row.joined.client.retransmits;
    /// SYN-ACKs that the server sent again
    syn_ack_retransmits: Option<u8> ["segments"] = row.server(|server| server.retransmits).flatten();
    /// SYNs that were certainly lost, on either host or between them; 0 if none was, null if unknown
    lost_syns: Option<u32> ["segments"] = row.joined.fate.syns;
    /// SYN-ACKs that were certainly lost
    lost_syn_acks: Option<u32> ["segments"] = row.joined.fate.syn_acks;
    /// ACKs of the SYN-ACK that were certainly lost
    lost_acks: Option<u32> ["segments"] = row.joined.fate.acks;
    /// Segments that the client's host dropped, as `syn_drops` in `connection`
    client_drops: ArrayVec<SegmentDrop, 3> =
        row.joined.client.drops.as_deref().map(drops).unwrap_or_default();
    /// Segments that the server's host dropped
    server_drops: ArrayVec<SegmentDrop, 3> = drops(&row.joined.server_drops);
    /// Time that the SYN took, the clock offset removed. Null if a SYN was sent again
    syn_us: Option<f64> ["us"] = middle(row.joined.one_way.syn);
    /// Time that the SYN-ACK took. Null if one was lost
    syn_ack_us: Option<f64> ["us"] = middle(row.joined.one_way.syn_ack);
    /// Time that the ACK took. Null if one was lost
    ack_us: Option<f64> ["us"] = middle(row.joined.one_way.ack);
    /// How far the true value may be from each of these three
    one_way_uncertainty_us: Option<f64> ["us"] = row.uncertainty().map(|span| microseconds(span.uncertainty()));
    /// Name of the client's process
    client_process: Option<ProcessName> = row.joined.client.process.map(ProcessName);
    /// Process id of the client's process
    client_pid: Option<u32> = row.joined.client.process.map(|process| process.pid);
    /// Name of the server's process
    server_process: Option<ProcessName> = row.server(|server| server.process).flatten().map(ProcessName);
    /// Process id of the server's process
    server_pid: Option<u32> = row.server(|server| server.process).flatten().map(|process| process.pid);
    /// Network namespace of the client's socket
    client_netns: Option<Netns> = row.joined.client.netns;
    /// Network namespace of the server's socket
    server_netns: Option<Netns> = row.server(|server| server.netns).flatten();
    /// What happened, in words that may change
    story: String = joined_story(row.joined);
}}

table! { JoinedHandshakeRow<'_>, |row, wide| {
    [time] "ENDED" = wall_time(row.joined.client.ended);
    left 23 "CLIENT" = EndpointText(row.joined.client.local), drop 1;
    left 23 "SERVER" = EndpointText(row.joined.client.remote);
    left 23 "CLIENT SEEN THERE" = OrDash(row.client_end().map(EndpointText)), if wide;
    left 23 "SERVER SEEN THERE" = OrDash(row.server_end().map(EndpointText)), if wide;
    right 9 "AT CLIENT" = duration(row.joined.client.duration), drop 2;
    right 9 "AT SERVER" = duration(row.server(|server| server.duration).flatten()), drop 3;
    right 8 "SYN" = duration(row.joined.one_way.syn.map(SpanBounds::middle)), if wide;
    right 8 "SYN-ACK" = duration(row.joined.one_way.syn_ack.map(SpanBounds::middle)), if wide;
    right 8 "ACK" = duration(row.joined.one_way.ack.map(SpanBounds::middle)), if wide;
    right 8 "WITHIN" = duration(row.uncertainty().map(SpanBounds::uncertainty)), if wide;
    left 0 "" = "";
    left 0 "STORY" = joined_story(row.joined).as_str(), least 30, mark joined_mark(row.joined);
}}
