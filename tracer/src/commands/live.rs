//! Tracing until it is told to end: the thread that reads, and the signals that stop it.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    cli::Shared,
    event::Timestamp,
    lifecycle::{Observation, TimeWaitModel, Tracker, TrackerOptions},
    output::{AbandonedSummary, Summary},
    source::{
        ClockOffset, Polled, Source,
        kernel::{KernelSource, privileges},
    },
};

/// What a command does with what the core reports.
pub(super) trait Consumer: Send + 'static {
    /// Called once, before the first observation.
    fn begin(&mut self, clock: ClockOffset) -> io::Result<()>;

    /// Takes in one observation.
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()>;

    /// Called after each batch, so that what was written can be seen.
    fn flush(&mut self) -> io::Result<()>;

    /// Whether it has had enough.
    fn done(&self) -> bool;
}

/// Traces the kernel until a signal, `--duration` or the consumer ends it, and prints the summary.
pub(super) fn trace(shared: &Shared, consumer: impl Consumer) -> anyhow::Result<()> {
    let source = KernelSource::start(shared.kernel_options())?;
    // Before any thread is started: capabilities belong to threads.
    privileges::keep_only(&[])
        .context("the capabilities that are not needed any more could not be given back")?;
    run(shared, source, consumer)
}

/// As [`trace`], for a command that looks at the host's sockets again afterwards.
pub(super) fn trace_keeping_privileges(shared: &Shared, consumer: impl Consumer) -> anyhow::Result<()> {
    run(shared, KernelSource::start(shared.kernel_options())?, consumer)
}

fn run(shared: &Shared, source: KernelSource, consumer: impl Consumer) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the signal handler could not be started")?;
    // Before anybody is told that tracing has begun, and may want it to end.
    let (mut terminate, mut interrupt) = {
        let _guard = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    announce(shared, &source);

    let stop = Arc::new(AtomicBool::new(false));
    let handle = source.stop_handle().context("no file descriptor is left to wait for a signal with")?;
    let (ended, mut worker_ended) = oneshot::channel();
    let worker = {
        let stop = Arc::clone(&stop);
        let tracker = Tracker::new(TrackerOptions {
            max_connections: shared.max_connections as usize,
            time_wait: time_wait_model(),
        });
        thread::Builder::new().name("trace".to_owned()).spawn(move || {
            let outcome = pump(source, tracker, consumer, &stop);
            // The receiver is gone only when a signal has already ended the wait.
            let _ = ended.send(());
            outcome
        })?
    };
    runtime.block_on(async {
        let duration = async {
            match shared.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = duration => {}
            _ = &mut worker_ended => {}
        }
    });
    stop.store(true, Ordering::Relaxed);
    handle.wake();
    let outcome = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (summary, abandoned, result) = outcome;
    if !shared.quiet {
        eprintln!("tcptrace-bpf: {summary}");
        if let Some(abandoned) = abandoned {
            eprintln!("tcptrace-bpf: {abandoned}");
        }
    }
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("the output cannot be written"),
    }
}

fn announce(shared: &Shared, source: &KernelSource) {
    if shared.quiet {
        return;
    }
    if let Some(reason) = source.fallback_reason() {
        eprintln!("tcptrace-bpf: falling back to mode tracepoint: {reason}");
    }
    eprintln!("tcptrace-bpf: tracing TCP in mode {}; Ctrl-C ends it", source.mode().name());
    for problem in source.problems() {
        eprintln!("tcptrace-bpf: what existed before is incomplete: {problem}");
    }
    if shared.verbose {
        for refused in source.refused_hooks() {
            eprintln!("tcptrace-bpf: {}; {}", refused.error, refused.hook.cost());
        }
        eprintln!(
            "tcptrace-bpf: ring buffer {} KiB, events shown within {} ms, at most {} connections",
            shared.buffer >> 10,
            shared.latency.as_millis(),
            shared.max_connections
        );
    }
}

/// Moves events from the source through the core to the consumer until one of them ends.
fn pump(
    mut source: impl Source,
    mut tracker: Tracker,
    mut consumer: impl Consumer,
    stop: &AtomicBool,
) -> (Summary, Option<AbandonedSummary>, io::Result<()>) {
    let mut result = consumer.begin(source.clock()).and_then(|()| consumer.flush());
    while result.is_ok() && !stop.load(Ordering::Relaxed) && !consumer.done() {
        let polled = step(&mut source, &mut tracker, &mut consumer, false);
        match polled {
            Ok(Polled::End) => break,
            Ok(Polled::Drained) => {}
            Err(error) => result = Err(error),
        }
    }
    if result.is_ok() {
        result = step(&mut source, &mut tracker, &mut consumer, true).map(|_| ());
    }
    let summary = Summary { source: source.counts(), tracker: tracker.counts(), live: tracker.live() };
    (summary, AbandonedSummary::new(tracker.abandoned()), result)
}

fn step(
    source: &mut impl Source,
    tracker: &mut Tracker,
    consumer: &mut impl Consumer,
    last: bool,
) -> io::Result<Polled> {
    let mut written = Ok(());
    let mut deliver = |event: &_| {
        tracker.observe(event, &mut |observation| {
            if written.is_ok() && !consumer.done() {
                written = consumer.observe(observation);
            }
        });
    };
    let polled =
        if last { source.finish(&mut deliver).map(|()| Polled::End) } else { source.poll(&mut deliver) };
    // A quiet host lets time pass, too.
    tracker.advance_to(Timestamp::now(), &mut |observation| {
        if written.is_ok() && !consumer.done() {
            written = consumer.observe(observation);
        }
    });
    written?;
    consumer.flush()?;
    stdout_has_reader()?;
    polled
}

/// A reader that went away ends the program even when there is nothing to write.
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

/// The administrator's FIN_WAIT2 timeout in this network namespace; the kernel's default elsewhere.
pub(super) fn time_wait_model() -> TimeWaitModel {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or_else(TimeWaitModel::default, |seconds| TimeWaitModel {
            fin_timeout_ns: seconds.saturating_mul(1_000_000_000),
        })
}
