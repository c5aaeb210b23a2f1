//! Publishes metrics snapshots from the tracing thread to the HTTP thread.
//!
//! Data flows one way: the tracing thread publishes snapshots, the time of its last read, and the end of the input.
//! Two flags flow back: a request sets [`SharedState::requested`], and for the page also [`SharedState::wants_hour`]. The
//! tracing thread publishes a snapshot after its next batch. The tracing thread never waits for the HTTP thread.

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
    agent::{
        metrics::{MetricsSnapshot, Recorder},
        overview::{OverviewRecorder, OverviewSnapshot},
    },
    event_loop::{Consumer, Progress},
};

/// The tracing thread is stalled when it has not read for this long. Normally it reads every few milliseconds.
const STALL: Duration = Duration::from_secs(5);
/// Longest time that a scrape waits for a new snapshot before it uses the previous one.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The state that both threads access.
#[derive(Debug, Default)]
struct SharedState {
    /// Time of the last read of events on this host's monotonic clock; 0 before the first read.
    read_at: AtomicU64,
    /// A scrape waits for a snapshot. Set by the HTTP thread, cleared by the tracing thread.
    requested: AtomicBool,
    /// The snapshot shall have the last hour. Set by the HTTP thread, cleared by the tracing thread.
    wants_hour: AtomicBool,
    /// The input has been read to its end.
    ended: AtomicBool,
}

/// A snapshot and its creation time.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) snapshot: Arc<MetricsSnapshot>,
    /// The last hour, if the request asked for it.
    pub(crate) hour: Option<Arc<OverviewSnapshot>>,
    pub(crate) made_at: Instant,
}

/// The HTTP thread's side.
#[derive(Debug)]
pub(crate) struct SnapshotHandle {
    shared: Arc<SharedState>,
    counts: watch::Receiver<Option<Counts>>,
}

/// The tracing thread's side.
#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<SharedState>,
    counts: watch::Sender<Option<Counts>>,
}

/// Creates both sides.
pub(crate) fn channel() -> (Arc<SnapshotHandle>, Publisher) {
    let shared = Arc::new(SharedState::default());
    let (sender, receiver) = watch::channel(None);
    (
        Arc::new(SnapshotHandle { shared: Arc::clone(&shared), counts: receiver }),
        Publisher { shared, counts: sender },
    )
}

impl SnapshotHandle {
    /// Requests a new snapshot and waits for it; returns the previous one after [`TIMEOUT`] or at the end of the input.
    pub(crate) async fn counts(&self) -> Option<Counts> {
        let mut counts = self.counts.clone();
        counts.mark_unchanged();
        self.shared.requested.store(true, Ordering::Release);
        if !self.has_ended() {
            // On a timeout or when the tracing thread has ended, the previous snapshot is returned.
            let _ = tokio::time::timeout(TIMEOUT, counts.changed()).await;
        }
        counts.borrow().clone()
    }

    /// Requests a new snapshot with the last hour, and waits like [`counts`](Self::counts). Returns none as long as no
    /// snapshot has one.
    pub(crate) async fn counts_with_hour(&self) -> Option<Counts> {
        // The first answer may be that to a scrape, which did not ask for the hour.
        for _ in 0..2 {
            self.shared.wants_hour.store(true, Ordering::Release);
            let counts = self.counts().await.filter(|counts| counts.hour.is_some());
            if counts.is_some() {
                return counts;
            }
        }
        None
    }

    /// Returns whether the input, such as a recording, has been read to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Returns the time since the last read of events; `None` before the first read.
    pub(crate) fn time_since_read(&self) -> Option<Duration> {
        let read_at = self.shared.read_at.load(Ordering::Relaxed);
        (read_at != 0).then(|| crate::host::now().since(Timestamp(read_at)).into())
    }

    /// Returns whether the tracing thread reads events, rather than being stalled.
    pub(crate) fn is_alive(&self) -> bool {
        self.time_since_read().is_some_and(|elapsed| elapsed < STALL)
    }

    /// Waits for the first snapshot, which follows the first read. Returns false when the tracing thread ended before.
    pub(crate) async fn wait_for_first(&self) -> bool {
        self.counts.clone().wait_for(Option::is_some).await.is_ok()
    }
}

/// Counts events on the tracing thread, and publishes the counts on request.
#[derive(Debug)]
pub(crate) struct MetricsConsumer {
    recorder: Recorder,
    /// None without a page.
    overview: Option<OverviewRecorder>,
    publisher: Publisher,
    /// The flush before the first read has been skipped.
    started: bool,
}

impl MetricsConsumer {
    pub(crate) fn new(recorder: Recorder, overview: Option<OverviewRecorder>, publisher: Publisher) -> Self {
        Self { recorder, overview, publisher, started: false }
    }

    fn advance(&mut self, progress: Progress<'_>) {
        self.recorder.advance(progress.tracker, progress.now);
        if let Some(overview) = &mut self.overview {
            overview.advance(progress.tracker, progress.now);
        }
    }

    fn publish(&mut self, wants_hour: bool, progress: Progress<'_>) {
        let Progress { tracker, source, coverage, run_time, now } = progress;
        let overview = self.overview.as_mut().filter(|_| wants_hour);
        let hour = overview.map(|overview| Arc::new(overview.snapshot(tracker, now)));
        let snapshot = self.recorder.snapshot(tracker, source, run_time, now).with_coverage(coverage);
        let snapshot = Arc::new(snapshot);
        self.publisher.counts.send_replace(Some(Counts { snapshot, hour, made_at: Instant::now() }));
    }
}

impl Consumer for MetricsConsumer {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.recorder.event(event);
        Ok(())
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.recorder.observe(&observation);
        if let Some(overview) = &mut self.overview {
            overview.observe(&observation);
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        // The first flush precedes the first read.
        if !std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        self.advance(progress);
        let shared = &self.publisher.shared;
        if shared.requested.swap(false, Ordering::Acquire) || shared.read_at.load(Ordering::Relaxed) == 0 {
            let wants_hour = shared.wants_hour.swap(false, Ordering::Acquire);
            self.publish(wants_hour, progress);
        }
        self.publisher.shared.read_at.store(crate::host::now().0, Ordering::Relaxed);
        Ok(())
    }

    /// Publishes the final counts, which need no request.
    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.advance(progress);
        self.publish(true, progress);
        self.publisher.shared.ended.store(true, Ordering::Release);
        Ok(())
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
    use crate::{agent::metrics::RecorderOptions, sources::Coverage};

    #[test]
    fn a_thread_that_has_not_read_for_long_is_stalled() {
        let (snapshots, publisher) = channel();
        assert_eq!(snapshots.time_since_read(), None);
        assert!(!snapshots.is_alive());
        let read_ago = |ago: Duration| {
            let then = crate::host::now().0 - u64::try_from(ago.as_nanos()).unwrap();
            publisher.shared.read_at.store(then, Ordering::Relaxed);
        };
        read_ago(Duration::from_millis(20));
        assert!(snapshots.is_alive());
        read_ago(STALL);
        assert!(!snapshots.is_alive());
    }

    #[tokio::test]
    async fn a_snapshot_is_published_on_request() {
        let (snapshots, publisher) = channel();
        let tracker = Tracker::new(TrackerOptions::default());
        let mut consumer = MetricsConsumer::new(Recorder::new(RecorderOptions::default()), None, publisher);
        let mut flush = || {
            let now = crate::host::now();
            let source = SourceCounts::default();
            let coverage = Coverage::default();
            consumer.flush(Progress { tracker: &tracker, source, coverage, run_time: None, now }).unwrap();
        };
        flush();
        assert!(snapshots.counts().await.is_none(), "nothing has been read yet");
        flush();
        assert!(snapshots.wait_for_first().await);
        let first = snapshots.counts().await.unwrap().snapshot;
        // Requested and not published in time: the previous snapshot.
        assert!(Arc::ptr_eq(&first, &snapshots.counts().await.unwrap().snapshot));
        flush();
        assert!(!Arc::ptr_eq(&first, &snapshots.counts.borrow().clone().unwrap().snapshot));
    }

    #[tokio::test]
    async fn the_final_counts_are_published_without_a_request() {
        let (snapshots, publisher) = channel();
        let tracker = Tracker::new(TrackerOptions::default());
        let mut consumer = MetricsConsumer::new(Recorder::new(RecorderOptions::default()), None, publisher);
        let progress = Progress {
            tracker: &tracker,
            source: SourceCounts::default(),
            coverage: Coverage::default(),
            run_time: None,
            now: Timestamp(1),
        };
        for _ in 0..3 {
            consumer.flush(progress).unwrap();
        }
        let before = snapshots.counts.borrow().clone().unwrap().snapshot;
        assert!(!snapshots.has_ended());
        consumer.finish(progress).unwrap();
        assert!(snapshots.has_ended());
        assert!(!Arc::ptr_eq(&before, &snapshots.counts().await.unwrap().snapshot));
    }

    #[tokio::test]
    async fn a_thread_that_ends_early_publishes_nothing() {
        let (snapshots, publisher) = channel();
        drop(publisher);
        assert!(!snapshots.wait_for_first().await);
    }
}
