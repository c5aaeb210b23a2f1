//! What the tracing thread and the HTTP thread share: one copy of the counts, made on demand.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracer_core::{
    event::{Event, Timestamp},
    lifecycle::Observation,
};

use crate::{
    agent::metrics::{MetricsSnapshot, Recorder},
    event_loop::{Consumer, Progress},
};

/// The tracing thread counts as stuck when it has not read for this long; it reads every few milliseconds.
const ALIVE: Duration = Duration::from_secs(5);
/// The longest that a look waits for new counts before it takes the last ones.
const TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Signs {
    /// When events were last read, on this host's monotonic clock; 0 before the first time.
    read_at: AtomicU64,
    /// Somebody waits for counts.
    wanted: AtomicBool,
    /// Everything has been read.
    ended: AtomicBool,
}

/// Counts, and when they were made.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) snapshot: Arc<MetricsSnapshot>,
    pub(crate) made: Instant,
}

/// The side that looks.
#[derive(Debug)]
pub(crate) struct SnapshotHandle {
    signs: Arc<Signs>,
    counts: watch::Receiver<Option<Counts>>,
}

/// The side that counts.
#[derive(Debug)]
pub(crate) struct Publisher {
    signs: Arc<Signs>,
    counts: watch::Sender<Option<Counts>>,
}

/// Both sides.
pub(crate) fn channel() -> (Arc<SnapshotHandle>, Publisher) {
    let signs = Arc::new(Signs::default());
    let (sender, receiver) = watch::channel(None);
    (
        Arc::new(SnapshotHandle { signs: Arc::clone(&signs), counts: receiver }),
        Publisher { signs, counts: sender },
    )
}

impl SnapshotHandle {
    /// Counts that are newer than the call, or the last ones when the tracing thread does not answer.
    pub(crate) async fn counts(&self) -> Option<Counts> {
        let mut counts = self.counts.clone();
        counts.mark_unchanged();
        self.signs.wanted.store(true, Ordering::Release);
        if !self.has_ended() {
            // In vain when the thread is stuck or ends: then what there is.
            let _ = tokio::time::timeout(TIMEOUT, counts.changed()).await;
        }
        counts.borrow().clone()
    }

    /// Whether everything has been read, as of a recording.
    pub(crate) fn has_ended(&self) -> bool {
        self.signs.ended.load(Ordering::Acquire)
    }

    /// How long ago events were last read; none when they never were.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let read_at = self.signs.read_at.load(Ordering::Relaxed);
        (read_at != 0).then(|| Duration::from_nanos(crate::host::now().since(Timestamp(read_at))))
    }

    /// Whether events are being read.
    pub(crate) fn is_alive(&self) -> bool {
        self.silence().is_some_and(|silence| silence < ALIVE)
    }

    /// Waits until events have been read once; false when the thread has ended before.
    pub(crate) async fn wait_until_attached(&self) -> bool {
        self.counts.clone().wait_for(Option::is_some).await.is_ok()
    }
}

/// Counts on the tracing thread.
#[derive(Debug)]
pub(crate) struct MetricsConsumer {
    recorder: Recorder,
    publisher: Publisher,
    begun: bool,
}

impl MetricsConsumer {
    pub(crate) fn new(recorder: Recorder, publisher: Publisher) -> Self {
        Self { recorder, publisher, begun: false }
    }
}

impl MetricsConsumer {
    fn publish(&mut self, Progress { tracker, source, run_time_ns, now }: Progress<'_>) {
        let snapshot = Arc::new(self.recorder.snapshot(tracker, source, run_time_ns, now));
        self.publisher.counts.send_replace(Some(Counts { snapshot, made: Instant::now() }));
    }
}

impl Consumer for MetricsConsumer {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.recorder.event(event);
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.recorder.observe(&observation);
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        // The first comes before anything has been read.
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        self.recorder.advance(progress.tracker, progress.now);
        let signs = &self.publisher.signs;
        if signs.wanted.swap(false, Ordering::Acquire) || signs.read_at.load(Ordering::Relaxed) == 0 {
            self.publish(progress);
        }
        self.publisher.signs.read_at.store(crate::host::now().0, Ordering::Relaxed);
        Ok(())
    }

    /// Nobody can ask for counts any more: they are those of the whole recording.
    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.recorder.advance(progress.tracker, progress.now);
        self.publish(progress);
        self.publisher.signs.ended.store(true, Ordering::Release);
        Ok(())
    }

    fn done(&self) -> bool {
        false
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use tracer_core::{
        event::SourceCounts,
        lifecycle::{Tracker, TrackerOptions},
    };

    use super::*;
    use crate::agent::metrics::RecorderOptions;

    #[test]
    fn who_has_not_read_for_long_is_not_alive() {
        let (snapshots, publisher) = channel();
        assert_eq!(snapshots.silence(), None);
        assert!(!snapshots.is_alive());
        let read_ago = |ago: Duration| {
            let then = crate::host::now().0 - u64::try_from(ago.as_nanos()).unwrap();
            publisher.signs.read_at.store(then, Ordering::Relaxed);
        };
        read_ago(Duration::from_millis(20));
        assert!(snapshots.is_alive());
        read_ago(ALIVE);
        assert!(!snapshots.is_alive());
    }

    #[tokio::test]
    async fn counts_are_copied_when_they_are_wanted() {
        let (snapshots, publisher) = channel();
        let tracker = Tracker::new(TrackerOptions::default());
        let mut counting = MetricsConsumer::new(Recorder::new(RecorderOptions::default()), publisher);
        let mut flush = || {
            let now = crate::host::now();
            let source = SourceCounts::default();
            counting.flush(Progress { tracker: &tracker, source, run_time_ns: None, now }).unwrap();
        };
        flush();
        assert!(snapshots.counts().await.is_none(), "nothing has been read yet");
        flush();
        assert!(snapshots.wait_until_attached().await);
        let first = snapshots.counts().await.unwrap().snapshot;
        // Wanted, and not answered in time: the last ones.
        assert!(Arc::ptr_eq(&first, &snapshots.counts().await.unwrap().snapshot));
        flush();
        assert!(!Arc::ptr_eq(&first, &snapshots.counts.borrow().clone().unwrap().snapshot));
    }

    #[tokio::test]
    async fn the_end_is_published_without_a_question() {
        let (snapshots, publisher) = channel();
        let tracker = Tracker::new(TrackerOptions::default());
        let mut counting = MetricsConsumer::new(Recorder::new(RecorderOptions::default()), publisher);
        let progress = Progress {
            tracker: &tracker,
            source: SourceCounts::default(),
            run_time_ns: None,
            now: Timestamp(1),
        };
        for _ in 0..3 {
            counting.flush(progress).unwrap();
        }
        let before = snapshots.counts.borrow().clone().unwrap().snapshot;
        assert!(!snapshots.has_ended());
        counting.finish(progress).unwrap();
        assert!(snapshots.has_ended());
        assert!(!Arc::ptr_eq(&before, &snapshots.counts().await.unwrap().snapshot));
    }

    #[tokio::test]
    async fn a_thread_that_ended_first_has_not_attached() {
        let (snapshots, publisher) = channel();
        drop(publisher);
        assert!(!snapshots.wait_until_attached().await);
    }
}
