//! Failed clients of which the server's host has no handshake: their SYNs did not arrive, or that host dropped them.

use std::net::IpAddr;

use hashbrown::HashSet;

use crate::{
    analysis::{
        HandshakeOutcome,
        join::{
            ClockBounds, HandshakeEnd, HandshakeFate, JoinSide, JoinedHandshake, OneWayTimes, UtcTime,
            matching::Matching,
        },
    },
    event::{Endpoint, HandshakeSegment},
    lifecycle::{Role, SegmentDrops},
};

/// How long before and after an attempt a drop may be and belong to it, nanoseconds.
const NEAR: i64 = 500_000_000;

/// Returns the failed `clients` that connected to the host of `servers`, and have no end there.
pub(super) fn traceless<'a>(
    clients: &'a [HandshakeEnd],
    servers: &JoinSide,
    matching: &Matching<'_>,
    client_is_here: bool,
    server_ahead: impl Fn(&HandshakeEnd) -> Option<ClockBounds>,
) -> Vec<JoinedHandshake<'a>> {
    let addresses: HashSet<IpAddr, foldhash::fast::FixedState> = servers
        .ends
        .iter()
        .map(|end| end.local.address)
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .collect();
    let reached: HashSet<Endpoint, foldhash::fast::FixedState> =
        matching.pairs.iter().filter_map(|pair| Some(clients.get(pair.client)?.remote)).collect();
    let mut found = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        let failed = client.role == Role::Client && matches!(client.outcome, HandshakeOutcome::Failed(_));
        if !failed || client.sequences.is_none() || matching.client_places.contains_key(&index) {
            continue;
        }
        let ahead = server_ahead(client);
        let server_drops = drops(client, servers, ahead);
        let is_of_host = addresses.contains(&client.remote.address) || reached.contains(&client.remote);
        if server_drops.is_empty() && !(is_of_host && is_covered(client, servers, ahead)) {
            continue;
        }
        let mut fate = HandshakeFate::new(client, None, ahead);
        let dropped = server_drops.count().saturating_add(client.dropped(HandshakeSegment::Syn));
        fate.syns = (dropped > 0).then_some(dropped);
        found.push(JoinedHandshake {
            client,
            server: None,
            client_is_here,
            by: None,
            fate,
            one_way: OneWayTimes::default(),
            server_drops,
        });
    }
    found
}

/// Returns the SYNs of the client that the server's host dropped. Without bounds of the clocks, the endpoints decide.
fn drops(client: &HandshakeEnd, servers: &JoinSide, ahead: Option<ClockBounds>) -> SegmentDrops {
    let mut drops = SegmentDrops::NONE;
    let began = client.began.unwrap_or(client.ended);
    for (time, event) in servers.dropped.get(&(client.local, client.remote)).into_iter().flatten() {
        let is_near = ahead.is_none_or(|ahead| {
            let on_client = time.0.saturating_sub(ahead.middle());
            let near = NEAR.saturating_add(ahead.uncertainty());
            began.0.saturating_sub(near) <= on_client && on_client <= client.ended.0.saturating_add(near)
        });
        if is_near {
            drops.add(event);
        }
    }
    drops
}

/// Returns whether the recording of the server's host covers the whole attempt.
fn is_covered(client: &HandshakeEnd, servers: &JoinSide, ahead: Option<ClockBounds>) -> bool {
    let (Some(ahead), Some((UtcTime(first), UtcTime(last)))) = (ahead, servers.span) else { return false };
    let began = client.began.unwrap_or(client.ended);
    began.0.saturating_add(ahead.low) >= first && client.ended.0.saturating_add(ahead.high) <= last
}
