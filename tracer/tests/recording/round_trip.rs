//! Round trips of events, counts and cgroups.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tcptrace_bpf::{
    host::{Cgroup, CgroupResolver, PodNames, RecordedCgroups, WorkloadKind},
    recording::{BATCH_ROWS, COLUMNS, Header, Writer, arrow_schema},
    sources::recording::{Reader, RowContent, Rows},
};
use tracer_core::event::{
    CgroupId, ClockOffset, Event, Micros, Process, SocketCookie, SocketId, SourceCounts, TcpInfo, Timestamp,
};

use super::{
    any_event,
    support::{header, read, recorded},
};

/// Keeps only the last of several times in a row.
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
    fn every_event_round_trips(
        events in prop::collection::vec(any_event::event(), 0..60),
        offset in any::<i64>(),
        counts in any::<(u64, u64, Option<u64>, u64, u64, u64, u64, u64)>(),
    ) {
        let (seen, lost, skipped, others_lost, resyncs, malformed, recovered, duplicates) = counts;
        let counts =
            SourceCounts { seen, lost, skipped, others_lost, resyncs, malformed, recovered, duplicates };
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
    let mut resolver = CgroupResolver::recorded(RecordedCgroups::default());
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    let schema_end = writer.bytes();
    for time in 1..BATCH_ROWS as u64 {
        writer.event(&Event::DumpEnd { started: Timestamp(time), timewait: false }, &mut resolver).unwrap();
    }
    assert_eq!((writer.pending(), writer.bytes()), (BATCH_ROWS - 1, schema_end));
    writer.event(&Event::DumpEnd { started: Timestamp(0), timewait: false }, &mut resolver).unwrap();
    assert_eq!(writer.pending(), 0);
    assert!(writer.bytes() > schema_end);
}

/// The columns of full batches have several compressed blocks. Incompressible columns are not compressed in every
/// batch.
#[test]
fn full_batches_round_trip() {
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
            let mut transition = super::damage::connect(Timestamp(index));
            // First distinct values, then repeated ones, then distinct ones again.
            let varied = if (2..4).contains(&(index / BATCH_ROWS as u64)) { index % 3 } else { next() };
            transition.socket = SocketId(varied);
            transition.remote.address = match varied % 3 {
                0 => Ipv4Addr::from_bits(low(varied)).into(),
                1 => Ipv6Addr::from_bits(varied.into()).into(),
                _ => transition.remote.address,
            };
            transition.cookie = (varied % 7 < 3).then_some(SocketCookie(varied));
            transition.cgroup_id = (varied % 5 == 0).then_some(CgroupId(7));
            let comm = if varied % 2 == 0 {
                *b"plain\0\0\0\0\0\0\0\0\0\0\0"
            } else {
                varied.to_le_bytes().repeat(2).try_into().unwrap()
            };
            transition.process = (varied % 11 < 2).then_some(Process { pid: low(varied), uid: 0, comm });
            transition.info = (index % 4 == 3).then(|| TcpInfo {
                bytes_sent: varied,
                mss: 1448,
                srtt: (varied % 2 == 0).then_some(Micros(low(varied))),
                ..TcpInfo::default()
            });
            Event::Transition(transition)
        })
        .collect();
    let content = read(&recorded(&header(), &[&events], &SourceCounts::default()));
    assert_eq!((content.unknown, content.missing), (0, None));
    assert!(content.events == events, "of {} events", events.len());
}

/// On a host with cgroup v1, the socket is in the root, and the cgroup of the process is informative.
#[test]
fn cgroups_round_trip() {
    let cgroup = |path: &str| Arc::new(Cgroup::new(path.to_owned()));
    let host = RecordedCgroups::default();
    host.insert_id(CgroupId(1), cgroup("/"));
    host.insert_id(CgroupId(77), cgroup("/system.slice/nginx.service"));
    host.set_process(9, Some(cgroup("/docker/9")));
    host.set_process(5, Some(cgroup("/docker/5")));

    let process = |pid| Process { pid, uid: 0, comm: [0; 16] };
    let connect = |cgroup_id: Option<u64>, pid| {
        let mut transition = super::damage::connect(Timestamp(5));
        transition.cgroup_id = cgroup_id.map(CgroupId);
        transition.process = Some(process(pid));
        Event::Transition(transition)
    };
    let mut resolver = CgroupResolver::recorded(host);
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for event in [connect(Some(77), 5), connect(Some(1), 9), connect(None, 6)] {
        writer.event(&event, &mut resolver).unwrap();
    }
    let bytes = writer.finish(&SourceCounts::default(), &mut resolver).unwrap();

    let cgroups = RecordedCgroups::default();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    let mut rows = Rows::new(&batch, header().clock, "node-1").unwrap();
    for row in 0..rows.len() {
        assert!(matches!(rows.content(row, &cgroups), RowContent::Event(_)));
    }
    let mut replayed = CgroupResolver::recorded(cgroups);
    let mut path = |id: Option<u64>, pid: u32| {
        let found = replayed.cgroup(id.map(CgroupId), Some(&process(pid)), Duration::ZERO);
        found.map(|cgroup| cgroup.path.clone())
    };
    assert_eq!(path(Some(77), 5).as_deref(), Some("/system.slice/nginx.service"));
    assert_eq!(path(Some(1), 9).as_deref(), Some("/docker/9"));
    assert_eq!(
        path(Some(1), 5).as_deref(),
        Some("/"),
        "the cgroup of the process is not recorded if that of the socket is informative"
    );
    assert_eq!(path(None, 6), None);
}

/// A name becomes known after the first event of its cgroup, in the same batch.
#[test]
fn names_of_containers_and_pods_round_trip() {
    const ID: &str = "3f4e8c1d9a7b2e6f5c0d1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";
    let cgroup = |path: &str| Arc::new(Cgroup::new(path.replace("$ID", ID)));
    let pod = cgroup("/kubepods/pod6ab5c7d8e9f00112233445566778899a/$ID");
    let docker = cgroup("/docker/$ID");
    docker.names.set_container("web".into());
    let host = RecordedCgroups::default();
    host.insert_id(CgroupId(1), cgroup("/"));
    host.insert_id(CgroupId(2), Arc::clone(&pod));
    host.set_process(9, Some(docker));

    let connect = |cgroup_id: u64, pid| {
        let mut transition = super::damage::connect(Timestamp(5));
        transition.cgroup_id = Some(CgroupId(cgroup_id));
        transition.process = Some(Process { pid, uid: 0, comm: [0; 16] });
        Event::Transition(transition)
    };
    let mut resolver = CgroupResolver::recorded(host);
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.event(&connect(2, 5), &mut resolver).unwrap();
    writer.event(&connect(1, 9), &mut resolver).unwrap();
    pod.names.set_container("etcd".into());
    pod.names.set_pod(Arc::new(PodNames::new("kube-system", "etcd-node-1", None, "node-1").unwrap()));
    writer.event(&connect(2, 5), &mut resolver).unwrap();
    let bytes = writer.finish(&SourceCounts::default(), &mut resolver).unwrap();

    let cgroups = RecordedCgroups::default();
    let mut replayed = CgroupResolver::recorded(cgroups.clone());
    let mut names = |id: u64, pid: u32| {
        let process = Process { pid, uid: 0, comm: [0; 16] };
        let found = replayed.cgroup(Some(CgroupId(id)), Some(&process), Duration::ZERO).unwrap();
        let pod = found.pod().map(|pod| (pod.qualified_pod().to_owned(), pod.workload_kind()));
        (found.container_name().map(str::to_owned), pod)
    };
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    let mut rows = Rows::new(&batch, header().clock, "node-1").unwrap();
    rows.content(0, &cgroups);
    assert_eq!(names(2, 5), (None, None));
    rows.content(1, &cgroups);
    assert_eq!(names(1, 9), (Some("web".to_owned()), None));
    rows.content(2, &cgroups);
    let etcd = ("kube-system/etcd-node-1".to_owned(), Some(WorkloadKind::StaticPod));
    assert_eq!(names(2, 5), (Some("etcd".to_owned()), Some(etcd)));
}

#[test]
fn the_schema_describes_its_columns() {
    let schema = arrow_schema(header().to_metadata());
    assert_eq!(schema.fields().len(), COLUMNS.len());
    for (field, column) in schema.fields().iter().zip(COLUMNS) {
        assert_eq!(field.metadata().get("description").map(String::as_str), Some(column.about));
        assert_eq!(field.metadata().get("unit").map_or("", String::as_str), column.unit);
        assert_eq!(field.is_nullable(), !["kind", "time"].contains(&column.name));
    }
}
