//! Heals the view after transitions were missed: a fresh look at the host's sockets.
//!
//! Without it, a connection whose end was missed would stay in the table for ever, and one whose beginning was
//! missed would be unknown until its next transition. The look is taken on a thread of its own, so that the
//! events that come meanwhile are not held up.

use std::{
    collections::HashSet,
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    event::{Endpoint, Event, ExistingSocket, SourceCounts, Timestamp},
    lifecycle::TcpState,
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

/// Knows what was missed, and when to look.
#[derive(Debug, Default)]
pub(super) struct Healing {
    channels: Vec<Channel>,
    /// What had been missed when it was last asked.
    missed: u64,
    /// When transitions were first and last missed since the last look.
    hurt: Option<(Timestamp, Timestamp)>,
    looked: Option<Timestamp>,
    look: Option<Look>,
}

/// A look that is being taken.
#[derive(Debug)]
struct Look {
    thread: JoinHandle<Relook>,
    /// The ends that events were about meanwhile: these know better than the look.
    touched: HashSet<Ends>,
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
        }
    }

    /// Begins a look when one is due.
    ///
    /// # Errors
    ///
    /// When no thread can be started; the view stays as it is.
    pub(super) fn begin_if_due(&mut self, counts: &SourceCounts, now: Timestamp) -> io::Result<()> {
        let missed = counts.lost + counts.skipped.unwrap_or(0);
        if missed > self.missed {
            self.missed = missed;
            let first = self.hurt.map_or(now, |(first, _)| first);
            self.hurt = Some((first, now));
        }
        if self.look.is_some() || self.channels.is_empty() || !self.is_due(now) {
            return Ok(());
        }
        let channels = std::mem::take(&mut self.channels);
        let thread = thread::Builder::new().name("look".to_owned()).spawn(move || relook(channels))?;
        self.look = Some(Look { thread, touched: HashSet::new() });
        self.hurt = None;
        Ok(())
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let past = |since: Timestamp, time: Duration| u128::from(now.since(since)) >= time.as_nanos();
        self.hurt.is_some_and(|(first, last)| past(last, CALM) || past(first, PATIENCE))
            && self.looked.is_none_or(|looked| past(looked, INTERVAL))
    }

    /// Hands over what a look has found, when one is done. True when it did.
    pub(super) fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Some(look) = self.look.take_if(|look| look.thread.is_finished()) else { return false };
        let found = look.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.looked = Some(found.started);
        self.channels = found.channels;
        if look.touched.len() > MAX_TOUCHED {
            self.hurt = Some((found.started, found.started));
            return false;
        }
        let started = found.started;
        for socket in found.sockets.iter().filter(|socket| is_settled(socket, &look.touched)) {
            deliver(&Event::Existing(*socket));
        }
        for netns in found.namespaces {
            deliver(&Event::SnapshotScope { started, netns });
        }
        deliver(&Event::SnapshotEnd { started });
        true
    }
}

/// Whether the look may speak for this socket: no event did meanwhile, and its events carry its ends.
fn is_settled(socket: &ExistingSocket, touched: &HashSet<Ends>) -> bool {
    !matches!(socket.state, TcpState::SynSent | TcpState::SynReceived)
        && !touched.contains(&(socket.netns, socket.local, socket.remote))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(lost: u64, skipped: u64) -> SourceCounts {
        SourceCounts { lost, skipped: Some(skipped), ..SourceCounts::default() }
    }

    fn due(healing: &mut Healing, counts: &SourceCounts, seconds: u64) -> bool {
        // Without channels no look begins, but whether one is due can be asked.
        healing.begin_if_due(counts, Timestamp(seconds * SECOND)).unwrap();
        healing.is_due(Timestamp(seconds * SECOND))
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
        healing.begin_if_due(&counts(1, 0), Timestamp(SECOND)).unwrap();
        healing.begin_if_due(&counts(1, 0), Timestamp(3 * SECOND)).unwrap();
        assert!(healing.look.is_some());
        let mut events = Vec::new();
        while !healing.finish(&mut |event| events.push(*event)) {
            thread::sleep(Duration::from_millis(1));
        }
        let address = client.local_addr().unwrap();
        let found = events.iter().any(|event| {
            matches!(event, Event::Existing(socket)
                if socket.state == TcpState::Established && socket.local.port == address.port())
        });
        assert!(found, "{} events", events.len());
        assert!(matches!(events[events.len() - 2], Event::SnapshotScope { .. }));
        assert!(matches!(events[events.len() - 1], Event::SnapshotEnd { .. }));
        assert_eq!(healing.channels.len(), 1);
    }
}
