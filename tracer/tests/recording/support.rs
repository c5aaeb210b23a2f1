//! Writes and reads recordings.

use std::path::Path;

use tcptrace_bpf::{
    host::{CgroupResolver, HostNames, RecordedCgroups},
    recording::{Header, Writer},
    sources::{
        Source as _,
        recording::{Missing, Reader, RecordingSource, RowContent, Rows},
    },
};
use tracer_core::{
    event::{ClockOffset, Event, SourceCounts, Timestamp},
    lifecycle::TimeWaitModel,
};

pub(crate) fn header() -> Header {
    Header {
        tool_version: "0.0.0".into(),
        wire_version: 1,
        host: HostNames {
            name: "web-1".into(),
            kernel: "6.18.0".into(),
            mode: "btf".into(),
            hooks: "drop".into(),
        },
        clock: ClockOffset { to_utc_ns: 1_700_000_000_123_456_789 },
        time_wait: TimeWaitModel::default(),
        started: Timestamp(1_000),
        run: "run".into(),
        part: 1,
        frozen_by: None,
    }
}

pub(crate) fn no_cgroups() -> CgroupResolver {
    CgroupResolver::recorded(RecordedCgroups::default())
}

/// Encodes a recording with one batch per slice, and with these final counts.
pub(crate) fn recorded(header: &Header, batches: &[&[Event]], counts: &SourceCounts) -> Vec<u8> {
    let mut resolver = no_cgroups();
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for (index, batch) in batches.iter().enumerate() {
        for event in *batch {
            writer.event(event, &mut resolver).unwrap();
        }
        let known = if index + 1 == batches.len() { *counts } else { SourceCounts::default() };
        writer.flush(&known, &mut resolver).unwrap();
    }
    writer.finish(counts, &mut resolver).unwrap()
}

/// The content of a file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) events: Vec<Event>,
    pub(crate) counts: SourceCounts,
    pub(crate) unknown: usize,
    pub(crate) missing: Option<Missing>,
}

pub(crate) fn read(bytes: &[u8]) -> Content {
    let mut reader = Reader::new(bytes).unwrap();
    let clock = reader.header().clock;
    let cgroups = RecordedCgroups::default();
    let mut content = Content::default();
    while let Some(batch) = reader.next_batch().unwrap() {
        let mut rows = Rows::new(&batch, clock, "node-1").unwrap();
        for row in 0..rows.len() {
            match rows.content(row, &cgroups) {
                RowContent::Event(event) => content.events.push(event),
                RowContent::Counts(counts) => content.counts = counts,
                RowContent::Unknown => content.unknown += 1,
            }
        }
    }
    content.missing = reader.missing().cloned();
    content
}

/// Reads files through the source. Returns its events, counts and problems.
pub(crate) fn replay(
    paths: &[&Path],
    limit: Option<std::time::Duration>,
) -> (Vec<Event>, SourceCounts, Vec<String>) {
    let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
    let mut source = RecordingSource::open(&paths, limit).unwrap();
    let mut events = Vec::new();
    while source.poll(&mut |event| events.push(*event)).unwrap() == tcptrace_bpf::sources::Polled::Drained {}
    (events, source.counts(), source.take_problems())
}
