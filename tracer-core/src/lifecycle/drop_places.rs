//! Counts of dropped handshake segments by service and cause.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::event::{Endpoint, HandshakeSegment, KernelName, SegmentDropped};

/// Places counted separately. A scan through a closed firewall has more; it is one cause.
const MAX_PLACES: usize = 1024;

/// A service whose handshakes lose segments on this host, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropPlace {
    /// The server's endpoint: the destination of a SYN or an ACK, the source of a SYN-ACK.
    pub service: Endpoint,
    /// The dropped segment.
    pub segment: HandshakeSegment,
    /// The kernel's reason.
    pub reason: KernelName,
    /// The kernel function that dropped it; none when unknown.
    pub function: Option<KernelName>,
}

/// Counts dropped segments of handshakes, also of those that leave no other trace: a SYN that a rule of the server's host
/// drops creates no socket there.
///
/// The first 1,024 places have their own count; all others share one, [`overflow`](Self::overflow).
#[derive(Clone, Debug, Default)]
pub struct DropPlaces {
    counts: BTreeMap<DropPlace, u64>,
    overflow: u64,
}

impl DropPlaces {
    /// Counts a dropped segment.
    pub(super) fn count(&mut self, event: &SegmentDropped) {
        let service = match event.segment {
            HandshakeSegment::Syn | HandshakeSegment::Ack => event.destination,
            HandshakeSegment::SynAck => event.source,
        };
        let place =
            DropPlace { service, segment: event.segment, reason: event.reason, function: event.function };
        if self.counts.len() < MAX_PLACES || self.counts.contains_key(&place) {
            *self.counts.entry(place).or_default() += 1;
        } else {
            self.overflow += 1;
        }
    }

    /// Returns the count of each place: the largest first, equal counts in order of the place.
    pub fn by_place(&self) -> Vec<(DropPlace, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(place, count)| (*place, *count)).collect();
        all.sort_by_key(|(_, count)| Reverse(*count));
        all
    }

    /// Returns the drops of the places without their own count.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    const CLIENT: &str = "192.0.2.1:40000";

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn dropped(segment: HandshakeSegment, source: &str, destination: &str) -> SegmentDropped {
        SegmentDropped {
            time: Timestamp(0),
            socket: None,
            source: endpoint(source),
            destination: endpoint(destination),
            netns: None,
            segment,
            reason: KernelName::new(b"netfilter_drop"),
            function: None,
        }
    }

    #[test]
    fn segments_count_for_the_service_in_both_directions() {
        use HandshakeSegment::{Ack, Syn, SynAck};
        let mut places = DropPlaces::default();
        let server = "192.0.2.2:80";
        for event in [
            dropped(Syn, CLIENT, server),
            dropped(SynAck, server, CLIENT),
            dropped(Ack, CLIENT, server),
            dropped(SynAck, server, "192.0.2.1:40001"),
        ] {
            places.count(&event);
        }
        let counts: Vec<_> =
            places.by_place().iter().map(|(place, count)| (place.segment, place.service, *count)).collect();
        let server = endpoint(server);
        assert_eq!(counts, [(SynAck, server, 2), (Syn, server, 1), (Ack, server, 1)]);
        assert_eq!(places.overflow(), 0);
    }

    #[test]
    fn places_over_the_limit_share_a_count() {
        let mut places = DropPlaces::default();
        for port in 1..=1030 {
            places.count(&dropped(HandshakeSegment::Syn, CLIENT, &format!("192.0.2.2:{port}")));
        }
        places.count(&dropped(HandshakeSegment::Syn, CLIENT, "192.0.2.2:1"));
        let all = places.by_place();
        assert_eq!((all.len(), places.overflow()), (1024, 6));
        assert_eq!((all[0].0.service, all[0].1), (endpoint("192.0.2.2:1"), 2));
    }
}
