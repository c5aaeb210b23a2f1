//! Runs a command's consumer until a signal, `--duration`, or the end of the source or the consumer.

use std::io;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracer_core::lifecycle::TrackerOptions;

use crate::{
    cli::Shared,
    commands::input::{Input, Privileges},
    event_loop::{Consumer, EventLoop, RunError},
    flight_recorder::FreezeHandle,
    sources::{Origin, live::Hook, observed_drops},
};

/// The signals that would otherwise end the program without a summary or without restoring the terminal.
const ENDING: [fn() -> SignalKind; 7] = [
    SignalKind::terminate,
    SignalKind::interrupt,
    SignalKind::hangup,
    SignalKind::quit,
    SignalKind::alarm,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

/// Waits for any of the signals.
async fn any_of(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        let ready = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Feeds the consumer from the selected source, and prints the summary.
pub(super) fn trace<C: Consumer>(shared: &Shared, consumer: impl FnOnce(Origin) -> C) -> anyhow::Result<()> {
    run(shared, Input::open(shared, Privileges::Dropped)?, consumer)
}

/// Like [`trace`], for a command that dumps the host's sockets afterwards.
pub(super) fn trace_keeping_privileges<C: Consumer>(
    shared: &Shared,
    consumer: impl FnOnce(Origin) -> C,
) -> anyhow::Result<()> {
    run(shared, Input::open(shared, Privileges::Kept)?, consumer)
}

/// Like [`trace`], for a command that creates files during the run.
pub(super) fn trace_creating_files<C: Consumer>(
    shared: &Shared,
    consumer: impl FnOnce(Origin) -> C,
) -> anyhow::Result<()> {
    run(shared, Input::open(shared, Privileges::ToCreateFiles)?, consumer)
}

/// Like [`trace_creating_files`], for a flight recorder: SIGUSR1 asks for a file instead of ending the run.
///
/// `announcement` is a further line to print at the start.
pub(super) fn trace_for_flight_recorder<C: Consumer>(
    shared: &Shared,
    announcement: Option<String>,
    freeze: &FreezeHandle,
    consumer: impl FnOnce(Origin) -> anyhow::Result<C>,
) -> anyhow::Result<()> {
    let mut input = Input::open(shared, Privileges::ToCreateFiles)?;
    input.announcement.extend(announcement);
    run_with_requests(shared, input, Some(freeze), consumer).map(|_| ())
}

/// Like [`trace`], with an open input.
pub(super) fn run<C: Consumer>(
    shared: &Shared,
    input: Input,
    consumer: impl FnOnce(Origin) -> C,
) -> anyhow::Result<()> {
    run_to_end(shared, input, consumer).map(|_| ())
}

/// Like [`run`]. Returns false if a signal ended the run.
pub(super) fn run_to_end<C: Consumer>(
    shared: &Shared,
    input: Input,
    consumer: impl FnOnce(Origin) -> C,
) -> anyhow::Result<bool> {
    run_with_requests(shared, input, None, |origin| Ok(consumer(origin)))
}

/// Asks for a file at each signal. Never returns.
async fn freeze_at(signal: Option<&mut Signal>, freeze: Option<&FreezeHandle>) {
    if let (Some(signal), Some(freeze)) = (signal, freeze) {
        while signal.recv().await.is_some() {
            freeze.signal();
        }
    }
    std::future::pending::<()>().await;
}

/// Like [`run_to_end`]. With `freeze`, SIGUSR1 does not end the run.
fn run_with_requests<C: Consumer>(
    shared: &Shared,
    mut input: Input,
    freeze: Option<&FreezeHandle>,
    consumer: impl FnOnce(Origin) -> anyhow::Result<C>,
) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the signal handler could not be started")?;
    // Before the start is announced, because a user may then send a signal.
    let asking = freeze.map(|_| SignalKind::user_defined1());
    let (mut signals, mut asking_signal) = {
        let _guard = runtime.enter();
        let ending = ENDING.into_iter().map(|kind| kind()).filter(|kind| Some(*kind) != asking);
        (ending.map(signal).collect::<io::Result<Vec<_>>>()?, asking.map(signal).transpose()?)
    };
    if !shared.quiet {
        for line in &input.announcement {
            stderr_line!("{line}");
        }
    }
    let origin = input.source.origin();
    let options = TrackerOptions {
        max_connections: shared.max_connections as usize,
        time_wait: origin.time_wait,
        drops: observed_drops(&origin.host),
        resets: origin.host.has_hook(Hook::ResetSent.name()),
    };
    let mut event_loop = EventLoop::start(input.source, input.stop, options, consumer(origin)?)
        .context("the thread that reads events could not be started")?;
    // The tracing thread has inherited the priority; this thread returns to its own.
    drop(input.priority);
    let undisturbed = runtime.block_on(async {
        let duration = async {
            // A recording applies the duration to its own time.
            match shared.duration.filter(|_| !input.recorded) {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = any_of(&mut signals) => false,
            () = freeze_at(asking_signal.as_mut(), freeze) => false,
            () = duration => true,
            () = event_loop.ended() => true,
        }
    });
    let finished = event_loop.finish();
    if !shared.quiet {
        for line in finished.lines(shared.color.palette(&io::stderr())) {
            stderr_line!("{line}");
        }
    }
    conclude(finished.result, input.recorded).map(|()| undisturbed)
}

/// Returns a run's result. A closed stdout is success.
fn conclude(result: Result<(), RunError>, recorded: bool) -> anyhow::Result<()> {
    let Err(failure) = result else { return Ok(()) };
    let what = match &failure {
        RunError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        RunError::Output(_) => "the output cannot be written",
        RunError::Source(_) if recorded => "the recording cannot be read any further",
        RunError::Source(_) => "the kernel's events cannot be read any more",
    };
    Err(failure).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_failed() {
        let reported = |result, recorded| conclude(result, recorded).map_err(|error| format!("{error:#}"));
        let broken = || io::Error::new(io::ErrorKind::BrokenPipe, "broken");
        assert_eq!(reported(Ok(()), false), Ok(()));
        assert_eq!(reported(Err(RunError::Output(broken())), false), Ok(()));
        for (failure, recorded, words) in [
            (RunError::Output(io::Error::other("full")), true, "the output cannot be written: full"),
            (RunError::Source(broken()), true, "the recording cannot be read any further: broken"),
            (RunError::Source(broken()), false, "the kernel's events cannot be read any more: broken"),
        ] {
            assert_eq!(reported(Err(failure), recorded), Err(words.to_owned()));
        }
    }
}
