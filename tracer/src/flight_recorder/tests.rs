//! The recorder with scripted connections: what is kept, and what a frozen file has.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracer_core::{
    analysis::{FreezeCondition, FreezeCount, FreezeMeasure},
    event::{ClockOffset, TcpState},
    lifecycle::{Thresholds, TimeWaitModel, Tracker, TrackerOptions},
};
use tracer_core_testing::script::{SECOND, START, ScriptedSocket, error, time};

use super::*;
use crate::{
    host::{HostNames, RecordedCgroups},
    recording::FrozenBy,
    sources::{Coverage, Polled, Source as _, recording::RecordingSource},
};

fn header() -> Header {
    Header {
        tool_version: "1".to_owned(),
        wire_version: 1,
        host: HostNames {
            name: "web-1".to_owned(),
            kernel: "6.18.0".to_owned(),
            mode: "btf".to_owned(),
            hooks: String::new(),
        },
        clock: ClockOffset { to_utc_ns: 1_795_240_799_000_000_000 },
        time_wait: TimeWaitModel::default(),
        started: Timestamp(START),
        run: "run".to_owned(),
        part: 1,
        frozen_by: None,
    }
}

fn no_cgroups() -> CgroupResolver {
    CgroupResolver::recorded(RecordedCgroups::default())
}

/// A recorder, with the tracker of an event loop.
struct Harness {
    recorder: FlightRecorder,
    tracker: Tracker,
    handle: FreezeHandle,
    notices: Arc<Mutex<Vec<Notice>>>,
    source: SourceCounts,
    folder: tempfile::TempDir,
}

impl Harness {
    fn new(ring: u64, conditions: Vec<FreezeCondition>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notices: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let noted = Arc::clone(&notices);
        let options = FlightOptions {
            ring,
            trigger: FreezeTriggerOptions {
                conditions,
                window: Nanos::from_secs(10),
                pause: Nanos::from_secs(60),
                thresholds: Thresholds::default(),
            },
            files: FrozenFiles::new(&folder.path().join("web.arrows"), 2),
            report: Arc::new(move |notice| noted.lock().unwrap().push(notice)),
        };
        let (handle, requests) = freeze_channel();
        let recorder = FlightRecorder::new(options, header(), no_cgroups(), requests).unwrap();
        let tracker = Tracker::new(TrackerOptions::default());
        Self { recorder, tracker, handle, notices, source: SourceCounts::ZERO, folder }
    }

    fn take(&mut self, socket: &ScriptedSocket) {
        let Self { recorder, tracker, source, .. } = self;
        for event in socket.events() {
            source.seen += 1;
            recorder.event(&event).unwrap();
            tracker.observe(&event, &mut |observation| recorder.observe(observation).unwrap());
        }
    }

    fn flush(&mut self, us: u64) {
        let progress = Progress {
            tracker: &self.tracker,
            source: self.source,
            coverage: Coverage::default(),
            run_time: None,
            now: time(us),
        };
        self.recorder.flush(progress).unwrap();
    }

    /// Waits for the file that is being written, and returns all files.
    fn files(&mut self) -> Vec<PathBuf> {
        self.recorder.wait();
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap().clone()
    }
}

/// A client with a port of its own that opens at a second and is reset after a millisecond.
fn client(port: u16, second: u64) -> ScriptedSocket {
    let at = second * SECOND;
    let socket = ScriptedSocket::client(port.into())
        .step(at, TcpState::SynSent)
        .step(at + 300, TcpState::Established)
        .step(at + 1_000, TcpState::Closed)
        .flags(error(104));
    socket.with_all(|transition| {
        if transition.local.port != 0 {
            transition.local.port = port;
        }
    })
}

struct Replayed {
    header: Header,
    events: Vec<Event>,
    counts: SourceCounts,
}

fn replay(path: &Path) -> Replayed {
    let mut source = RecordingSource::open(&[path.to_owned()], None).unwrap();
    let mut events = Vec::new();
    while source.poll(&mut |event| events.push(*event)).unwrap() == Polled::Drained {}
    assert_eq!(source.take_problems(), Vec::<String>::new());
    Replayed { header: source.header().clone(), events, counts: source.counts() }
}

/// Returns the local ports of the transitions to CLOSE.
fn closed_ports(events: &[Event]) -> Vec<u16> {
    let ports = events.iter().filter_map(|event| match event {
        Event::Transition(transition) if transition.to == TcpState::Closed => Some(transition.local.port),
        _ => None,
    });
    ports.collect()
}

#[test]
fn nothing_is_written_without_a_trigger() {
    let limit = u64::MAX;
    let measure = FreezeMeasure::Count(FreezeCount::Resets);
    let mut harness = Harness::new(1 << 20, vec![FreezeCondition { measure, limit, text: String::new() }]);
    for port in 1..100 {
        harness.take(&client(port, port.into()));
        harness.flush(u64::from(port) * SECOND);
    }
    assert_eq!(harness.files(), Vec::<PathBuf>::new());
    assert!(harness.notices().is_empty());
}

#[test]
fn a_condition_writes_what_was_before_and_says_why() {
    let condition = FreezeCondition {
        measure: FreezeMeasure::Count(FreezeCount::Resets),
        limit: 2,
        text: "resets>2".to_owned(),
    };
    let mut harness = Harness::new(1 << 20, vec![condition]);
    harness.take(&client(1, 1));
    harness.flush(SECOND);
    // Long after the window, but still in the ring.
    for port in [2, 3, 4] {
        harness.take(&client(port, 100));
    }
    harness.flush(101 * SECOND);
    let [file] = &harness.files()[..] else { panic!("{:?}", harness.notices()) };
    let Replayed { header, events, counts } = replay(file);
    assert_eq!(closed_ports(&events), [1, 2, 3, 4]);
    assert_eq!(events.last().map(Event::time), Some(time(101 * SECOND)));
    assert_eq!((counts.seen, header.started), (12, Timestamp(START)));
    let by = FrozenBy {
        cause: "resets>2".to_owned(),
        measured: Some("3 in 10s".to_owned()),
        time: time(101 * SECOND),
    };
    assert_eq!(header.frozen_by, Some(by));
    assert_ne!(header.run, "run");
    let [Notice::Done(line)] = &harness.notices()[..] else { panic!("{:?}", harness.notices()) };
    assert!(line.starts_with("froze the last 1m41s to ") && line.contains("(resets>2: 3 in 10s; "), "{line}");
}

#[test]
fn requests_write_files_of_which_the_newest_stay() {
    let mut harness = Harness::new(1 << 20, Vec::new());
    for second in 1..=3 {
        harness.take(&client(1, second));
        harness.handle.signal();
        harness.flush(second * SECOND);
        harness.recorder.wait();
    }
    let files = harness.files();
    let ports: Vec<usize> = files.iter().map(|file| closed_ports(&replay(file).events).len()).collect();
    assert_eq!(ports, [2, 3]);
    let by = replay(&files[1]).header.frozen_by.unwrap();
    assert_eq!((by.cause.as_str(), by.measured), ("SIGUSR1", None));
    let runs: Vec<String> = files.iter().map(|file| replay(file).header.run).collect();
    assert_ne!(runs[0], runs[1], "overlapping files are not parts of one run");
}

#[test]
fn the_oldest_events_are_dropped_and_open_connections_stay() {
    const RING: u64 = 96 << 10;
    let mut harness = Harness::new(RING, Vec::new());
    let open = ScriptedSocket::client(60_000).step(1, TcpState::SynSent).step(2, TcpState::Established);
    harness.take(&open);
    harness.source.lost = 7;
    for port in 1..400_u16 {
        harness.take(&client(port, u64::from(port) * 10));
        // Each flush encodes a batch.
        harness.flush(u64::from(port) * 10 * SECOND + SECOND);
        let bytes = harness.recorder.ring.bytes();
        assert!(bytes <= RING, "{bytes} bytes at {port}");
    }
    assert!(harness.recorder.ring.bytes() > RING / 2);
    harness.handle.signal();
    harness.flush(5_000 * SECOND);
    let [file] = &harness.files()[..] else { panic!("{:?}", harness.notices()) };
    assert!(fs::metadata(file).unwrap().len() < RING + (64 << 10));
    let Replayed { events, counts, header } = replay(file);
    let ports = closed_ports(&events);
    assert_eq!(ports.last(), Some(&399));
    assert!(ports[0] > 1 && ports.len() > 1, "{ports:?}");
    assert!(ports.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ports:?}");
    let existing = events.iter().filter_map(|event| match event {
        Event::Existing(socket) => Some((socket.local.port, socket.state)),
        _ => None,
    });
    assert_eq!(existing.collect::<Vec<_>>(), [(40_000, TcpState::Established)]);
    assert_eq!(
        (counts.seen, counts.lost),
        (3 * ports.len() as u64, 0),
        "what was lost before is not in the file"
    );
    assert!(header.started > Timestamp(START));
}

#[test]
fn too_many_open_connections_are_left_out_and_reported_once() {
    const RING: u64 = 32 << 10;
    let mut harness = Harness::new(RING, Vec::new());
    for port in 1..3_000_u16 {
        let socket =
            ScriptedSocket::client(port.into()).step(1, TcpState::SynSent).step(2, TcpState::Established);
        harness.take(&socket.with_all(|transition| transition.local.port = port));
    }
    for second in 1..100 {
        harness.take(&client(60_000, second * 10));
        harness.flush(second * 10 * SECOND + SECOND);
    }
    assert!(harness.recorder.ring.bytes() <= RING);
    let notices = harness.notices();
    let [Notice::Problem(problem)] = &notices[..] else { panic!("{notices:?}") };
    assert!(problem.starts_with("2999 open connections take more than a quarter"), "{problem}");
}

#[test]
fn a_file_that_cannot_be_written_is_a_problem_and_the_recorder_continues() {
    let mut harness = Harness::new(1 << 20, Vec::new());
    fs::remove_dir(harness.folder.path()).unwrap();
    harness.handle.signal();
    harness.flush(SECOND);
    harness.recorder.wait();
    let [Notice::Problem(problem)] = &harness.notices()[..] else { panic!("{:?}", harness.notices()) };
    assert!(problem.contains("cannot be frozen: No such file"), "{problem}");
    fs::create_dir(harness.folder.path()).unwrap();
    harness.handle.signal();
    harness.flush(2 * SECOND);
    assert_eq!(harness.files().len(), 1);
}
