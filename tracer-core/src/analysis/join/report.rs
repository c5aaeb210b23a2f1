//! The joined handshakes of two hosts.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::{
    analysis::join::{
        ClockBounds, ClockEstimate, HandshakeEnd, HandshakeFate, MatchedBy, OneWayTimes, UtcTime,
        clock::{Bound, Clocks},
        matching::{Matching, Pair, Place},
        traceless::traceless,
    },
    event::{Endpoint, Nanos, SegmentDropped},
    lifecycle::SegmentDrops,
};

/// Most ends of handshakes of one host. Further ones are counted and not joined. An end takes about 300 bytes.
pub const MAX_ENDS: usize = 1_000_000;

/// Most dropped SYNs of one host that belong to no handshake of that host.
pub const MAX_DROPS: usize = 65_536;

/// What one host contributes: the ends of its handshakes, and the SYNs that it dropped.
#[derive(Debug, Default)]
pub struct JoinSide {
    pub(super) ends: Vec<HandshakeEnd>,
    beyond_limit: u64,
    without_numbers: u64,
    /// Dropped SYNs from a source to a destination.
    pub(super) dropped:
        HashMap<(Endpoint, Endpoint), Vec<(UtcTime, SegmentDropped)>, foldhash::fast::FixedState>,
    drops: usize,
    pub(super) span: Option<(UtcTime, UtcTime)>,
}

impl JoinSide {
    /// Adds an end; none counts as one without numbers.
    pub fn add(&mut self, end: Option<HandshakeEnd>) {
        let Some(end) = end else {
            self.without_numbers += 1;
            return;
        };
        self.without_numbers += u64::from(end.sequences.is_none() && !end.unserved);
        if self.ends.len() < MAX_ENDS {
            self.ends.push(end);
        } else {
            self.beyond_limit += 1;
        }
    }

    /// Adds a SYN that this host dropped. One beyond [`MAX_DROPS`] is left out.
    pub fn add_drop(&mut self, time: UtcTime, event: &SegmentDropped) {
        if self.drops < MAX_DROPS {
            self.drops += 1;
            self.dropped.entry((event.source, event.destination)).or_default().push((time, *event));
        }
    }

    /// Returns whether there are ends.
    pub fn has_handshakes(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Returns whether an end has initial sequence numbers.
    pub fn has_numbers(&self) -> bool {
        self.ends.iter().any(|end| end.sequences.is_some())
    }

    /// Sets the first and the last time that the recording covers.
    pub fn covers(&mut self, first: UtcTime, last: UtcTime) {
        self.span = Some((first, last));
    }
}

/// The counts of one side of a join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinSideCounts {
    /// Ends of handshakes.
    pub handshakes: u64,
    /// Ends whose other end was not found.
    pub unmatched: u64,
    /// Ends for which several other ends fit.
    pub ambiguous: u64,
    /// Ends without initial sequence numbers: of an earlier version, of a simultaneous open, or whose socket was not read.
    pub without_numbers: u64,
    /// Ends beyond [`MAX_ENDS`].
    pub beyond_limit: u64,
}

/// The counts of a join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Matched by both initial sequence numbers.
    pub by_sequences: u64,
    /// Matched by the client's.
    pub by_client_sequence: u64,
    /// Matched by endpoints.
    pub by_endpoints: u64,
    /// Clients that failed at the other host, which has no trace of them.
    pub without_trace: u64,
    /// Handshakes with a segment that was certainly lost, failures included.
    pub with_loss: u64,
    /// This host.
    pub this: JoinSideCounts,
    /// The other host.
    pub other: JoinSideCounts,
}

impl JoinCounts {
    /// Returns how many handshakes have both ends.
    pub const fn matched(&self) -> u64 {
        self.by_sequences + self.by_client_sequence + self.by_endpoints
    }
}

/// A handshake with what both hosts know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedHandshake<'a> {
    /// The client's end.
    pub client: &'a HandshakeEnd,
    /// The server's end; none if the server's host has no trace of the handshake.
    pub server: Option<&'a HandshakeEnd>,
    /// The client is on this host, the server on the other.
    pub client_is_here: bool,
    /// What the ends were matched by.
    pub by: Option<MatchedBy>,
    /// The lost segments.
    pub fate: HandshakeFate,
    /// How long the segments took.
    pub one_way: OneWayTimes,
    /// The SYNs that the server's host dropped, if it has no other trace of the handshake.
    pub server_drops: SegmentDrops,
}

impl JoinedHandshake<'_> {
    /// Returns the longer duration of both ends.
    pub fn duration(&self) -> Option<Nanos> {
        self.client.duration.max(self.server.and_then(|server| server.duration))
    }

    /// Returns the end on this host, which filters apply to; the other one if this host has none.
    fn here(&self) -> &HandshakeEnd {
        match self.server {
            Some(server) if !self.client_is_here => server,
            _ => self.client,
        }
    }
}

/// The handshakes of two hosts.
#[derive(Debug, Default)]
pub struct HandshakeJoin {
    /// The recording that the report is about.
    pub this: JoinSide,
    /// The recording of the other host.
    pub other: JoinSide,
}

/// The result of a join.
#[derive(Debug)]
pub struct JoinReport<'a> {
    /// The handshakes that pass the filters, the longest first.
    pub handshakes: Vec<JoinedHandshake<'a>>,
    /// The counts of all handshakes.
    pub counts: JoinCounts,
    /// The offset of the clocks; none without a completed handshake of which both ends are known.
    pub clock: Option<ClockEstimate>,
}

impl HandshakeJoin {
    /// Joins the handshakes.
    pub fn report(&self) -> JoinReport<'_> {
        let (this, other) = (&self.this.ends, &self.other.ends);
        let mut outbound = Matching::new(this, other);
        let mut inbound = Matching::new(other, this);
        let bounds =
            |matching: &Matching<'_>, clients: &[HandshakeEnd], servers: &[HandshakeEnd], reversed| {
                let of_pair = |pair: &Pair| bound(&clients[pair.client], &servers[pair.server], reversed);
                matching.pairs.iter().filter_map(of_pair).collect::<Vec<_>>()
            };
        let mut all = bounds(&outbound, this, other, false);
        all.extend(bounds(&inbound, other, this, true));
        let clocks = Clocks::new(all);
        let ahead_outbound = |client: &HandshakeEnd| clocks.at(client.ended.0);
        // The other host's time is converted roughly, which is much more exact than a clock drifts.
        let rough = clocks.estimate().map_or(0, |estimate| estimate.bounds.middle());
        let ahead_inbound = |client: &HandshakeEnd| {
            clocks.at(client.ended.0.saturating_sub(rough)).map(ClockBounds::reversed)
        };
        outbound.match_failures(ahead_outbound);
        inbound.match_failures(ahead_inbound);

        let mut handshakes = Vec::new();
        for pair in &outbound.pairs {
            let (client, server) = (&this[pair.client], &other[pair.server]);
            handshakes.push(joined(client, server, true, pair.by, ahead_outbound(client)));
        }
        for pair in &inbound.pairs {
            let (client, server) = (&other[pair.client], &this[pair.server]);
            handshakes.push(joined(client, server, false, pair.by, ahead_inbound(client)));
        }
        let mut without_trace = traceless(this, &self.other, &outbound, true, ahead_outbound);
        without_trace.extend(traceless(other, &self.this, &inbound, false, ahead_inbound));

        let count = |by| handshakes.iter().filter(|it| it.by == Some(by)).count() as u64;
        let mut counts = JoinCounts {
            by_sequences: count(MatchedBy::Sequences),
            by_client_sequence: count(MatchedBy::ClientSequence),
            by_endpoints: count(MatchedBy::Endpoints),
            without_trace: without_trace.len() as u64,
            with_loss: 0,
            this: side_counts(&self.this, &outbound.client_places, &inbound.server_places),
            other: side_counts(&self.other, &inbound.client_places, &outbound.server_places),
        };
        handshakes.extend(without_trace);
        counts.with_loss = handshakes.iter().filter(|it| it.fate.is_loss()).count() as u64;
        handshakes.retain(|it| it.here().shown);
        handshakes.sort_by_key(|it| (Reverse(it.duration()), it.client.ended, it.client.local));
        JoinReport { handshakes, counts, clock: clocks.estimate() }
    }
}

fn joined<'a>(
    client: &'a HandshakeEnd,
    server: &'a HandshakeEnd,
    client_is_here: bool,
    by: MatchedBy,
    server_ahead: Option<ClockBounds>,
) -> JoinedHandshake<'a> {
    let fate = HandshakeFate::new(client, Some(server), server_ahead);
    let one_way = OneWayTimes::new(client, server, server_ahead, &fate);
    let server_drops = server.drops.as_deref().copied().unwrap_or(SegmentDrops::NONE);
    JoinedHandshake {
        client,
        server: Some(server),
        client_is_here,
        by: Some(by),
        fate,
        one_way,
        server_drops,
    }
}

/// Returns how a completed handshake bounds the offset of the other host's clock from this host's. `reversed`: the client is
/// on the other host.
///
/// The server answers between the client's SYN_SENT and its ESTABLISHED, and is ESTABLISHED after it.
fn bound(client: &HandshakeEnd, server: &HandshakeEnd, reversed: bool) -> Option<Bound> {
    if !client.is_established() || !server.is_established() {
        return None;
    }
    let (began, established) = (client.began?.0, client.ended.0);
    let low = server.answered.map(|(earliest, _)| earliest.0.saturating_sub(established));
    let high = server.answered.map(|(_, latest)| latest.0.saturating_sub(began));
    // The answer bounds the offset at its own time. Until the client's ESTABLISHED the clocks may drift.
    let of_answer = ClockBounds::new(low, high)?.after(established.saturating_sub(began));
    let high = of_answer.high.min(server.ended.0.saturating_sub(established));
    let bounds = ClockBounds::new(Some(of_answer.low), Some(high))?;
    let at = if reversed { server.ended.0 } else { established };
    Some(Bound { at, bounds: if reversed { bounds.reversed() } else { bounds } })
}

fn side_counts(
    side: &JoinSide,
    clients: &HashMap<usize, Place, foldhash::fast::FixedState>,
    servers: &HashMap<usize, Place, foldhash::fast::FixedState>,
) -> JoinSideCounts {
    let place =
        |index: usize| clients.get(&index).or_else(|| servers.get(&index)).copied().unwrap_or_default();
    let of = |wanted| (0..side.ends.len()).filter(|&index| place(index) == wanted).count() as u64;
    JoinSideCounts {
        handshakes: side.ends.len() as u64 + side.beyond_limit,
        unmatched: of(Place::Unmatched),
        ambiguous: of(Place::Ambiguous),
        without_numbers: side.without_numbers,
        beyond_limit: side.beyond_limit,
    }
}
