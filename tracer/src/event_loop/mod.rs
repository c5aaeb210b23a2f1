//! The tracing thread: moves events from a source through the core to a consumer.

mod consumer;

pub(crate) use consumer::{Consumer, Progress};

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;
use tracer_core::{
    event::{Event, Timestamp},
    lifecycle::{Tracker, TrackerOptions},
};

use crate::{
    report::{AbandonedSummary, DropSummary, Palette, Summary},
    sources::{Polled, Source, live::StopHandle},
};

/// Interval of flushes after the end of the source, for a consumer that stays.
const STAY_INTERVAL: Duration = Duration::from_millis(20);

/// The running tracing thread.
pub(crate) struct EventLoop {
    stop: Arc<AtomicBool>,
    wake: Option<StopHandle>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<Finished>,
}

/// The result of a run.
pub(crate) struct Finished {
    /// The counts of the run.
    pub(crate) summary: Summary,
    /// The lines after the counts.
    pub(crate) details: Vec<String>,
    /// The error that ended the run early.
    pub(crate) result: Result<(), RunError>,
}

impl Finished {
    /// Returns the lines of the closing summary.
    pub(crate) fn lines(&self, palette: Palette) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.summary.text(palette)).chain(self.details.iter().cloned())
    }
}

/// An error that ended a run early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The source could not be read.
    #[error(transparent)]
    Source(io::Error),
    /// The consumer could not write.
    #[error(transparent)]
    Output(io::Error),
}

impl EventLoop {
    /// Starts the thread. `wake` interrupts the source's wait.
    pub(crate) fn start(
        source: Box<dyn Source + Send>,
        wake: Option<StopHandle>,
        options: TrackerOptions,
        consumer: impl Consumer,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, ended) = oneshot::channel();
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("trace".to_owned()).spawn(move || {
            let outcome = run(source, Tracker::new(options), consumer, &stopped);
            // The receiver is gone only when a signal has already ended the wait.
            let _ = sender.send(());
            outcome
        })?;
        Ok(Self { stop, wake, ended, thread })
    }

    /// Waits until the run ends by itself: at the end of the source or the consumer, or on an error.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Ends the run and returns its result. Events still in the source are delivered first.
    pub(crate) fn finish(self) -> Finished {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(wake) = &self.wake {
            wake.wake();
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn run(
    mut source: Box<dyn Source + Send>,
    mut tracker: Tracker,
    mut consumer: impl Consumer,
    stop: &AtomicBool,
) -> Finished {
    let begun = consumer.begin();
    let mut run = Run { source: &mut *source, tracker: &mut tracker, now: Timestamp(0) };
    let mut result = begun.and_then(|()| consumer.flush(run.progress())).map_err(RunError::Output);
    while result.is_ok() && !stop.load(Ordering::Relaxed) && !consumer.done() {
        match run.step(&mut consumer, false) {
            Ok(Polled::End) => {
                while result.is_ok() && consumer.stays() && !stop.load(Ordering::Relaxed) {
                    thread::sleep(STAY_INTERVAL);
                    result = consumer.flush(run.progress()).map_err(RunError::Output);
                }
                break;
            }
            Ok(Polled::Drained) => {}
            Err(error) => result = Err(error),
        }
    }
    if result.is_ok() {
        result = run.step(&mut consumer, true).map(|_| ());
    }
    if result.is_ok() {
        result = consumer.finish(run.progress()).map_err(RunError::Output);
    }
    let summary = Summary { source: source.counts(), tracker: tracker.counts(), live: tracker.live() };
    if result.is_ok() {
        result = consumer.end(&summary).map_err(RunError::Output);
    }
    let abandoned = AbandonedSummary::new(tracker.abandoned()).map(|line| line.to_string());
    let drops = DropSummary::new(tracker.drop_places()).map(|line| line.to_string());
    let details = [abandoned, drops, source.coverage().summary()].into_iter().flatten().collect();
    Finished { summary, details, result }
}

struct Run<'a> {
    source: &'a mut dyn Source,
    tracker: &'a mut Tracker,
    now: Timestamp,
}

impl Run<'_> {
    fn progress(&self) -> Progress<'_> {
        Progress {
            tracker: self.tracker,
            source: self.source.counts(),
            coverage: self.source.coverage(),
            run_time: self.source.run_time(),
            now: self.now,
        }
    }

    fn step(&mut self, consumer: &mut impl Consumer, last: bool) -> Result<Polled, RunError> {
        let Self { source, tracker, now } = self;
        let mut written = Ok(());
        let mut deliver = |event: &Event| {
            if written.is_err() {
                return;
            }
            written = consumer.event(event);
            *now = event.time().max(*now);
            tracker.observe(event, &mut |observation| {
                if written.is_ok() && !consumer.done() {
                    written = consumer.observe(observation);
                }
            });
        };
        let polled =
            if last { source.finish(&mut deliver).map(|()| Polled::End) } else { source.poll(&mut deliver) };
        if last {
            tracker.finish(&mut |observation| {
                if written.is_ok() && !consumer.done() {
                    written = consumer.observe(observation);
                }
            });
        }
        written.and_then(|()| consumer.flush(self.progress())).map_err(RunError::Output)?;
        if consumer.writes_to_stdout() {
            stdout_has_reader().map_err(RunError::Output)?;
        }
        polled.map_err(RunError::Source)
    }
}

/// Returns an error when the reader of stdout is gone, even when there is nothing to write.
fn stdout_has_reader() -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(1) if fds[0].revents().contains(PollFlags::ERR) => Err(io::ErrorKind::BrokenPipe.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tracer_core::{event::SourceCounts, lifecycle::Observation};

    use super::*;
    use crate::sources::Origin;

    /// Delivers one event. Fails at once, or at the end.
    struct Broken(bool);

    impl Source for Broken {
        fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled> {
            deliver(&Event::Time(Timestamp(1)));
            if self.0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(Polled::End) }
        }

        fn finish(&mut self, _deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn counts(&self) -> SourceCounts {
            SourceCounts::default()
        }

        fn origin(&mut self) -> Origin {
            unreachable!("the event loop does not call this")
        }
    }

    /// Fails in the selected methods.
    #[derive(Default)]
    struct Full {
        event: bool,
        flush: bool,
    }

    fn unless(full: bool) -> io::Result<()> {
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    impl Consumer for Full {
        fn event(&mut self, _event: &Event) -> io::Result<()> {
            unless(self.event)
        }

        fn observe(&mut self, _observation: Observation<'_>) -> io::Result<()> {
            Ok(())
        }

        fn flush(&mut self, _progress: Progress<'_>) -> io::Result<()> {
            unless(self.flush)
        }

        fn writes_to_stdout(&self) -> bool {
            false
        }
    }

    #[test]
    fn read_and_write_errors_are_distinguished() {
        let failure = |broken, consumer: Full| {
            let tracker = Tracker::new(TrackerOptions::default());
            run(Box::new(Broken(broken)), tracker, consumer, &AtomicBool::new(false)).result.unwrap_err()
        };
        assert!(matches!(failure(true, Full::default()), RunError::Source(_)));
        assert!(matches!(failure(false, Full::default()), RunError::Source(_)));
        assert!(matches!(failure(true, Full { event: true, flush: false }), RunError::Output(_)));
        assert!(matches!(failure(true, Full { event: false, flush: true }), RunError::Output(_)));
    }
}
