//! The counts of one minute.

use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::TcpState,
    lifecycle::Connection,
};

use crate::agent::overview::{
    buckets::{self, BucketCounts},
    edges::{self, EdgeCounts},
    facet::{Facet, FacetLimits, FacetTable},
};

/// Most processes, remote addresses and ports that a minute counts separately: together as many as a hash table of
/// 512 places takes.
const LIMITS: FacetLimits = FacetLimits([112, 224, 112]);
/// Slowest completed handshakes that a minute keeps.
const SLOWEST: usize = 10;
/// Failed handshakes that a minute keeps: the first ones.
const FAILED: usize = 10;

/// The transitions and handshakes of a minute, of all connections or of a facet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) edges: EdgeCounts,
    /// Completed handshakes with a known duration.
    pub(super) durations: BucketCounts,
    /// Completed handshakes.
    pub(super) established: u32,
    /// Handshakes that failed or were abandoned.
    pub(super) failed: u32,
}

// The counts of an hour take at most 6 MB. Each place of a hash table also has a byte of metadata.
const _: () = assert!((size_of::<(Facet, Counts)>() + 1) * 512 * 60 <= 6_000_000);

impl Counts {
    fn handshake(&mut self, attempt: &HandshakeAttempt) {
        if attempt.outcome != HandshakeOutcome::Established {
            self.failed += 1;
            return;
        }
        self.established += 1;
        if let Some(duration) = attempt.duration {
            self.durations[buckets::index(duration)] += 1;
        }
    }
}

/// One minute.
#[derive(Clone, Debug)]
pub(super) struct Minute {
    /// Its number on the traced host's monotonic clock.
    pub(super) number: u64,
    pub(super) total: Counts,
    pub(super) facets: FacetTable<Counts>,
    /// The slowest completed handshakes, the slowest first.
    pub(super) slowest: Vec<HandshakeAttempt>,
    pub(super) failed: Vec<HandshakeAttempt>,
}

impl Minute {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            total: Counts::default(),
            facets: FacetTable::new(LIMITS),
            slowest: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Counts a transition; one of a listener has no connection.
    pub(super) fn transition(&mut self, from: TcpState, to: TcpState, connection: Option<&Connection>) {
        let edge = edges::index(from, to);
        self.total.edges[edge] += 1;
        for facet in connection.map(Facet::of).into_iter().flatten().flatten() {
            if let Some(counts) = self.facets.slot(facet) {
                counts.edges[edge] += 1;
            }
        }
    }

    /// Counts a finished handshake.
    pub(super) fn handshake(&mut self, attempt: &HandshakeAttempt) {
        self.total.handshake(attempt);
        for facet in Facet::of_attempt(attempt).into_iter().flatten() {
            if let Some(counts) = self.facets.slot(facet) {
                counts.handshake(attempt);
            }
        }
        if attempt.outcome != HandshakeOutcome::Established {
            if self.failed.len() < FAILED {
                self.failed.push(*attempt);
            }
            return;
        }
        if attempt.duration.is_some() {
            let place = self.slowest.partition_point(|slower| slower.duration >= attempt.duration);
            if place < SLOWEST {
                self.slowest.truncate(SLOWEST - 1);
                self.slowest.insert(place, *attempt);
            }
        }
    }

    /// Returns the counts of a facet, or of everything.
    pub(super) fn counts(&self, facet: Option<Facet>) -> Counts {
        match facet {
            None => self.total,
            Some(facet) => self.facets.get(facet).copied().unwrap_or_default(),
        }
    }
}
