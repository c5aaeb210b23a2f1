//! The library, fed with events from memory.

use std::{hint::black_box, io, time::Duration};

use clap::ValueEnum;
use tcptrace_bpf::{
    agent::metrics::{Recorder, RecorderOptions},
    report::{ConnectionRow, Format, Sink, TimeStyle, TransitionRow},
};
use tracer_core::{
    event::{ClockOffset, Event},
    lifecycle::{Observation, Tracker, TrackerOptions},
};

use crate::{
    allocations,
    workload::{Workload, balance},
};

/// Events that are made before, and then taken in at one go: about what the ring buffer holds.
const BATCH: usize = 16_384;

/// How much of the way from event to output is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The table of connections alone.
    Core,
    /// What the daemon counts, without opt-in labels.
    Metrics,
    /// A line of JSON for every transition.
    TransitionsJson,
    /// A line of JSON for every connection.
    ConnectionsJson,
    /// A line of the table for every transition.
    TransitionsTable,
    /// A line of the table for every connection.
    ConnectionsTable,
}

/// What a replay took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Events taken in.
    pub events: u64,
    /// The processor time that took, without that to make them.
    pub time: Duration,
    /// How often memory was obtained meanwhile; 0 unless the program installed
    /// [`Counting`](allocations::Counting).
    pub allocations: u64,
    /// Lines that were written.
    pub rows: u64,
}

/// A workload, the table it is fed to, and the output behind.
pub struct Replay {
    workload: Workload,
    events: Vec<Event>,
    tracker: Tracker,
    output: Output,
}

impl Replay {
    /// Begins with `live` connections established; `spacing` is the time between two events.
    pub fn new(live: usize, spacing: Duration, stage: Stage) -> Self {
        let mut workload = Workload::new(live, spacing);
        let mut tracker = Tracker::new(TrackerOptions::default());
        tracker.observe(&workload.listener(), &mut |_| {});
        for event in workload.establish() {
            tracker.observe(&event, &mut |_| {});
        }
        Self { workload, events: Vec::with_capacity(BATCH), tracker, output: Output::new(stage) }
    }

    /// Takes in so many events that nothing grows any more.
    ///
    /// # Errors
    ///
    /// None: the lines go nowhere.
    pub fn settle(&mut self, spacing: Duration) -> io::Result<()> {
        for _ in 0..balance(spacing).div_ceil(BATCH as u64) {
            self.workload.fill(&mut self.events, BATCH);
            for event in &self.events {
                self.tracker.observe(event, &mut |_| {});
            }
        }
        // The output's buffers have their size after a few lines.
        self.workload.fill(&mut self.events, BATCH);
        take_in(&self.events, &mut self.tracker, &mut self.output)
    }

    /// Takes in at least so many events.
    ///
    /// # Errors
    ///
    /// None: the lines go nowhere.
    pub fn run(&mut self, events: u64) -> io::Result<Taken> {
        let rows = self.output.sink.rows();
        let mut taken = Taken { events: 0, time: Duration::ZERO, allocations: 0, rows: 0 };
        while taken.events < events {
            self.workload.fill(&mut self.events, BATCH);
            let before = allocations::calls();
            let start = processor_time();
            measured(&self.events, &mut self.tracker, &mut self.output)?;
            taken.time += processor_time().saturating_sub(start);
            taken.allocations += allocations::calls() - before;
            taken.events += BATCH as u64;
        }
        taken.rows = self.output.sink.rows() - rows;
        Ok(taken)
    }
}

/// What is measured, under a name that callgrind can be told.
#[inline(never)]
fn measured(events: &[Event], tracker: &mut Tracker, output: &mut Output) -> io::Result<()> {
    take_in(events, tracker, output)
}

fn take_in(events: &[Event], tracker: &mut Tracker, output: &mut Output) -> io::Result<()> {
    let mut written = Ok(());
    for event in events {
        if output.stage == Stage::Metrics {
            output.recorder.event(event);
        }
        tracker.observe(event, &mut |observation| {
            if written.is_ok() {
                written = output.take(&observation);
            }
        });
    }
    written?;
    output.sink.flush()
}

/// Of this thread: what others do on the machine meanwhile is not in it.
///
/// By the C library, because valgrind hides from rustix what that reads the clock with.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` only.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "every kernel has a clock for a thread's processor time");
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

struct Output {
    stage: Stage,
    recorder: Recorder,
    sink: Sink<io::Sink>,
    clock: ClockOffset,
}

impl Output {
    fn new(stage: Stage) -> Self {
        let format = match stage {
            Stage::Core | Stage::Metrics | Stage::TransitionsJson | Stage::ConnectionsJson => Format::Json,
            Stage::TransitionsTable | Stage::ConnectionsTable => Format::Wide,
        };
        Self {
            stage,
            recorder: Recorder::new(RecorderOptions::default()),
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
            (
                Stage::TransitionsJson | Stage::TransitionsTable,
                Observation::Transition { transition, duration_ns, connection },
            ) => self.sink.write(&TransitionRow::new(transition, *connection, *duration_ns, self.clock)),
            (Stage::ConnectionsJson | Stage::ConnectionsTable, Observation::Closed(closed)) => {
                self.sink.write(&ConnectionRow::new(closed, None, self.clock))
            }
            _ => Ok(()),
        }
    }
}
