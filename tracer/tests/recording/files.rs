//! Recordings in several files, time limits, and missing parts.

use std::{fs, path::PathBuf, time::Duration};

use tcptrace_bpf::{recording::Header, sources::recording::RecordingSource};
use tracer_core::{
    event::{Endpoint, Event, ExistingSocket, SocketCookie, SourceCounts, TcpState, Timestamp},
    lifecycle::{Observation, Tracker, TrackerOptions},
};

use super::{
    damage::connect,
    support::{header, recorded, replay},
};

struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, header: &Header, events: &[Event], counts: &SourceCounts) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, recorded(header, &[events], counts)).unwrap();
        path
    }
}

fn part(number: u32) -> Header {
    Header { part: number, ..header() }
}

fn at(time: u64) -> Event {
    Event::Transition(connect(Timestamp(time)))
}

fn existing(time: u64) -> Event {
    let endpoint = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
    Event::Existing(ExistingSocket {
        time: Timestamp(time),
        cookie: SocketCookie(3),
        state: TcpState::Established,
        state_age: None,
        local: endpoint(1),
        remote: endpoint(2),
        process: None,
        netns: None,
        cgroup_id: None,
        info: None,
        interface: None,
    })
}

fn dump_end(time: u64) -> Event {
    Event::DumpEnd { started: Timestamp(time), timewait: false }
}

fn counts(lost: u64, skipped: Option<u64>) -> SourceCounts {
    SourceCounts { seen: 1, lost, skipped, ..SourceCounts::default() }
}

#[test]
fn the_files_of_a_run_are_joined() {
    let run = Run::new();
    let first = run.file("a.1", &part(1), &[existing(1), dump_end(1), at(2)], &counts(1, Some(2)));
    let second = run.file("a.2", &part(2), &[existing(3), dump_end(3), at(4)], &counts(10, Some(20)));
    let fourth = run.file("a.4", &part(4), &[existing(5), dump_end(5), at(6)], &counts(100, None));

    let (events, sum, problems) = replay(&[&second, &first], None);
    assert_eq!(events, [existing(1), dump_end(1), at(2), at(4)], "the dump of the second file is redundant");
    assert_eq!((sum.seen, sum.lost, sum.skipped), (2, 11, Some(22)));
    assert_eq!(problems, [""; 0]);

    let (events, _, _) = replay(&[&second], None);
    assert_eq!(
        events,
        [existing(3), dump_end(3), at(4)],
        "the dump of a file without its predecessor is delivered"
    );

    let (events, sum, problems) = replay(&[&first, &second, &fourth], None);
    assert_eq!(events, [existing(1), dump_end(1), at(2), at(4), existing(5), dump_end(5), at(6)]);
    assert_eq!((sum.lost, sum.skipped), (111, None));
    assert!(
        problems.len() == 1 && problems[0].contains("1 file of the recording was not given"),
        "{problems:?}"
    );

    let other = run.file("b", &Header { run: "other".into(), ..part(3) }, &[], &counts(0, None));
    for (paths, word) in
        [(vec![first.clone(), other], "different runs"), (vec![first.clone(), first], "same part")]
    {
        let Err(error) = RecordingSource::open(&paths, None) else { panic!("{word}") };
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// The first file is truncated, so the dump of the next file is delivered.
#[test]
fn the_dump_after_a_truncated_file_is_delivered() {
    let run = Run::new();
    let first = run.file("a.1", &part(1), &[existing(1), dump_end(1), at(2)], &counts(1, Some(2)));
    let second = run.file("a.2", &part(2), &[existing(3), dump_end(3), at(4)], &counts(10, Some(20)));
    let whole = fs::read(&first).unwrap();
    fs::write(&first, &whole[..whole.len() - 8]).unwrap();
    let (events, _, problems) = replay(&[&first, &second], None);
    assert_eq!(events, [existing(1), dump_end(1), at(2), existing(3), dump_end(3), at(4)]);
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn the_limit_applies_to_the_recorded_time() {
    let run = Run::new();
    let path = run.file("a", &header(), &[at(1_000), at(1_500), at(1_501)], &counts(7, Some(0)));
    let (events, ..) = replay(&[&path], Some(Duration::from_nanos(500)));
    assert_eq!(events, [at(1_000), at(1_500), Event::Time(Timestamp(1_500))]);
    let (events, ..) = replay(&[&path], Some(Duration::from_secs(500)));
    assert_eq!(events.len(), 3);
}

#[test]
fn a_problem_names_the_file() {
    let run = Run::new();
    let path = run.file("cut", &header(), &[at(1_000)], &counts(7, Some(0)));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
    let (events, _, problems) = replay(&[&path], None);
    assert_eq!(events, [at(1_000)]);
    assert!(problems[0].contains("cut: the recording ended without its end marker"), "{problems:?}");
}

#[test]
fn an_error_names_the_file_and_the_cause() {
    let run = Run::new();
    let path = run.folder.path().join("x");
    let Err(absent) = RecordingSource::open(std::slice::from_ref(&path), None) else { panic!() };
    assert!(absent.to_string().contains("cannot open the recording"), "{absent}");
    fs::write(&path, b"hello, world").unwrap();
    let Err(error) = RecordingSource::open(&[path], None) else { panic!() };
    assert!(error.to_string().contains("x as a recording: it is not an Arrow stream"), "{error}");
}

/// The dump of a continued file uses the cookie that identifies the socket of later events.
#[test]
fn a_connection_continues_in_the_next_file() {
    let socket = connect(Timestamp(0)).socket;
    let mut tracker = Tracker::new(TrackerOptions::default());
    let Event::Existing(mut existing) = existing(1) else { panic!() };
    existing.cookie = SocketCookie(!socket.0);
    let mut closed = connect(Timestamp(9));
    closed.socket = socket;
    (closed.from, closed.to) = (TcpState::Established, TcpState::Closed);
    let again = |time| {
        let mut again = connect(Timestamp(time));
        (again.local, again.remote, again.netns) = (existing.local, existing.remote, existing.netns);
        again.socket = socket;
        again
    };
    (closed.local, closed.remote, closed.netns) = (existing.local, existing.remote, existing.netns);
    let mut ends = 0;
    for event in
        [Event::Existing(existing), dump_end(1), Event::Transition(closed), Event::Transition(again(10))]
    {
        tracker.observe(&event, &mut |observation| {
            ends += i32::from(matches!(observation, Observation::Closed(_)));
        });
    }
    assert_eq!((ends, tracker.counts().unmatched, tracker.live()), (1, 0, 1));
    // Another socket with the same key is a new connection.
    let mut other = again(11);
    other.socket.0 += 1;
    tracker.observe(&Event::Transition(other), &mut |observation| {
        ends += i32::from(matches!(observation, Observation::Closed(_)));
    });
    assert_eq!((ends, tracker.counts().unseen_closes, tracker.live()), (1, 0, 2));
}
