//! Dumps the listeners, and for `top` the open connections, on a thread of its own while a command traces.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracer_core::analysis::ConnectionReadings;

use crate::{
    cli::Shared,
    commands::input::{Input, Privileges},
    host::give_up_priority,
    sources::sock_diag::{ListenerWatch, WatchedListeners},
};

/// Shortest time between the starts of two dumps of the same sockets.
const INTERVAL: Duration = Duration::from_secs(1);
/// The dumps of the same sockets take at most one part in this many of a processor's time.
const MAX_SHARE: u32 = 20;

/// The sockets to dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Listeners,
    Connections,
}

/// The result of a dump.
#[derive(Debug)]
pub(super) enum Dumped {
    /// The listeners and half-open handshakes.
    Listeners(Box<WatchedListeners>),
    /// The counters of the open connections, with the rates since the dump before.
    Connections(Arc<ConnectionReadings>),
}

/// The thread that dumps sockets. It ends when this handle is dropped.
pub(super) struct SocketDumps {
    requests: SyncSender<Request>,
    /// The result, and how long the dump took.
    results: Receiver<(Dumped, Duration)>,
    /// The running dump and when it started; none if no dump is running.
    running: Option<(Request, Instant)>,
    next_listeners: Instant,
    /// When the next dump of the connections is due; none if they are not dumped.
    next_connections: Option<Instant>,
}

impl SocketDumps {
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

    /// Also dumps the open connections, the first time at once.
    #[must_use]
    pub(super) fn with_connections(self) -> Self {
        Self { next_connections: Some(Instant::now()), ..self }
    }

    fn start(mut watch: ListenerWatch) -> io::Result<Self> {
        let (requests, requested) = mpsc::sync_channel(1);
        let (finished, results) = mpsc::sync_channel(1);
        thread::Builder::new().name("dump".to_owned()).spawn(move || {
            give_up_priority();
            let mut readings = Arc::<ConnectionReadings>::default();
            while let Ok(request) = requested.recv() {
                let started = Instant::now();
                let found = match request {
                    Request::Listeners => Dumped::Listeners(Box::new(watch.dump())),
                    Request::Connections => {
                        readings = Arc::new(readings.next(&watch.read_connections()));
                        Dumped::Connections(Arc::clone(&readings))
                    }
                };
                if finished.send((found, started.elapsed())).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            requests,
            results,
            running: None,
            next_listeners: Instant::now() + INTERVAL,
            next_connections: None,
        })
    }

    /// Starts a dump when one is due, and returns the result of the last one when it has ended.
    pub(super) fn poll(&mut self) -> Option<Dumped> {
        let Some((request, started)) = self.running else {
            let now = Instant::now();
            // The one that has been due for longer, so that neither waits for ever.
            let connections = self.next_connections.filter(|next| *next <= now.min(self.next_listeners));
            if connections.is_some() {
                self.request(Request::Connections);
            } else if now >= self.next_listeners {
                self.request(Request::Listeners);
            }
            return None;
        };
        let (found, took) = self.results.try_recv().ok()?;
        self.running = None;
        let next = started + INTERVAL.max(took.saturating_mul(MAX_SHARE));
        match request {
            Request::Listeners => self.next_listeners = next,
            Request::Connections => self.next_connections = Some(next),
        }
        Some(found)
    }

    /// Dumps the listeners now, and waits for the result.
    pub(super) fn listeners_now(&mut self) -> Option<WatchedListeners> {
        if self.running.take().is_some() {
            // It began too early.
            self.results.recv().ok()?;
        }
        self.request(Request::Listeners);
        self.running.take()?;
        match self.results.recv().ok()?.0 {
            Dumped::Listeners(found) => Some(*found),
            Dumped::Connections(_) => None,
        }
    }

    fn request(&mut self, request: Request) {
        self.running = self.requests.try_send(request).ok().map(|()| (request, Instant::now()));
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
        let mut dumps = SocketDumps::start(ListenerWatch::open(own)).unwrap();
        let has_listener =
            |found: &WatchedListeners| found.dump.listeners.iter().any(|it| it.local.port == port);
        assert!(dumps.poll().is_none(), "the first dump is not due yet");
        assert!(dumps.running.is_none());
        dumps.next_listeners = Instant::now();
        let end = Instant::now() + Duration::from_secs(60);
        let found = loop {
            if let Some(found) = dumps.poll() {
                break found;
            }
            assert!(Instant::now() < end);
        };
        assert!(matches!(&found, Dumped::Listeners(found) if has_listener(found)), "{found:?}");
        assert!(dumps.next_listeners > Instant::now(), "the next dump is later");
        dumps.next_listeners = Instant::now();
        dumps.poll();
        assert!(dumps.running.is_some());
        assert!(has_listener(&dumps.listeners_now().unwrap()), "after the running dump");
        assert!(has_listener(&dumps.listeners_now().unwrap()));
    }

    #[test]
    fn listeners_and_connections_take_turns() {
        let own = crate::sources::sock_diag::Channel::here().unwrap().netns();
        let mut dumps = SocketDumps::start(ListenerWatch::open(own)).unwrap().with_connections();
        dumps.next_listeners = Instant::now();
        let begun = Instant::now();
        let end = begun + Duration::from_secs(60);
        let mut results = Vec::new();
        while results.len() < 2 {
            if let Some(found) = dumps.poll() {
                results.push(matches!(found, Dumped::Connections(_)));
            }
            assert!(Instant::now() < end);
        }
        assert_eq!(results, [true, false], "the connections were due first");
        assert!(dumps.next_connections >= Some(begun + INTERVAL), "the next dump is later");
    }
}
