//! Dumps the listeners on a thread of its own, once a second, while a command traces.

use std::{
    io,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    cli::Shared,
    commands::input::{Input, Privileges},
    host::give_up_priority,
    sources::sock_diag::{ListenerWatch, WatchedListeners},
};

/// Shortest time between the starts of two dumps.
const INTERVAL: Duration = Duration::from_secs(1);
/// The dumps take at most one part in this many of a processor's time.
const MAX_SHARE: u32 = 20;

/// The thread that dumps the listeners. It ends when this handle is dropped.
pub(super) struct ListenerDumps {
    requests: SyncSender<()>,
    results: Receiver<WatchedListeners>,
    /// When the running dump started; none if no dump is running.
    running: Option<Instant>,
    next: Instant,
}

impl ListenerDumps {
    /// Opens the input of a command that dumps the listeners beside it, takes the first dump, and starts the thread.
    ///
    /// # Errors
    ///
    /// Those of [`Input::open`], and when the thread cannot be started.
    pub(super) fn beside(shared: &Shared) -> anyhow::Result<(Input, WatchedListeners, Self)> {
        // Before the privileges are dropped, which other namespaces require.
        let mut watch = ListenerWatch::open(shared.filter.netns);
        let mut input = Input::open(shared, Privileges::Dropped)?;
        // The start may have reported the same namespace already.
        let news =
            watch.problems().iter().filter(|&it| !input.announcement.iter().any(|line| line.contains(it)));
        let news: Vec<String> =
            news.map(|problem| format!("the list of listeners is incomplete: {problem}")).collect();
        input.announcement.extend(news);
        // After the programs are attached and before the start is announced: what follows is in the events and in the next
        // dump.
        let first = watch.dump();
        let dumps = Self::start(watch).context(
            "the thread that dumps the listening sockets could not be started; raise the limit on threads",
        )?;
        Ok((input, first, dumps))
    }

    fn start(mut watch: ListenerWatch) -> io::Result<Self> {
        let (requests, requested) = mpsc::sync_channel(1);
        let (finished, results) = mpsc::sync_channel(1);
        thread::Builder::new().name("dump".to_owned()).spawn(move || {
            give_up_priority();
            while requested.recv().is_ok() {
                if finished.send(watch.dump()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests, results, running: None, next: Instant::now() + INTERVAL })
    }

    /// Starts a dump when one is due, and returns the result of the last one when it has ended.
    pub(super) fn poll(&mut self) -> Option<WatchedListeners> {
        let Some(started) = self.running else {
            if Instant::now() >= self.next {
                self.request();
            }
            return None;
        };
        let found = self.results.try_recv().ok()?;
        self.running = None;
        self.next = started + INTERVAL.max(started.elapsed().saturating_mul(MAX_SHARE));
        Some(found)
    }

    /// Dumps now, and waits for the result.
    pub(super) fn dump_now(&mut self) -> Option<WatchedListeners> {
        if self.running.take().is_some() {
            // It began too early.
            self.results.recv().ok()?;
        }
        self.request();
        self.running.take()?;
        self.results.recv().ok()
    }

    fn request(&mut self) {
        self.running = self.requests.try_send(()).ok().map(|()| Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_run_on_their_thread_one_at_a_time() {
        let own = crate::sources::sock_diag::Channel::here().unwrap().netns();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut dumps = ListenerDumps::start(ListenerWatch::open(own)).unwrap();
        let has_listener =
            |found: &WatchedListeners| found.dump.listeners.iter().any(|it| it.local.port == port);
        assert!(dumps.poll().is_none(), "the first dump is not due yet");
        assert!(dumps.running.is_none());
        dumps.next = Instant::now();
        let end = Instant::now() + Duration::from_secs(60);
        let found = loop {
            if let Some(found) = dumps.poll() {
                break found;
            }
            assert!(Instant::now() < end);
        };
        assert!(has_listener(&found));
        assert!(dumps.next > Instant::now(), "the next dump is later");
        dumps.next = Instant::now();
        dumps.poll();
        assert!(dumps.running.is_some());
        assert!(has_listener(&dumps.dump_now().unwrap()), "after the running dump");
        assert!(has_listener(&dumps.dump_now().unwrap()));
    }
}
