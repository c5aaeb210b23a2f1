//! What the tracing thread and the HTTP thread share: one copy of the counts, made on demand.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::super::consumer::{Consumer, Progress};
use crate::{
    event::{Event, Timestamp},
    lifecycle::Observation,
    metrics::{Recorder, Snapshot},
};

/// The tracing thread counts as stuck when it has not read for this long; it reads every few milliseconds.
const ALIVE: Duration = Duration::from_secs(5);
/// The longest that a look waits for new counts before it takes the last ones.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Signs {
    /// When events were last read, on this host's monotonic clock; 0 before the first time.
    read_at: AtomicU64,
    /// Somebody waits for counts.
    wanted: AtomicBool,
}

/// The side that looks.
#[derive(Debug)]
pub(super) struct Feed {
    signs: Arc<Signs>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
}

/// The side that counts.
#[derive(Debug)]
pub(super) struct Publisher {
    signs: Arc<Signs>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

/// Both sides.
pub(super) fn channel() -> (Arc<Feed>, Publisher) {
    let signs = Arc::new(Signs::default());
    let (sender, receiver) = watch::channel(None);
    (
        Arc::new(Feed { signs: Arc::clone(&signs), snapshots: receiver }),
        Publisher { signs, snapshots: sender },
    )
}

impl Feed {
    /// Counts that are newer than the call, or the last ones when the tracing thread does not answer.
    pub(super) async fn counts(&self) -> Option<Arc<Snapshot>> {
        let mut snapshots = self.snapshots.clone();
        snapshots.mark_unchanged();
        self.signs.wanted.store(true, Ordering::Release);
        // In vain when the thread is stuck or has ended: then what there is.
        let _ = tokio::time::timeout(PATIENCE, snapshots.changed()).await;
        snapshots.borrow().clone()
    }

    /// How long ago events were last read; none when they never were.
    pub(super) fn silence(&self) -> Option<Duration> {
        let read_at = self.signs.read_at.load(Ordering::Relaxed);
        (read_at != 0).then(|| Duration::from_nanos(Timestamp::now().since(Timestamp(read_at))))
    }

    /// Whether events are being read.
    pub(super) fn is_alive(&self) -> bool {
        self.silence().is_some_and(|silence| silence < ALIVE)
    }

    /// Waits until events have been read once.
    pub(super) async fn wait_until_attached(&self) {
        let mut snapshots = self.snapshots.clone();
        // The sender goes only when the thread has ended, which the caller sees for itself.
        let _ = snapshots.wait_for(Option::is_some).await;
    }
}

/// Counts on the tracing thread.
#[derive(Debug)]
pub(super) struct Counting {
    recorder: Recorder,
    publisher: Publisher,
    begun: bool,
}

impl Counting {
    pub(super) fn new(recorder: Recorder, publisher: Publisher) -> Self {
        Self { recorder, publisher, begun: false }
    }
}

impl Consumer for Counting {
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
        let Progress { tracker, source, run_time_ns, now } = progress;
        self.recorder.advance(tracker, now);
        let signs = &self.publisher.signs;
        if signs.wanted.swap(false, Ordering::Acquire) || signs.read_at.load(Ordering::Relaxed) == 0 {
            let snapshot = self.recorder.snapshot(tracker, source, run_time_ns, now);
            self.publisher.snapshots.send_replace(Some(Arc::new(snapshot)));
        }
        signs.read_at.store(Timestamp::now().0, Ordering::Relaxed);
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
    use super::*;
    use crate::{
        event::SourceCounts,
        lifecycle::{Tracker, TrackerOptions},
        metrics::RecorderOptions,
    };

    #[test]
    fn who_has_not_read_for_long_is_not_alive() {
        let (feed, publisher) = channel();
        assert_eq!(feed.silence(), None);
        assert!(!feed.is_alive());
        let read_ago = |ago: Duration| {
            let then = Timestamp::now().0 - u64::try_from(ago.as_nanos()).unwrap();
            publisher.signs.read_at.store(then, Ordering::Relaxed);
        };
        read_ago(Duration::from_millis(20));
        assert!(feed.is_alive());
        read_ago(ALIVE);
        assert!(!feed.is_alive());
    }

    #[tokio::test]
    async fn counts_are_copied_when_they_are_wanted() {
        let (feed, publisher) = channel();
        let tracker = Tracker::new(TrackerOptions::default());
        let mut counting = Counting::new(Recorder::new(RecorderOptions::default()), publisher);
        let mut flush = || {
            let now = Timestamp::now();
            let source = SourceCounts::default();
            counting.flush(Progress { tracker: &tracker, source, run_time_ns: None, now }).unwrap();
        };
        flush();
        assert!(feed.counts().await.is_none(), "nothing has been read yet");
        flush();
        feed.wait_until_attached().await;
        let first = feed.counts().await.unwrap();
        // Wanted, and not answered in time: the last ones.
        assert!(Arc::ptr_eq(&first, &feed.counts().await.unwrap()));
        flush();
        assert!(!Arc::ptr_eq(&first, &feed.snapshots.borrow().clone().unwrap()));
    }
}
