//! What is written is what is read.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tcptrace_bpf::{
    event::{Event, Process, SocketId, SourceCounts, TcpInfo, Timestamp},
    owner::{Attribution, Cgroup, CgroupOwner, RecordedCgroups},
    recording::{BATCH_ROWS, COLUMNS, Header, Writer, arrow_schema},
    source::{
        ClockOffset,
        recording::{Reader, RowContent, Rows},
    },
};

use super::{
    any_event,
    support::{header, read, recorded},
};

/// Of several times in a row, the last.
fn without_repeated_times(events: &[Event]) -> Vec<Event> {
    let mut kept: Vec<Event> = Vec::new();
    for event in events {
        if let (Event::Time(_), Some(Event::Time(last))) = (event, kept.last_mut()) {
            *last = event.time();
        } else {
            kept.push(*event);
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_event_comes_back_as_it_was(
        events in prop::collection::vec(any_event::event(), 0..60),
        offset in any::<i64>(),
        counts in any::<(u64, u64, Option<u64>, u64, u64, u64, u64, u64)>(),
    ) {
        let (seen, lost, skipped, others_lost, renewed, malformed, recovered, duplicates) = counts;
        let counts =
            SourceCounts { seen, lost, skipped, others_lost, renewed, malformed, recovered, duplicates };
        let header = Header { clock: ClockOffset { to_utc_ns: offset.into() }, ..header() };
        let bytes = recorded(&header, &[&events], &counts);
        let content = read(&bytes);
        prop_assert_eq!(content.events, without_repeated_times(&events));
        prop_assert_eq!(content.counts, counts);
        prop_assert_eq!((content.unknown, content.missing), (0, None));
        let reader = Reader::new(&bytes[..]).unwrap();
        prop_assert_eq!(reader.header(), &header);
    }
}

#[test]
fn a_full_batch_is_written_at_once() {
    let mut attribution = Attribution::recorded(RecordedCgroups::default());
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let begun = writer.bytes();
    for time in 1..BATCH_ROWS as u64 {
        writer.event(&Event::SnapshotEnd { started: Timestamp(time) }, &mut attribution).unwrap();
    }
    assert_eq!((writer.pending(), writer.bytes()), (BATCH_ROWS - 1, begun));
    writer.event(&Event::SnapshotEnd { started: Timestamp(0) }, &mut attribution).unwrap();
    assert_eq!(writer.pending(), 0);
    assert!(writer.bytes() > begun);
}

/// Columns of full batches are packed in several blocks, and what does not get smaller is not packed in every one.
#[test]
fn full_batches_come_back_as_they_were() {
    let mut random = 1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let low = |value| u32::try_from(value & u64::from(u32::MAX)).unwrap();
    let events: Vec<Event> = (0..BATCH_ROWS as u64 * 6 + 77)
        .map(|index| {
            let mut transition = super::damage::opening(Timestamp(index));
            // First all different, then much the same, then again all different.
            let varied = if (2..4).contains(&(index / BATCH_ROWS as u64)) { index % 3 } else { next() };
            transition.socket = SocketId(varied);
            transition.remote.address = match varied % 3 {
                0 => Ipv4Addr::from_bits(low(varied)).into(),
                1 => Ipv6Addr::from_bits(varied.into()).into(),
                _ => transition.remote.address,
            };
            transition.cookie = (varied % 7 < 3).then_some(varied);
            transition.cgroup_id = (varied % 5 == 0).then_some(7);
            let comm = if varied % 2 == 0 {
                *b"plain\0\0\0\0\0\0\0\0\0\0\0"
            } else {
                varied.to_le_bytes().repeat(2).try_into().unwrap()
            };
            transition.process = (varied % 11 < 2).then_some(Process { pid: low(varied), uid: 0, comm });
            transition.info = (index % 4 == 3).then(|| TcpInfo {
                bytes_sent: varied,
                mss: 1448,
                srtt_us: (varied % 2 == 0).then_some(low(varied)),
                ..TcpInfo::default()
            });
            Event::Transition(transition)
        })
        .collect();
    let content = read(&recorded(&header(), &[&events], &SourceCounts::default()));
    assert_eq!((content.unknown, content.missing), (0, None));
    assert!(content.events == events, "of {} events", events.len());
}

/// On a host with cgroup v1 the socket is in the root, and the process knows.
#[test]
fn cgroups_are_those_of_the_recorded_host() {
    let cgroup = |path: &str| Arc::new(Cgroup { path: path.to_owned(), owner: CgroupOwner::from_path(path) });
    let host = RecordedCgroups::default();
    host.tell_id(1, cgroup("/"));
    host.tell_id(77, cgroup("/system.slice/nginx.service"));
    host.tell_process(9, Some(cgroup("/docker/9")));
    host.tell_process(5, Some(cgroup("/docker/5")));

    let process = |pid| Process { pid, uid: 0, comm: [0; 16] };
    let opening = |cgroup_id, pid| {
        let mut script = super::damage::opening(Timestamp(5));
        script.cgroup_id = cgroup_id;
        script.process = Some(process(pid));
        Event::Transition(script)
    };
    let mut attribution = Attribution::recorded(host);
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for event in [opening(Some(77), 5), opening(Some(1), 9), opening(None, 6)] {
        writer.event(&event, &mut attribution).unwrap();
    }
    let bytes = writer.finish(&SourceCounts::default(), &mut attribution).unwrap();

    let cgroups = RecordedCgroups::default();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let mut rows = Rows::new(&reader.next_batch().unwrap().unwrap(), header().clock).unwrap();
    for row in 0..rows.len() {
        assert!(matches!(rows.content(row, &cgroups), RowContent::Event(_)));
    }
    let mut replayed = Attribution::recorded(cgroups);
    let mut path = |id, pid: u32| {
        let found = replayed.cgroup(id, Some(&process(pid)), Duration::ZERO);
        found.map(|cgroup| cgroup.path.clone())
    };
    assert_eq!(path(Some(77), 5).as_deref(), Some("/system.slice/nginx.service"));
    assert_eq!(path(Some(1), 9).as_deref(), Some("/docker/9"));
    assert_eq!(path(Some(1), 5).as_deref(), Some("/"), "nobody asked for the process of a socket that told");
    assert_eq!(path(None, 6), None);
}

#[test]
fn the_schema_says_what_its_columns_mean() {
    let schema = arrow_schema(header().to_metadata());
    assert_eq!(schema.fields().len(), COLUMNS.len());
    for (field, column) in schema.fields().iter().zip(COLUMNS) {
        assert_eq!(field.metadata().get("description").map(String::as_str), Some(column.about));
        assert_eq!(field.metadata().get("unit").map_or("", String::as_str), column.unit);
        assert_eq!(field.is_nullable(), !["kind", "time"].contains(&column.name));
    }
}
