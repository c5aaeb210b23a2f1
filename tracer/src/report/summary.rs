//! The lines on stderr at the end of every run.

use std::fmt;

use tracer_core::{
    counted::{counted, counted_as},
    event::SourceCounts,
    lifecycle::{AbandonedAt, AbandonedHandshakes, DropPlace, DropPlaces, TrackerCounts},
};

use crate::report::text::{
    endpoint::EndpointText,
    handshake::place_text,
    style::{Mark, Palette},
};

/// Counts of the transitions that were seen, and of those that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The counts of the source.
    pub source: SourceCounts,
    /// The counts of the connection table.
    pub tracker: TrackerCounts,
    /// Connections still open.
    pub live: usize,
}

impl Summary {
    /// Returns the line. Losses have a style.
    pub fn text(&self, palette: Palette) -> String {
        let parts = self.parts().into_iter().map(|(part, mark)| palette.painted(part, mark));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Returns the counts with their nouns. Some are only there if they are not 0.
    fn parts(&self) -> Vec<(String, Mark)> {
        let Self { source, tracker, live } = self;
        let loss = |count: u64| Mark::Bad.when(count != 0);
        let skipped = match source.skipped {
            Some(skipped) => (format!("{skipped} skipped by the kernel"), loss(skipped)),
            None => ("skips by the kernel unknown".to_owned(), Mark::Plain),
        };
        let mut parts = vec![
            (counted_as(source.seen, "transition seen", "transitions seen"), Mark::Plain),
            (format!("{} lost in the ring", source.lost), loss(source.lost)),
            skipped,
            (counted_as(tracker.closed, "connection closed", "connections closed"), Mark::Plain),
            (format!("{live} open"), Mark::Plain),
            (format!("{} evicted", tracker.evicted), loss(tracker.evicted)),
            (format!("{} unmatched", tracker.unmatched), Mark::Plain),
            (counted(tracker.gaps, "gap"), loss(tracker.gaps)),
        ];
        for (count, one, many, mark) in [
            (
                tracker.abandoned_handshakes,
                "handshake abandoned by its client",
                "handshakes abandoned by their clients",
                Mark::Bad,
            ),
            (
                tracker.inbound_refused,
                "SYN refused because nobody listens",
                "SYNs refused because nobody listens",
                Mark::Bad,
            ),
            (
                tracker.segments_dropped,
                "handshake segment dropped by this host",
                "handshake segments dropped by this host",
                Mark::Bad,
            ),
            (
                tracker.unfollowed,
                "half-open/TIME_WAIT/listening socket not tracked",
                "half-open/TIME_WAIT/listening sockets not tracked",
                Mark::Bad,
            ),
            (source.resyncs, "resync from a socket dump", "resyncs from a socket dump", Mark::Plain),
            (source.others_lost, "other event lost in the ring", "other events lost in the ring", Mark::Bad),
            (source.malformed, "malformed record", "malformed records", Mark::Bad),
            (source.recovered, "recovered from skips", "recovered from skips", Mark::Plain),
        ] {
            if count != 0 {
                parts.push((counted_as(count, one, many), mark));
            }
        }
        parts
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text(Palette::default()))
    }
}

/// The line that counts abandoned handshakes by listener: the five with the most, and the sum of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedSummary(String);

/// Listeners, or places of drops, that are named.
const NAMED: usize = 5;

impl AbandonedSummary {
    /// Returns the line, unless no handshake was abandoned.
    pub fn new(abandoned: &AbandonedHandshakes) -> Option<Self> {
        Self::of_listeners(&abandoned.by_listener(), abandoned.overflow())
    }

    /// Names the first listeners and adds the others to `overflow`.
    fn of_listeners(listeners: &[AbandonedAt], overflow: u64) -> Option<Self> {
        let (named, unnamed) = listeners.split_at(listeners.len().min(NAMED));
        // Listeners of several namespaces may share an address.
        let ambiguous = named.iter().any(|listener| listener.netns != named[0].netns);
        let mut parts: Vec<String> = named
            .iter()
            .map(|listener| match listener.netns.filter(|_| ambiguous) {
                Some(netns) => {
                    format!("{} in netns {netns} {}", EndpointText(listener.local), listener.count)
                }
                None => format!("{} {}", EndpointText(listener.local), listener.count),
            })
            .collect();
        let others = unnamed.iter().map(|listener| listener.count).sum::<u64>() + overflow;
        if others != 0 {
            parts.push(format!("others {others}"));
        }
        (!parts.is_empty())
            .then(|| Self(format!("handshakes abandoned by their clients: {}", parts.join(", "))))
    }
}

impl fmt::Display for AbandonedSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The line that counts the handshake segments that this host dropped, by service and cause: the five places with the most,
/// and the sum of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSummary(String);

impl DropSummary {
    /// Returns the line, unless no segment was dropped.
    pub fn new(drops: &DropPlaces) -> Option<Self> {
        Self::of_places(&drops.by_place(), drops.overflow())
    }

    /// Names the first places and adds the others to `overflow`.
    fn of_places(places: &[(DropPlace, u64)], overflow: u64) -> Option<Self> {
        let (named, unnamed) = places.split_at(places.len().min(NAMED));
        let mut parts: Vec<String> = named.iter().map(|(place, count)| place_text(place, *count)).collect();
        let others = unnamed.iter().map(|(_, count)| count).sum::<u64>() + overflow;
        if others != 0 {
            parts.push(format!("others {others}"));
        }
        (!parts.is_empty()).then(|| Self(format!("dropped by this host: {}", parts.join("; "))))
    }
}

impl fmt::Display for DropSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use tracer_core::event::{Endpoint, HandshakeSegment, KernelName, Netns};

    use super::*;

    #[test]
    fn one_of_a_thing_is_singular_and_losses_have_a_style() {
        let one = Summary {
            source: SourceCounts { seen: 1, lost: 1, skipped: Some(0), ..SourceCounts::default() },
            tracker: TrackerCounts { closed: 1, gaps: 1, inbound_refused: 1, ..TrackerCounts::default() },
            live: 0,
        };
        assert_eq!(
            one.to_string(),
            "1 transition seen, 1 lost in the ring, 0 skipped by the kernel, 1 connection closed, 0 open, 0 evicted, \
             0 unmatched, 1 gap, 1 SYN refused because nobody listens"
        );
        let colored = one.text(Palette::new(true));
        assert!(colored.contains("seen, \u{1b}[31m1 lost in the ring\u{1b}[0m, 0 skipped"), "{colored}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), one.to_string());
    }

    fn abandoned(counts: &[(&str, u16, u32, u64)], overflow: u64) -> Option<String> {
        let listener = |&(address, port, netns, count): &(&str, u16, u32, u64)| AbandonedAt {
            netns: Some(Netns(netns)),
            local: Endpoint { address: address.parse().unwrap(), port },
            count,
        };
        let listeners: Vec<AbandonedAt> = counts.iter().map(listener).collect();
        AbandonedSummary::of_listeners(&listeners, overflow).map(|summary| summary.to_string())
    }

    #[test]
    fn without_abandoned_handshakes_there_is_no_line() {
        assert_eq!(abandoned(&[], 0), None);
    }

    #[test]
    fn the_five_worst_listeners_are_named() {
        let listeners = [("192.0.2.10", 8080, 7, 17), ("192.0.2.10", 443, 7, 2), ("2001:db8::1", 80, 7, 1)];
        let text = abandoned(&listeners, 0);
        assert_eq!(
            text.unwrap(),
            "handshakes abandoned by their clients: 192.0.2.10:8080 17, 192.0.2.10:443 2, [2001:db8::1]:80 1"
        );
        let many: Vec<_> = (1..=7).map(|port: u16| ("10.0.0.1", port, 7, 10 - u64::from(port))).collect();
        let text = abandoned(&many, 2).unwrap();
        assert!(
            text.ends_with(
                ": 10.0.0.1:1 9, 10.0.0.1:2 8, 10.0.0.1:3 7, 10.0.0.1:4 6, 10.0.0.1:5 5, others 9"
            ),
            "{text}"
        );
    }

    #[test]
    fn namespaces_are_named_if_there_are_several() {
        let text = abandoned(&[("10.0.0.1", 80, 8, 2), ("10.0.0.1", 80, 7, 1)], 0).unwrap();
        assert!(text.ends_with(": 10.0.0.1:80 in netns 8 2, 10.0.0.1:80 in netns 7 1"), "{text}");
    }

    #[test]
    fn the_five_worst_places_of_drops_are_named() {
        let place = |segment, port, function: Option<&[u8]>| DropPlace {
            service: Endpoint { address: "192.0.2.20".parse().unwrap(), port },
            segment,
            reason: KernelName::new(b"netfilter_drop"),
            function: function.map(KernelName::new),
        };
        assert_eq!(DropSummary::of_places(&[], 0), None);
        let few = [
            (place(HandshakeSegment::Syn, 5432, Some(b"nft_do_chain")), 18),
            (place(HandshakeSegment::SynAck, 80, None), 1),
        ];
        assert_eq!(
            DropSummary::of_places(&few, 0).unwrap().to_string(),
            "dropped by this host: 18 SYNs to 192.0.2.20:5432, netfilter_drop in nft_do_chain; \
             1 SYN-ACK from 192.0.2.20:80, netfilter_drop"
        );
        let many: Vec<_> = (1..=7).map(|port| (place(HandshakeSegment::Ack, port, None), 2)).collect();
        let text = DropSummary::of_places(&many, 3).unwrap().to_string();
        assert!(text.ends_with("2 ACKs to 192.0.2.20:5, netfilter_drop; others 7"), "{text}");
    }
}
