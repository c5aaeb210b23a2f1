//! The decoder of recordings.

use std::net::IpAddr;

use tcptrace_bpf::{
    host::{CgroupResolver, HostNames, RecordedCgroups},
    recording::{Header, Writer},
    sources::recording::{Reader, RowContent, Rows},
};
use tracer_core::{
    event::{
        AcceptQueue, Call, CgroupId, ClockOffset, Endpoint, Event, ExistingSocket, ExistingTimewait,
        InitialSequences, Nanos, Netns, Process, SocketCookie, SocketFlags, SocketId, SourceCounts,
        SynAckRetransmit, TcpInfo, TcpState, ThreadName, Timestamp, Transition,
    },
    lifecycle::TimeWaitModel,
};

use super::{
    allocations::largest,
    mutate::{Random, mutate},
};

/// Limit of a single allocation: the file at the maximum LZ4 ratio, plus the needs of the reader. Much less than the
/// wrong lengths.
const MAX_ALLOCATION: usize = 24 << 20;

fn endpoint(number: u64) -> Endpoint {
    let [.., a, b] = number.to_be_bytes();
    Endpoint { address: IpAddr::from([10, 0, a, b]), port: u16::from(b) + 1 }
}

fn events(count: u64) -> Vec<Event> {
    let process = Process { pid: 7, uid: 0, comm: *b"worker\xff\0\0\0\0\0\0\0\0\0" };
    let mut events = vec![
        Event::Existing(ExistingSocket {
            time: Timestamp(1),
            cookie: SocketCookie(5),
            state: TcpState::Listen,
            state_age: Some(Nanos(3)),
            local: endpoint(1),
            remote: Endpoint { address: IpAddr::from([0, 0, 0, 0]), port: 0 },
            process: Some(process),
            netns: Some(Netns(1)),
            cgroup_id: Some(CgroupId(2)),
            info: None,
            interface: Some(2),
        }),
        Event::ExistingTimewait(ExistingTimewait {
            time: Timestamp(1),
            state: TcpState::TimeWait,
            timer_due: Timestamp(60),
            local: endpoint(1),
            remote: endpoint(2),
            netns: Some(Netns(1)),
        }),
        Event::DumpEnd { started: Timestamp(1), timewait: true },
    ];
    for time in 3..count {
        events.push(match time % 5 {
            0 => Event::FirstRead(Call {
                time: Timestamp(time),
                socket: SocketId(time),
                process,
                thread: Some(ThreadName(*b"worker-1\0\0\0\0\0\0\0\0")),
            }),
            1 => Event::SynAckRetransmit(SynAckRetransmit {
                time: Timestamp(time),
                listener: SocketId(1),
                local: endpoint(1),
                remote: endpoint(time),
                netns: None,
                attempts: 1,
                first_sent: Some(Timestamp(time - 1)),
                accept_queue: Some(AcceptQueue { length: 1, limit: 2 }),
                acked: true,
                sequences: Some(InitialSequences { local: 7, remote: None }),
            }),
            _ => Event::Transition(Transition {
                time: Timestamp(time),
                socket: SocketId(time),
                cookie: None,
                from: TcpState::SynSent,
                to: TcpState::Closed,
                local: endpoint(time),
                remote: endpoint(time * 7),
                process: (time % 2 == 0).then_some(process),
                thread: None,
                netns: Some(Netns(1)),
                cgroup_id: Some(CgroupId(time % 3)),
                accept_queue: None,
                data_segments: Some(3),
                unaccepted_segments: Some(1),
                interface: Some(2),
                transparent: false,
                defer_accept: false,
                sequences: Some(InitialSequences { local: 1, remote: Some(2) }),
                flags: Some(SocketFlags::default()),
                info: Some(TcpInfo { bytes_sent: time, ..TcpInfo::default() }),
            }),
        });
    }
    events
}

fn sample(count: u64, batch: usize) -> Vec<u8> {
    let header = Header {
        tool_version: "1".into(),
        wire_version: 1,
        host: HostNames {
            name: "host".into(),
            kernel: "6.18".into(),
            mode: "btf".into(),
            hooks: "drop".into(),
        },
        clock: ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 },
        time_wait: TimeWaitModel::default(),
        started: Timestamp(0),
        run: "run".into(),
        part: 1,
        frozen_by: None,
    };
    let mut resolver = CgroupResolver::recorded(RecordedCgroups::default());
    let mut writer = Writer::new(Vec::new(), &header).expect("memory takes all");
    let counts = SourceCounts { seen: count, ..SourceCounts::default() };
    for batch in events(count).chunks(batch) {
        for event in batch {
            writer.event(event, &mut resolver).expect("memory takes all");
        }
        writer.flush(&counts, &mut resolver).expect("memory takes all");
    }
    writer.finish(&counts, &mut resolver).expect("memory takes all")
}

/// Returns how many rows were decoded; `None` if the bytes are not a recording.
fn read(bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(bytes).ok()?;
    let clock = reader.header().clock;
    let cgroups = RecordedCgroups::default();
    let mut decoded = 0;
    while let Some(batch) = reader.next_batch().expect("memory can be read") {
        let Some(mut rows) = Rows::new(&batch, clock, "node") else { continue };
        for row in 0..rows.len() {
            decoded += usize::from(rows.content(row, &cgroups) != RowContent::Unknown);
        }
    }
    Some(decoded)
}

#[test]
fn recordings() {
    let samples = [sample(40, 1000), sample(300, 100), sample(3, 1)];
    for (sample, rows) in samples.iter().zip([41, 301, 4]) {
        // The events, and the counts once.
        assert_eq!(read(sample), Some(rows));
    }
    let mut random = Random::new(0x7265_636f_7264);
    let (mut read_some, mut refused) = (0, 0);
    for index in 0..6_000 {
        match read(&mutate(&samples[index % samples.len()], &mut random)) {
            None => refused += 1,
            Some(rows) => read_some += usize::from(rows > 0),
        }
    }
    assert!(refused > 500 && read_some > 500, "{refused} refused, {read_some} read");
    assert!(largest() < MAX_ALLOCATION, "an allocation of {} bytes", largest());
}
