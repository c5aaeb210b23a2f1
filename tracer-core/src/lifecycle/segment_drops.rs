//! The segments of handshakes that this host dropped, until their handshake ends.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{
    event::{ConnKey, Endpoint, HandshakeSegment, KernelName, Nanos, SegmentDropped, SocketId, Timestamp},
    lifecycle::{Connection, Role},
};

/// Most kinds of drops of one handshake.
const KINDS: usize = 3;
/// Most handshakes with drops that have not ended. A further one replaces the oldest.
const MAX_HANDSHAKES: usize = 8_192;
/// Most connections with drops in their handshake.
const MAX_CONNECTIONS: usize = 8_192;
/// A handshake lasts at most about two minutes (`tcp_syn_retries` of 6).
const LIFETIME: Nanos = Nanos::from_secs(180);

/// How often this host dropped a segment of a handshake, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentDrop {
    /// The segment.
    pub segment: HandshakeSegment,
    /// The kernel's reason.
    pub reason: KernelName,
    /// The kernel function that dropped it; none when unknown.
    pub function: Option<KernelName>,
    /// How often.
    pub count: u32,
}

/// The segments of one handshake that this host dropped: at most three kinds, the earliest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentDrops {
    kinds: [Option<SegmentDrop>; KINDS],
    /// Which drops the source observes.
    pub observed: ObservedDrops,
}

/// Which drops of a handshake's segments a source observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObservedDrops {
    /// None.
    #[default]
    None,
    /// All except SYNs that a full accept queue drops.
    ExceptFullQueues,
    /// All.
    All,
}

impl SegmentDrops {
    /// No drops.
    pub const NONE: Self = Self::observed(ObservedDrops::None);

    /// No drops, of a source that observes these.
    pub const fn observed(observed: ObservedDrops) -> Self {
        Self { kinds: [None; KINDS], observed }
    }

    /// Iterates over the kinds.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SegmentDrop> + '_ {
        self.kinds.iter().flatten()
    }

    /// Returns whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.kinds[0].is_none()
    }

    /// Returns how many segments were dropped.
    pub fn count(&self) -> u32 {
        self.iter().fold(0, |sum, drop| sum.saturating_add(drop.count))
    }

    /// Adds a dropped segment. A fourth kind is not added.
    pub fn add(&mut self, event: &SegmentDropped) {
        self.add_kind(SegmentDrop {
            segment: event.segment,
            reason: event.reason,
            function: event.function,
            count: 1,
        });
    }

    /// Adds the drops of another handshake. Kinds beyond three are not added.
    pub fn merge(&mut self, other: &Self) {
        for drop in other.iter() {
            self.add_kind(*drop);
        }
        self.observed = self.observed.max(other.observed);
    }

    fn add_kind(&mut self, new: SegmentDrop) {
        for place in &mut self.kinds {
            match place {
                Some(drop) if SegmentDrop { count: new.count, ..*drop } == new => {
                    drop.count = drop.count.saturating_add(new.count);
                    return;
                }
                Some(_) => {}
                None => {
                    *place = Some(new);
                    return;
                }
            }
        }
    }
}

/// The two ends of a handshake, the lesser one first: both directions have the same.
type Ends = (Endpoint, Endpoint);

fn ends(one: Endpoint, other: Endpoint) -> Ends {
    if one <= other { (one, other) } else { (other, one) }
}

/// The drops of one handshake.
#[derive(Clone, Copy, Debug)]
struct Handshake {
    drops: SegmentDrops,
    last: Timestamp,
    /// The client's side has ended and has these drops.
    client: bool,
    /// The server's side likewise.
    server: bool,
}

/// The drops of handshakes that have not ended, and of connections that have not closed.
///
/// A segment does not tell which of its ends is this host, and both may be. So handshakes are found by both endpoints,
/// without their network namespace.
#[derive(Debug, Default)]
pub(super) struct DroppedSegments {
    /// No drops, of this source.
    none: SegmentDrops,
    /// The drops of the connection that was asked for last.
    last: SegmentDrops,
    handshakes: HashMap<Ends, Handshake, foldhash::fast::RandomState>,
    /// The handshakes in the order of their first drop.
    order: VecDeque<(Timestamp, Ends)>,
    connections: HashMap<SocketId, SegmentDrops, foldhash::fast::RandomState>,
}

impl DroppedSegments {
    /// Creates an empty table. `observed`: which drops the source observes.
    pub(super) fn new(observed: ObservedDrops) -> Self {
        Self { none: SegmentDrops::observed(observed), ..Self::default() }
    }

    /// Adds a dropped segment.
    pub(super) fn add(&mut self, event: &SegmentDropped) {
        let ends = ends(event.source, event.destination);
        self.expire(event.time);
        if let Some(handshake) = self.handshakes.get_mut(&ends) {
            // The client's side ends first. After it the server's may still lose an ACK, and a SYN begins another handshake.
            if handshake.server || (handshake.client && event.segment == HandshakeSegment::Syn) {
                handshake.drops = self.none;
                (handshake.client, handshake.server) = (false, false);
            }
            handshake.drops.add(event);
            handshake.last = event.time;
            return;
        }
        if self.handshakes.len() >= MAX_HANDSHAKES
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.handshakes.remove(&oldest);
        }
        let mut drops = self.none;
        drops.add(event);
        self.handshakes.insert(ends, Handshake { drops, last: event.time, client: false, server: false });
        self.order.push_back((event.time, ends));
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some(&(first, ends)) = self.order.front()
            && now.since(first) > LIFETIME
        {
            self.order.pop_front();
            // One with later drops stays for as long again.
            match self.handshakes.get(&ends) {
                Some(handshake) if now.since(handshake.last) <= LIFETIME => {
                    self.order.push_back((handshake.last, ends));
                }
                _ => {
                    self.handshakes.remove(&ends);
                }
            }
        }
    }

    /// Returns the drops of the handshake that ends now on the side of `role`, each only once to each side.
    // By reference: most handshakes have none, and the list is long.
    pub(super) fn of_handshake(&mut self, key: &ConnKey, role: Role, now: Timestamp) -> &SegmentDrops {
        if self.handshakes.is_empty() {
            return &self.none;
        }
        let Some(handshake) = self.handshakes.get_mut(&ends(key.local, key.remote)) else {
            return &self.none;
        };
        let taken = if role == Role::Server { &mut handshake.server } else { &mut handshake.client };
        if *taken || now.since(handshake.last) > LIFETIME {
            return &self.none;
        }
        *taken = true;
        &handshake.drops
    }

    /// Returns the drops of the handshake that `connection` has completed, and keeps them until it closes.
    pub(super) fn established(
        &mut self,
        socket: SocketId,
        connection: &Connection,
        now: Timestamp,
    ) -> &SegmentDrops {
        if self.handshakes.is_empty() {
            return &self.none;
        }
        self.last = *self.of_handshake(&connection.key(), connection.role, now);
        if !self.last.is_empty() && self.connections.len() < MAX_CONNECTIONS {
            self.connections.insert(socket, self.last);
        }
        &self.last
    }

    /// Returns the drops of the handshake of a connection that leaves the table, and forgets them.
    pub(super) fn closed(
        &mut self,
        socket: SocketId,
        connection: &Connection,
        now: Timestamp,
    ) -> &SegmentDrops {
        if connection.never_established() {
            return self.of_handshake(&connection.key(), connection.role, now);
        }
        if self.connections.is_empty() {
            return &self.none;
        }
        self.last = self.connections.remove(&socket).unwrap_or(self.none);
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { address: "10.0.0.1".parse().unwrap(), port }
    }

    fn dropped(at: u64, client: u16, segment: HandshakeSegment, reason: &str) -> SegmentDropped {
        let (client, server) = (endpoint(client), endpoint(80));
        let answers = segment == HandshakeSegment::SynAck;
        SegmentDropped {
            time: Timestamp(at * 1_000_000_000),
            socket: None,
            source: if answers { server } else { client },
            destination: if answers { client } else { server },
            netns: None,
            segment,
            reason: KernelName::new(reason.as_bytes()),
            function: None,
        }
    }

    fn key(client: u16) -> ConnKey {
        ConnKey { netns: None, local: endpoint(client), remote: endpoint(80) }
    }

    fn counts(drops: &SegmentDrops) -> Vec<(&'static str, String, u32)> {
        drops.iter().map(|drop| (drop.segment.name(), drop.reason.to_string(), drop.count)).collect()
    }

    #[test]
    fn each_side_of_a_handshake_has_its_drops_once() {
        let mut table = DroppedSegments::default();
        table.add(&dropped(1, 1000, HandshakeSegment::Syn, "netfilter_drop"));
        table.add(&dropped(2, 1000, HandshakeSegment::Syn, "netfilter_drop"));
        table.add(&dropped(3, 1000, HandshakeSegment::SynAck, "neigh_failed"));
        let now = Timestamp(4_000_000_000);
        let expected =
            vec![("syn", "netfilter_drop".to_owned(), 2), ("syn_ack", "neigh_failed".to_owned(), 1)];
        assert_eq!(counts(table.of_handshake(&key(1000), Role::Client, now)), expected);
        let server = |client| ConnKey { netns: None, local: endpoint(80), remote: endpoint(client) };
        assert_eq!(counts(table.of_handshake(&server(1000), Role::Server, now)), expected);
        assert!(table.of_handshake(&key(1000), Role::Client, now).is_empty());
        assert!(table.of_handshake(&key(1001), Role::Client, now).is_empty());
        // An ACK that is lost after the client's side has ended is the server's.
        table.add(&dropped(1, 1001, HandshakeSegment::Syn, "netfilter_drop"));
        assert_eq!(table.of_handshake(&key(1001), Role::Client, now).count(), 1);
        table.add(&dropped(2, 1001, HandshakeSegment::Ack, "netfilter_drop"));
        assert_eq!(table.of_handshake(&server(1001), Role::Server, now).count(), 2);
        // The next handshake of the same endpoints starts afresh.
        table.add(&dropped(5, 1000, HandshakeSegment::Ack, "tcp_listen_overflow"));
        let next = table.of_handshake(&server(1000), Role::Server, Timestamp(6_000_000_000));
        assert_eq!(counts(next), [("ack", "tcp_listen_overflow".to_owned(), 1)]);
    }

    #[test]
    fn more_kinds_than_places_and_old_drops_are_left_out() {
        let mut table = DroppedSegments::default();
        for reason in ["a", "b", "c", "d"] {
            table.add(&dropped(1, 1000, HandshakeSegment::Syn, reason));
        }
        let late = Timestamp(200_000_000_000);
        assert!(table.of_handshake(&key(1000), Role::Client, late).is_empty());
        let drops = table.of_handshake(&key(1000), Role::Client, Timestamp(2_000_000_000));
        assert_eq!((drops.iter().count(), drops.count()), (3, 3));
    }

    #[test]
    fn a_flood_of_drops_is_bounded() {
        let mut table = DroppedSegments::default();
        for client in 0..20_000_u16 {
            table.add(&dropped(1 + u64::from(client / 1000), client + 1, HandshakeSegment::Syn, "x"));
        }
        assert_eq!((table.handshakes.len(), table.order.len()), (MAX_HANDSHAKES, MAX_HANDSHAKES));
        table.add(&dropped(1000, 1, HandshakeSegment::Syn, "x"));
        assert_eq!((table.handshakes.len(), table.order.len()), (1, 1));
    }
}
