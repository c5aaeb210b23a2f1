//! The last events, encoded, in bounded memory.
//!
//! The ring has segments. A segment starts with the sockets that were open, so that it can be read without those before
//! it; the oldest segments are dropped. A frozen file is the sockets of the oldest segment and the events of all.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::Arc,
};

use tracer_core::{
    event::{Event, Nanos, SourceCounts, Timestamp},
    lifecycle::Tracker,
};

use crate::{
    event_loop::Progress,
    host::CgroupResolver,
    recording::{Header, Writer, write_open_sockets},
};

/// Longest time that events wait for further ones in their batch. A freeze encodes them at once.
const INTERVAL: Nanos = Nanos::from_secs(10);
/// Bytes of the ring for each row of a batch: a small ring has small batches, so that it drops little at once.
const BYTES_PER_ROW: u64 = 1 << 10;
/// A segment is full at this part of the ring.
const SEGMENT_SHARE: u64 = 8;
/// The open sockets of a segment take at most this part of the ring.
const SOCKETS_SHARE: u64 = 4;
/// Fewest encoded bytes of an open connection.
const SOCKET_BYTES: u64 = 8;
/// The counts of a writer whose file gets the real ones at the end.
const NO_COUNTS: SourceCounts = SourceCounts { skipped: None, ..SourceCounts::ZERO };

/// An encoded batch with its dictionaries.
pub(super) type Batch = Arc<[u8]>;

/// Collects each batch that a writer encodes. A writer makes one `write` per batch.
#[derive(Debug, Default)]
struct Collected(Vec<Batch>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of the ring.
#[derive(Debug)]
struct Segment {
    started: Timestamp,
    /// The source's counts at the start.
    before: SourceCounts,
    /// The sockets that were open at the start; empty in the first segment, whose events list them.
    sockets: Vec<Batch>,
    events: Vec<Batch>,
    sockets_bytes: u64,
    events_bytes: u64,
}

impl Segment {
    fn new(started: Timestamp, before: SourceCounts, sockets: Vec<Batch>) -> Self {
        let sockets_bytes = size(&sockets);
        Self { started, before, sockets, events: Vec::new(), sockets_bytes, events_bytes: 0 }
    }

    fn bytes(&self) -> u64 {
        self.sockets_bytes + self.events_bytes
    }
}

fn size(batches: &[Batch]) -> u64 {
    batches.iter().map(|batch| batch.len() as u64).sum()
}

/// The content of the ring at a moment. It shares the encoded batches with the ring.
#[derive(Debug)]
pub(super) struct RingContent {
    /// The start of the oldest events.
    pub(super) started: Timestamp,
    /// The batches in their order.
    pub(super) batches: Vec<Batch>,
    /// The source's counts since the start.
    pub(super) counts: SourceCounts,
}

/// The last events.
pub(super) struct Ring {
    /// Bytes of all segments.
    limit: u64,
    header: Header,
    segments: VecDeque<Segment>,
    /// Encodes the events of the newest segment.
    writer: Writer<Collected>,
    written: Timestamp,
    /// The fewest connections that did not fit into their part of the ring.
    too_many: Option<usize>,
}

impl Ring {
    /// Creates a ring of `limit` bytes. `header` has the clock, and the start of the first segment.
    pub(super) fn new(limit: u64, header: Header) -> io::Result<Self> {
        let writer = writer(&header)?;
        let first = Segment::new(header.started, SourceCounts::ZERO, Vec::new());
        let (written, segments) = (header.started, VecDeque::from([first]));
        Ok(Self { limit, header, segments, writer, written, too_many: None })
    }

    /// Adds an event.
    pub(super) fn event(&mut self, event: &Event, resolver: &mut CgroupResolver) -> io::Result<()> {
        self.writer.event(event, resolver)
    }

    /// Takes over encoded batches, starts a segment if the newest is full, and drops the oldest beyond the limit. Call it
    /// after each batch of events.
    ///
    /// Returns the number of connections if there are now too many to start a segment with them.
    pub(super) fn flush(
        &mut self,
        progress: Progress<'_>,
        resolver: &mut CgroupResolver,
    ) -> io::Result<Option<usize>> {
        let batch_is_full = self.writer.pending() as u64 >= self.limit / BYTES_PER_ROW;
        if batch_is_full || progress.now.since(self.written) >= INTERVAL {
            self.encode(resolver)?;
            self.written = progress.now;
        } else {
            self.collect();
        }
        let mut refused = None;
        let segment_is_full = self.segments.back().is_some_and(|newest| {
            newest.events_bytes >= (self.limit / SEGMENT_SHARE).max(newest.sockets_bytes)
        });
        if segment_is_full {
            refused = self.next_segment(progress, resolver)?;
        }
        self.drop_oldest();
        Ok(refused)
    }

    /// Returns what the ring holds now.
    pub(super) fn content(
        &mut self,
        source: &SourceCounts,
        resolver: &mut CgroupResolver,
    ) -> io::Result<RingContent> {
        self.encode(resolver)?;
        self.drop_oldest();
        let oldest = self.segments.front();
        let sockets = oldest.into_iter().flat_map(|oldest| &oldest.sockets);
        let events = self.segments.iter().flat_map(|segment| &segment.events);
        Ok(RingContent {
            started: oldest.map_or(self.header.started, |oldest| oldest.started),
            batches: sockets.chain(events).cloned().collect(),
            counts: source.since(&oldest.map_or(SourceCounts::ZERO, |oldest| oldest.before)),
        })
    }

    /// Returns the encoded bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Drops the oldest segments beyond the limit. The newest stays.
    fn drop_oldest(&mut self) {
        while self.bytes() > self.limit && self.segments.len() > 1 {
            self.segments.pop_front();
        }
    }

    /// Encodes the pending events.
    fn encode(&mut self, resolver: &mut CgroupResolver) -> io::Result<()> {
        self.writer.flush(&NO_COUNTS, resolver)?;
        self.collect();
        Ok(())
    }

    fn collect(&mut self) {
        let Some(newest) = self.segments.back_mut() else { return };
        for batch in self.writer.file_mut().0.drain(..) {
            newest.events_bytes += batch.len() as u64;
            newest.events.push(batch);
        }
    }

    fn next_segment(
        &mut self,
        progress: Progress<'_>,
        resolver: &mut CgroupResolver,
    ) -> io::Result<Option<usize>> {
        self.encode(resolver)?;
        self.header.started = progress.now;
        let (sockets, refused) = self.sockets(progress.tracker, progress.now, resolver)?;
        self.segments.push_back(Segment::new(progress.now, progress.source, sockets));
        // A new writer writes all dictionaries with its first batch, so that the batches before it may be dropped.
        self.writer = writer(&self.header)?;
        Ok(refused)
    }

    /// Returns the open sockets, and their number if they take too much of the ring and are left out.
    fn sockets(
        &mut self,
        tracker: &Tracker,
        now: Timestamp,
        resolver: &mut CgroupResolver,
    ) -> io::Result<(Vec<Batch>, Option<usize>)> {
        let (most, live) = (self.limit / SOCKETS_SHARE, tracker.live());
        if self.too_many.is_some_and(|too_many| live >= too_many) {
            return Ok((Vec::new(), None));
        }
        let fits = live as u64 <= most / SOCKET_BYTES;
        if fits {
            let mut writer = writer(&self.header)?;
            write_open_sockets(&mut writer, tracker, now, resolver)?;
            writer.flush(&NO_COUNTS, resolver)?;
            let sockets = std::mem::take(&mut writer.file_mut().0);
            if size(&sockets) <= most {
                return Ok((sockets, None));
            }
        }
        let is_news = self.too_many.replace(live).is_none();
        Ok((Vec::new(), is_news.then_some(live)))
    }
}

/// Creates a writer without the schema, which a frozen file gets from its own header.
fn writer(header: &Header) -> io::Result<Writer<Collected>> {
    let mut writer = Writer::new(Collected::default(), header)?;
    writer.file_mut().0.clear();
    Ok(writer)
}
