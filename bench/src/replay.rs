//! Passes events from memory through the library.

use std::{hint::black_box, io, time::Duration};

use clap::ValueEnum;
use tcptrace_bpf::{
    agent::{
        metrics::{Recorder, RecorderOptions},
        overview::OverviewRecorder,
    },
    report::{ConnectionRow, Format, Sink, TimeStyle, TransitionRow},
};
use tracer_core::{
    event::{ClockOffset, Event},
    lifecycle::{Observation, Thresholds, Tracker, TrackerOptions},
};

use crate::{
    allocations,
    workload::{Workload, events_to_steady_state},
};

/// Events generated in advance and then processed together: about as many as the ring buffer holds.
const BATCH: usize = 16_384;

/// The last stage that an event reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Only the connection table.
    Core,
    /// The daemon's metrics, without opt-in labels.
    Metrics,
    /// The daemon's metrics and the last hour of its live page: `serve` without `--no-page`.
    Page,
    /// A JSON row for every transition.
    TransitionsJson,
    /// A JSON row for every connection.
    ConnectionsJson,
    /// A table row for every transition.
    TransitionsTable,
    /// A table row for every connection.
    ConnectionsTable,
}

/// Result of a replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayResult {
    /// Events processed.
    pub events: u64,
    /// Processor time of the processing, without generating the events.
    pub time: Duration,
    /// Allocations during the processing; 0 unless the program installed [`Counting`](allocations::Counting).
    pub allocations: u64,
    /// Rows written.
    pub rows: u64,
}

/// A workload, the connection table that processes it, and the output.
pub struct Replay {
    workload: Workload,
    events: Vec<Event>,
    tracker: Tracker,
    output: StageOutput,
}

impl Replay {
    /// Starts with `live` established connections; `spacing` is the time between two events.
    pub fn new(live: usize, spacing: Duration, stage: Stage) -> Self {
        let mut workload = Workload::new(live, spacing);
        let mut tracker = Tracker::new(TrackerOptions::default());
        tracker.observe(&workload.listener(), &mut |_| {});
        for event in workload.establish() {
            tracker.observe(&event, &mut |_| {});
        }
        Self { workload, events: Vec::with_capacity(BATCH), tracker, output: StageOutput::new(stage) }
    }

    /// Processes events until no data structure grows.
    ///
    /// # Errors
    ///
    /// Never: the rows are discarded.
    pub fn settle(&mut self, spacing: Duration) -> io::Result<()> {
        for _ in 0..events_to_steady_state(spacing).div_ceil(BATCH as u64) {
            self.workload.fill(&mut self.events, BATCH);
            for event in &self.events {
                self.tracker.observe(event, &mut |_| {});
            }
        }
        // The output's buffers reach their size after a few rows.
        self.workload.fill(&mut self.events, BATCH);
        process(&self.events, &mut self.tracker, &mut self.output)
    }

    /// Processes at least the given number of events.
    ///
    /// # Errors
    ///
    /// Never: the rows are discarded.
    pub fn run(&mut self, events: u64) -> io::Result<ReplayResult> {
        let rows = self.output.sink.rows();
        let mut result = ReplayResult { events: 0, time: Duration::ZERO, allocations: 0, rows: 0 };
        while result.events < events {
            self.workload.fill(&mut self.events, BATCH);
            let before = allocations::calls();
            let start = processor_time();
            measured(&self.events, &mut self.tracker, &mut self.output)?;
            result.time += processor_time().saturating_sub(start);
            result.allocations += allocations::calls() - before;
            result.events += BATCH as u64;
        }
        result.rows = self.output.sink.rows() - rows;
        Ok(result)
    }
}

/// The measured part, as a function that callgrind selects by name.
#[inline(never)]
fn measured(events: &[Event], tracker: &mut Tracker, output: &mut StageOutput) -> io::Result<()> {
    process(events, tracker, output)
}

fn process(events: &[Event], tracker: &mut Tracker, output: &mut StageOutput) -> io::Result<()> {
    let mut written = Ok(());
    for event in events {
        if matches!(output.stage, Stage::Metrics | Stage::Page) {
            output.recorder.event(event);
        }
        tracker.observe(event, &mut |observation| {
            if written.is_ok() {
                written = output.take(&observation);
            }
        });
    }
    written?;
    if let (Stage::Page, Some(last)) = (output.stage, events.last()) {
        output.overview.advance(tracker, last.time());
    }
    output.sink.flush()
}

/// Returns this thread's processor time, which excludes other load on the machine.
///
/// Calls the C library, because valgrind hides the vDSO clock that rustix uses.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` only.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "every kernel has CLOCK_THREAD_CPUTIME_ID");
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

struct StageOutput {
    stage: Stage,
    recorder: Recorder,
    overview: OverviewRecorder,
    sink: Sink<io::Sink>,
    clock: ClockOffset,
}

impl StageOutput {
    fn new(stage: Stage) -> Self {
        let format = match stage {
            Stage::Core | Stage::Metrics | Stage::Page | Stage::TransitionsJson | Stage::ConnectionsJson => {
                Format::Json
            }
            Stage::TransitionsTable | Stage::ConnectionsTable => Format::Wide,
        };
        Self {
            stage,
            recorder: Recorder::new(RecorderOptions::default()),
            overview: OverviewRecorder::new(Thresholds::default()),
            sink: Sink::new(io::sink(), format, TimeStyle::Utc),
            clock: ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 },
        }
    }

    fn take(&mut self, observation: &Observation<'_>) -> io::Result<()> {
        match (self.stage, observation) {
            (Stage::Core, observation) => {
                black_box(observation);
                Ok(())
            }
            (Stage::Metrics, observation) => {
                self.recorder.observe(observation);
                Ok(())
            }
            (Stage::Page, observation) => {
                self.recorder.observe(observation);
                self.overview.observe(observation);
                Ok(())
            }
            (
                Stage::TransitionsJson | Stage::TransitionsTable,
                Observation::Transition { transition, duration, connection, .. },
            ) => self.sink.write(&TransitionRow::new(transition, *connection, *duration, self.clock)),
            (Stage::ConnectionsJson | Stage::ConnectionsTable, Observation::Closed(closed)) => {
                self.sink.write(&ConnectionRow::new(closed, None, self.clock))
            }
            _ => Ok(()),
        }
    }
}
