//! Resyncs the connection table with a new socket dump after transitions were missed.
//!
//! Without a resync, a connection whose close was missed would stay in the table, and a connection whose start was
//! missed would be unknown until its next transition. The dump runs on its own thread, so it does not delay events.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use hashbrown::HashSet;
use tracer_core::event::{ConnKey, Event, ExistingSocket, Nanos, SourceCounts, Timestamp};

use crate::{
    host::{give_up_priority, take_and_free},
    sources::sock_diag::{Channel, ResyncDump, resync_dump},
};

/// Time without further missed transitions before a dump starts, so that a burst is over.
const QUIET: Nanos = Nanos::from_secs(1);
/// Longest wait for the end of a burst.
const LONGEST_BURST: Nanos = Nanos::from_secs(10);
/// Minimum time between two dumps.
const INTERVAL: Nanos = Nanos::from_secs(30);
/// Most connections with events during a dump. Beyond this limit, the dump is discarded and repeated.
const MAX_CHANGED: usize = 1 << 20;

type Changed = HashSet<ConnKey, foldhash::fast::RandomState>;

/// Decides when to dump, runs the dump, and delivers its result.
#[derive(Debug, Default)]
pub(super) struct Resync {
    channels: Vec<Channel>,
    /// The count of missed transitions at the last check.
    missed: u64,
    /// The table is dirty: transitions were missed since the last dump. The times of the first and the last miss.
    dirty: Option<(Timestamp, Timestamp)>,
    /// The start of the last dump, or of the last attempt.
    dumped_at: Option<Timestamp>,
    dump: Option<RunningDump>,
}

/// A dump in progress.
#[derive(Debug)]
struct RunningDump {
    thread: JoinHandle<ResyncDump>,
    /// The connections with events during the dump. The events take precedence over the dump.
    changed: Changed,
    /// The time of the earliest of these events. It may be before the start of the dump, because the dump does not wait
    /// until earlier records have been read.
    earliest: Option<Timestamp>,
}

impl Resync {
    /// Creates a resync through these channels. Without channels, it never dumps.
    pub(super) fn through(channels: Vec<Channel>) -> Self {
        Self { channels, ..Self::default() }
    }

    /// Records the connection of an event during a dump.
    pub(super) fn event(&mut self, event: &Event) {
        let Some(dump) = &mut self.dump else { return };
        if dump.changed.len() > MAX_CHANGED {
            return;
        }
        match event {
            Event::Transition(transition) => {
                dump.changed.insert(transition.key());
                dump.earliest = Some(dump.earliest.map_or(transition.time, |it| it.min(transition.time)));
            }
            Event::TimewaitEnd(end) => {
                dump.changed.insert(end.key());
            }
            _ => {}
        }
    }

    /// Starts a dump when one is due.
    pub(super) fn begin_if_due(&mut self, counts: &SourceCounts, now: Timestamp) {
        let missed = counts.lost + counts.skipped.unwrap_or(0) + counts.malformed;
        if missed > self.missed {
            self.missed = missed;
            let first = self.dirty.map_or(now, |(first, _)| first);
            self.dirty = Some((first, now));
        }
        if self.dump.is_none() && !self.channels.is_empty() && self.is_due(now) {
            self.begin(thread::Builder::new(), now);
        }
    }

    /// Starts a dump on a new thread. If the thread cannot be started, the next attempt is after [`INTERVAL`].
    fn begin(&mut self, thread: thread::Builder, now: Timestamp) {
        // Shared, because a failed spawn drops everything that the thread would own.
        let channels = Arc::new(Mutex::new(mem::take(&mut self.channels)));
        let shared = Arc::clone(&channels);
        let started = thread.name("resync".to_owned()).spawn(move || {
            give_up_priority();
            resync_dump(take(&shared))
        });
        if let Ok(thread) = started {
            self.dump = Some(RunningDump { thread, changed: Changed::default(), earliest: None });
            self.dirty = None;
        } else {
            self.channels = take(&channels);
            self.dumped_at = Some(now);
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let past = |since: Timestamp, time: Nanos| now.since(since) >= time;
        self.dirty.is_some_and(|(first, last)| past(last, QUIET) || past(first, LONGEST_BURST))
            && self.dumped_at.is_none_or(|dumped_at| past(dumped_at, INTERVAL))
    }

    /// Returns whether a dump is complete and waits for [`Self::finish`].
    pub(super) fn is_done(&self) -> bool {
        self.dump.as_ref().is_some_and(|dump| dump.thread.is_finished())
    }

    /// Delivers the result of a dump that [is done](Self::is_done). Between the two calls, the events during the dump
    /// must be passed to [`Self::event`]. Returns true if the table was resynced.
    pub(super) fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Some(dump) = self.dump.take() else { return false };
        let found = dump.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.dumped_at = Some(found.started);
        self.channels = found.channels;
        let useless = dump.changed.len() > MAX_CHANGED || found.namespaces.is_empty();
        // A namespace with an interrupted dump keeps its channel, and is dumped again.
        if useless || found.namespaces.len() < self.channels.len() {
            self.dirty = Some((found.started, found.started));
        }
        if useless {
            return false;
        }
        // Connections with events during the dump are not delivered here, and must not count as closed.
        let started = dump.earliest.map_or(found.started, |it| it.min(found.started));
        // The scopes come first, because they limit the dump to its namespaces.
        for netns in found.namespaces {
            deliver(&Event::DumpScope { started, netns });
        }
        for socket in take_and_free(found.sockets).filter(|socket| is_unchanged(socket, &dump.changed)) {
            deliver(&Event::Existing(socket));
        }
        for socket in found.timewait.iter().filter(|socket| !dump.changed.contains(&socket.key())) {
            deliver(&Event::ExistingTimewait(*socket));
        }
        deliver(&Event::DumpEnd { started, timewait: true });
        true
    }
}

fn take(channels: &Mutex<Vec<Channel>>) -> Vec<Channel> {
    mem::take(&mut *channels.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Returns whether the socket had no event during the dump.
fn is_unchanged(socket: &ExistingSocket, changed: &Changed) -> bool {
    !changed.contains(&socket.key())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracer_core::event::{Endpoint, ExistingTimewait, Netns, SocketCookie, TcpState, TimewaitEnd};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(lost: u64, skipped: u64) -> SourceCounts {
        SourceCounts { lost, skipped: Some(skipped), ..SourceCounts::default() }
    }

    fn due(resync: &mut Resync, counts: &SourceCounts, seconds: u64) -> bool {
        // Without channels no dump starts, but `is_due` still works.
        resync.begin_if_due(counts, Timestamp(seconds * SECOND));
        resync.is_due(Timestamp(seconds * SECOND))
    }

    /// Waits for the dump and delivers its result.
    fn finish(resync: &mut Resync, events: &mut Vec<Event>) -> bool {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !resync.is_done() {
            assert!(std::time::Instant::now() < end, "the dump does not end");
            thread::sleep(Duration::from_millis(1));
        }
        resync.finish(&mut |event| events.push(*event))
    }

    /// Returns a resync with a running dump that has this result.
    fn dumping(found: impl FnOnce() -> ResyncDump + Send + 'static) -> Resync {
        let thread = thread::spawn(found);
        let dump = RunningDump { thread, changed: Changed::default(), earliest: None };
        Resync { dump: Some(dump), ..Resync::default() }
    }

    const STARTED: Timestamp = Timestamp(100 * SECOND);

    fn complete(namespaces: &[u32]) -> ResyncDump {
        ResyncDump {
            namespaces: namespaces.iter().copied().map(Netns).collect(),
            started: STARTED,
            ..ResyncDump::default()
        }
    }

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { address: "10.0.0.1".parse().unwrap(), port }
    }

    fn transition(time: u64, local: u16) -> Event {
        Event::Transition(tracer_core::event::Transition {
            time: Timestamp(time),
            socket: tracer_core::event::SocketId(u64::from(local)),
            cookie: None,
            from: TcpState::Established,
            to: TcpState::CloseWait,
            local: endpoint(local),
            remote: endpoint(80),
            process: None,
            thread: None,
            netns: Some(Netns(1)),
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            flags: None,
            info: None,
            sequences: None,
        })
    }

    fn established(local: u16) -> ExistingSocket {
        ExistingSocket {
            time: STARTED,
            cookie: SocketCookie(u64::from(local)),
            state: TcpState::Established,
            state_age: None,
            local: endpoint(local),
            remote: endpoint(80),
            process: None,
            netns: Some(Netns(1)),
            cgroup_id: None,
            info: None,
            interface: None,
        }
    }

    #[test]
    fn a_dump_without_a_complete_namespace_is_repeated() {
        let mut events = Vec::new();
        let mut resync = dumping(|| complete(&[]));
        assert!(!finish(&mut resync, &mut events));
        assert_eq!(events, []);
        assert!(!resync.is_due(Timestamp(129 * SECOND)));
        assert!(resync.is_due(Timestamp(130 * SECOND)));
    }

    #[test]
    fn a_missing_namespace_is_dumped_again() {
        let channels = || vec![Channel::here().unwrap(), Channel::here().unwrap()];
        for (namespaces, again) in [(&[1, 2][..], false), (&[1][..], true)] {
            let mut events = Vec::new();
            let mut resync = dumping(move || ResyncDump { channels: channels(), ..complete(namespaces) });
            assert!(finish(&mut resync, &mut events));
            assert_eq!(events.len(), namespaces.len() + 1);
            assert_eq!(resync.is_due(Timestamp(130 * SECOND)), again, "{namespaces:?}");
        }
    }

    #[test]
    fn a_connection_with_an_event_during_the_dump_is_skipped() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let mut resync = dumping(move || {
            let _ = receiver.recv();
            ResyncDump { sockets: vec![established(1), established(2)], ..complete(&[1]) }
        });
        assert!(!resync.is_done());
        // The second event happened before the start of the dump, and was read after it.
        resync.event(&transition(100 * SECOND + 5, 3));
        resync.event(&transition(100 * SECOND - 5, 1));
        resync.event(&transition(100 * SECOND + 7, 4));
        drop(sender);
        let mut events = Vec::new();
        assert!(finish(&mut resync, &mut events));
        let started = Timestamp(100 * SECOND - 5);
        assert_eq!(
            events,
            [
                Event::DumpScope { started, netns: Netns(1) },
                Event::Existing(established(2)),
                Event::DumpEnd { started, timewait: true }
            ]
        );
    }

    #[test]
    fn a_timewait_socket_that_ended_during_the_dump_stays_away() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let timewait = |local| ExistingTimewait {
            time: STARTED,
            state: TcpState::TimeWait,
            timer_due: Timestamp(130 * SECOND),
            local: endpoint(local),
            remote: endpoint(80),
            netns: Some(Netns(1)),
        };
        let mut resync = dumping(move || {
            let _ = receiver.recv();
            ResyncDump { timewait: vec![timewait(1), timewait(2)], ..complete(&[1]) }
        });
        let ExistingTimewait { local, remote, netns, .. } = timewait(1);
        let time = Timestamp(STARTED.0 + 5);
        resync.event(&Event::TimewaitEnd(TimewaitEnd {
            time,
            state: TcpState::TimeWait,
            local,
            remote,
            netns,
        }));
        drop(sender);
        let mut events = Vec::new();
        assert!(finish(&mut resync, &mut events));
        assert_eq!(
            events,
            [
                Event::DumpScope { started: STARTED, netns: Netns(1) },
                Event::ExistingTimewait(timewait(2)),
                Event::DumpEnd { started: STARTED, timewait: true }
            ]
        );
    }

    #[test]
    fn a_dump_that_cannot_start_is_repeated() {
        let mut resync = Resync::through(vec![Channel::here().unwrap()]);
        resync.dirty = Some((Timestamp(SECOND), Timestamp(SECOND)));
        // The stack is larger than the address space.
        resync.begin(thread::Builder::new().stack_size(1 << 60), STARTED);
        assert!(resync.dump.is_none());
        assert_eq!(resync.channels.len(), 1);
        resync.begin_if_due(&counts(0, 0), Timestamp(129 * SECOND));
        assert!(resync.dump.is_none());
        resync.begin_if_due(&counts(0, 0), Timestamp(130 * SECOND));
        assert!(finish(&mut resync, &mut Vec::new()));
    }

    #[test]
    fn a_dump_starts_after_a_burst() {
        let mut resync = Resync::default();
        assert!(!due(&mut resync, &counts(0, 0), 100));
        assert!(!due(&mut resync, &counts(5, 0), 101));
        assert!(!due(&mut resync, &counts(9, 0), 102));
        assert!(due(&mut resync, &counts(9, 0), 103));
    }

    #[test]
    fn a_long_burst_leads_to_dumps_at_the_interval() {
        let mut resync = Resync::default();
        let dumps: Vec<u64> = (100..200)
            .filter(|&second| {
                let starts = due(&mut resync, &counts(0, second), second);
                if starts {
                    resync.dumped_at = Some(Timestamp(second * SECOND));
                    resync.dirty = None;
                }
                starts
            })
            .collect();
        assert_eq!(dumps, [110, 140, 170]);
    }

    #[test]
    fn a_dump_delivers_the_connections_of_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut resync = Resync::through(vec![Channel::here().unwrap()]);
        resync.begin_if_due(&counts(1, 0), Timestamp(SECOND));
        resync.begin_if_due(&counts(1, 0), Timestamp(3 * SECOND));
        assert!(resync.dump.is_some());
        let mut events = Vec::new();
        assert!(finish(&mut resync, &mut events));
        let address = client.local_addr().unwrap();
        let found = events.iter().any(|event| {
            matches!(event, Event::Existing(socket)
                if socket.state == TcpState::Established && socket.local.port == address.port())
        });
        assert!(found, "{} events", events.len());
        assert!(matches!(events[0], Event::DumpScope { .. }));
        assert!(matches!(events[events.len() - 1], Event::DumpEnd { .. }));
        assert_eq!(resync.channels.len(), 1);
    }
}
