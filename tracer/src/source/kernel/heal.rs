//! Heals the view after transitions were missed: a fresh look at the host's sockets.
//!
//! Without it, a connection whose end was missed would stay in the table for ever, and one whose beginning was
//! missed would be unknown until its next transition. The look is taken on a thread of its own, so that the
//! events that come meanwhile are not held up.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use hashbrown::HashSet;

use crate::{
    event::{Endpoint, Event, ExistingSocket, SourceCounts, Timestamp},
    source::snapshot::{Channel, Relook, relook},
};

/// How long nothing must have been missed before the host is looked at: a burst is over by then.
const CALM: Duration = Duration::from_secs(1);
/// The longest that is waited for calm.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest time between two looks.
const INTERVAL: Duration = Duration::from_secs(30);
/// Most ends remembered while a look is taken; beyond, it is of no use and is taken again.
const MAX_TOUCHED: usize = 1 << 20;

type Ends = (Option<u32>, Endpoint, Endpoint);
type Touched = HashSet<Ends, foldhash::fast::RandomState>;

/// Knows what was missed, and when to look.
#[derive(Debug, Default)]
pub(super) struct Healing {
    channels: Vec<Channel>,
    /// What had been missed when it was last asked.
    missed: u64,
    /// When transitions were first and last missed since the last look.
    hurt: Option<(Timestamp, Timestamp)>,
    /// When a look last began, or could not.
    looked: Option<Timestamp>,
    look: Option<Look>,
}

/// A look that is being taken.
#[derive(Debug)]
struct Look {
    thread: JoinHandle<Relook>,
    /// The ends that events were about meanwhile: these know better than the look.
    touched: Touched,
    /// The earliest of these events. It may be older than the look, which does not wait until what happened
    /// before it has been read.
    earliest: Option<Timestamp>,
}

impl Healing {
    /// Heals through these channels; without any, never.
    pub(super) fn through(channels: Vec<Channel>) -> Self {
        Self { channels, ..Self::default() }
    }

    /// Remembers what an event was about while a look is taken.
    pub(super) fn event(&mut self, event: &Event) {
        if let Some(look) = &mut self.look
            && let Event::Transition(transition) = event
            && look.touched.len() <= MAX_TOUCHED
        {
            look.touched.insert((transition.netns, transition.local, transition.remote));
            look.earliest = Some(look.earliest.map_or(transition.time, |it| it.min(transition.time)));
        }
    }

    /// Begins a look when one is due.
    pub(super) fn begin_if_due(&mut self, counts: &SourceCounts, now: Timestamp) {
        let missed = counts.lost + counts.skipped.unwrap_or(0) + counts.malformed;
        if missed > self.missed {
            self.missed = missed;
            let first = self.hurt.map_or(now, |(first, _)| first);
            self.hurt = Some((first, now));
        }
        if self.look.is_none() && !self.channels.is_empty() && self.is_due(now) {
            self.begin(thread::Builder::new(), now);
        }
    }

    /// Begins a look on such a thread. Where none can be started, it is tried again at the time of the next look.
    fn begin(&mut self, thread: thread::Builder, now: Timestamp) {
        // Shared, because what a thread that cannot be started was to own is gone.
        let channels = Arc::new(Mutex::new(mem::take(&mut self.channels)));
        let shared = Arc::clone(&channels);
        let looking = thread.name("look".to_owned()).spawn(move || relook(take(&shared)));
        if let Ok(thread) = looking {
            self.look = Some(Look { thread, touched: Touched::default(), earliest: None });
            self.hurt = None;
        } else {
            self.channels = take(&channels);
            self.looked = Some(now);
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let past = |since: Timestamp, time: Duration| u128::from(now.since(since)) >= time.as_nanos();
        self.hurt.is_some_and(|(first, last)| past(last, CALM) || past(first, PATIENCE))
            && self.looked.is_none_or(|looked| past(looked, INTERVAL))
    }

    /// Whether a look has been taken and waits for [`Self::finish`].
    pub(super) fn is_done(&self) -> bool {
        self.look.as_ref().is_some_and(|look| look.thread.is_finished())
    }

    /// Hands over what a look that [is done](Self::is_done) has found. Between the two the events must be read: what
    /// happened while the look was taken is to be known by then. True when the view was renewed.
    pub(super) fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Some(look) = self.look.take() else { return false };
        let found = look.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.looked = Some(found.started);
        self.channels = found.channels;
        let useless = look.touched.len() > MAX_TOUCHED || found.namespaces.is_empty();
        // A namespace whose list was disturbed to the end still has its channel.
        if useless || found.namespaces.len() < self.channels.len() {
            self.hurt = Some((found.started, found.started));
        }
        if useless {
            return false;
        }
        // Whatever an event was about meanwhile is not told here, and must not count as vanished.
        let started = look.earliest.map_or(found.started, |it| it.min(found.started));
        // First, so that it is known what kind of look it is.
        for netns in found.namespaces {
            deliver(&Event::SnapshotScope { started, netns });
        }
        for socket in found.sockets.iter().filter(|socket| is_untouched(socket, &look.touched)) {
            deliver(&Event::Existing(*socket));
        }
        deliver(&Event::SnapshotEnd { started });
        true
    }
}

fn take(channels: &Mutex<Vec<Channel>>) -> Vec<Channel> {
    mem::take(&mut *channels.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the look may speak for this socket: no event did meanwhile.
fn is_untouched(socket: &ExistingSocket, touched: &Touched) -> bool {
    !touched.contains(&(socket.netns, socket.local, socket.remote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::TcpState;

    const SECOND: u64 = 1_000_000_000;

    fn counts(lost: u64, skipped: u64) -> SourceCounts {
        SourceCounts { lost, skipped: Some(skipped), ..SourceCounts::default() }
    }

    fn due(healing: &mut Healing, counts: &SourceCounts, seconds: u64) -> bool {
        // Without channels no look begins, but whether one is due can be asked.
        healing.begin_if_due(counts, Timestamp(seconds * SECOND));
        healing.is_due(Timestamp(seconds * SECOND))
    }

    /// Waits for the look and hands over what it has found.
    fn finish(healing: &mut Healing, events: &mut Vec<Event>) -> bool {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !healing.is_done() {
            assert!(std::time::Instant::now() < end, "the look does not end");
            thread::sleep(Duration::from_millis(1));
        }
        healing.finish(&mut |event| events.push(*event))
    }

    /// While a look is taken that will find this, begun at second 100.
    fn looking(found: impl FnOnce() -> Relook + Send + 'static) -> Healing {
        let thread = thread::spawn(found);
        let look = Look { thread, touched: Touched::default(), earliest: None };
        Healing { look: Some(look), ..Healing::default() }
    }

    const STARTED: Timestamp = Timestamp(100 * SECOND);

    fn whole(namespaces: &[u32]) -> Relook {
        Relook { namespaces: namespaces.to_vec(), started: STARTED, ..Relook::default() }
    }

    fn end(port: u16) -> Endpoint {
        Endpoint { address: "10.0.0.1".parse().unwrap(), port }
    }

    fn transition(time: u64, local: u16) -> Event {
        Event::Transition(crate::event::Transition {
            time: Timestamp(time),
            socket: crate::event::SocketId(u64::from(local)),
            cookie: None,
            from: TcpState::Established,
            to: TcpState::CloseWait,
            local: end(local),
            remote: end(80),
            process: None,
            thread: None,
            netns: Some(1),
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            unaccepted_segments: None,
            flags: None,
            info: None,
        })
    }

    fn established(local: u16) -> ExistingSocket {
        ExistingSocket {
            time: STARTED,
            cookie: u64::from(local),
            state: TcpState::Established,
            state_age_ns: None,
            local: end(local),
            remote: end(80),
            process: None,
            netns: Some(1),
            cgroup_id: None,
            info: None,
        }
    }

    #[test]
    fn a_look_that_found_no_whole_namespace_ends_nothing_and_is_taken_again() {
        let mut events = Vec::new();
        let mut healing = looking(|| whole(&[]));
        assert!(!finish(&mut healing, &mut events));
        assert_eq!(events, []);
        assert!(!healing.is_due(Timestamp(129 * SECOND)));
        assert!(healing.is_due(Timestamp(130 * SECOND)));
    }

    #[test]
    fn what_was_left_out_is_looked_at_again() {
        let channels = || vec![Channel::here().unwrap(), Channel::here().unwrap()];
        for (namespaces, again) in [(&[1, 2][..], false), (&[1][..], true)] {
            let mut events = Vec::new();
            let mut healing = looking(move || Relook { channels: channels(), ..whole(namespaces) });
            assert!(finish(&mut healing, &mut events));
            assert_eq!(events.len(), namespaces.len() + 1);
            assert_eq!(healing.is_due(Timestamp(130 * SECOND)), again, "{namespaces:?}");
        }
    }

    #[test]
    fn what_an_event_was_about_meanwhile_is_neither_told_nor_ended() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let mut healing = looking(move || {
            let _ = receiver.recv();
            Relook { sockets: vec![established(1), established(2)], ..whole(&[1]) }
        });
        assert!(!healing.is_done());
        // One of them happened before the look began, and was read only then.
        healing.event(&transition(100 * SECOND + 5, 3));
        healing.event(&transition(100 * SECOND - 5, 1));
        healing.event(&transition(100 * SECOND + 7, 4));
        drop(sender);
        let mut events = Vec::new();
        assert!(finish(&mut healing, &mut events));
        let started = Timestamp(100 * SECOND - 5);
        assert_eq!(
            events,
            [
                Event::SnapshotScope { started, netns: 1 },
                Event::Existing(established(2)),
                Event::SnapshotEnd { started }
            ]
        );
    }

    #[test]
    fn a_look_that_cannot_begin_is_tried_again() {
        let mut healing = Healing::through(vec![Channel::here().unwrap()]);
        healing.hurt = Some((Timestamp(SECOND), Timestamp(SECOND)));
        // More than the address space.
        healing.begin(thread::Builder::new().stack_size(1 << 60), STARTED);
        assert!(healing.look.is_none());
        assert_eq!(healing.channels.len(), 1);
        healing.begin_if_due(&counts(0, 0), Timestamp(129 * SECOND));
        assert!(healing.look.is_none());
        healing.begin_if_due(&counts(0, 0), Timestamp(130 * SECOND));
        assert!(finish(&mut healing, &mut Vec::new()));
    }

    #[test]
    fn it_looks_when_a_burst_is_over() {
        let mut healing = Healing::default();
        assert!(!due(&mut healing, &counts(0, 0), 100));
        assert!(!due(&mut healing, &counts(5, 0), 101));
        assert!(!due(&mut healing, &counts(9, 0), 102));
        assert!(due(&mut healing, &counts(9, 0), 103));
    }

    #[test]
    fn it_does_not_wait_for_ever_and_not_look_all_the_time() {
        let mut healing = Healing::default();
        let looks: Vec<u64> = (100..200)
            .filter(|&second| {
                let looks = due(&mut healing, &counts(0, second), second);
                if looks {
                    healing.looked = Some(Timestamp(second * SECOND));
                    healing.hurt = None;
                }
                looks
            })
            .collect();
        assert_eq!(looks, [110, 140, 170]);
    }

    #[test]
    fn a_look_renews_what_this_process_holds_open() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut healing = Healing::through(vec![Channel::here().unwrap()]);
        healing.begin_if_due(&counts(1, 0), Timestamp(SECOND));
        healing.begin_if_due(&counts(1, 0), Timestamp(3 * SECOND));
        assert!(healing.look.is_some());
        let mut events = Vec::new();
        assert!(finish(&mut healing, &mut events));
        let address = client.local_addr().unwrap();
        let found = events.iter().any(|event| {
            matches!(event, Event::Existing(socket)
                if socket.state == TcpState::Established && socket.local.port == address.port())
        });
        assert!(found, "{} events", events.len());
        assert!(matches!(events[0], Event::SnapshotScope { .. }));
        assert!(matches!(events[events.len() - 1], Event::SnapshotEnd { .. }));
        assert_eq!(healing.channels.len(), 1);
    }
}
