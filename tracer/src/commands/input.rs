//! Where a command takes its events from: the live kernel or a recording.

use anyhow::Context as _;
use caps::Capability;

use super::replay::Replay;
use crate::{
    cli::Shared,
    source::{
        Source,
        kernel::{KernelSource, StopHandle, privileges},
        recording::RecordingSource,
    },
};

/// A source that is ready, and what interrupts its wait.
pub(super) struct Input {
    /// The source.
    pub(super) source: Box<dyn Source + Send>,
    /// Interrupts its wait; none when it never waits.
    pub(super) stop: Option<StopHandle>,
    /// The mode that a live kernel is traced in.
    pub(super) mode: Option<&'static str>,
    /// What is told when it begins.
    pub(super) announcement: Vec<String>,
    /// It ends by itself, after `--duration` of its own time.
    pub(super) recorded: bool,
}

/// What happens to the privileges once the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privileges {
    /// Given back.
    Dropped,
    /// Kept, for a look at the host's sockets later.
    Kept,
    /// Given back, except what root needs to create files in somebody else's folder.
    ToCreateFiles,
}

impl Input {
    /// Opens what the options ask for.
    pub(super) fn open(shared: &Shared, afterwards: Privileges) -> anyhow::Result<Self> {
        if !shared.input.is_empty() {
            return Self::recording(shared);
        }
        let source = KernelSource::start(shared.kernel_options())?;
        // Before any thread is started: capabilities belong to threads.
        match afterwards {
            Privileges::Dropped => privileges::keep_only(&[]),
            Privileges::ToCreateFiles => {
                privileges::keep_only(&[Capability::CAP_DAC_OVERRIDE, Capability::CAP_CHOWN])
            }
            Privileges::Kept => Ok(()),
        }
        .context("the capabilities that are not needed any more could not be given back")?;
        let stop = source.stop_handle().context("no file descriptor is left to wait for a signal with")?;
        Ok(Self {
            mode: Some(source.mode().name()),
            announcement: announcement(shared, &source),
            stop: Some(stop),
            source: Box::new(source),
            recorded: false,
        })
    }

    fn recording(shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self::of_recording(shared, RecordingSource::open(&shared.input, shared.duration)?))
    }

    /// A recording that is open.
    pub(super) fn of_recording(shared: &Shared, source: RecordingSource) -> Self {
        let announcement = vec![Replay::announcement(&shared.input, source.header())];
        Self {
            mode: None,
            announcement,
            stop: None,
            source: Box::new(Replay::new(source, shared)),
            recorded: true,
        }
    }
}

fn announcement(shared: &Shared, source: &KernelSource) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = source.fallback_reason() {
        lines.push(format!("falling back to mode tracepoint: {reason}"));
    }
    lines.push(format!("tracing TCP in mode {}; Ctrl-C ends it", source.mode().name()));
    for problem in source.problems() {
        lines.push(format!("what existed before is incomplete: {problem}"));
    }
    if shared.verbose {
        if let Some(refused) = source.refused_twin() {
            lines.push(format!("{refused}; transitions that the kernel skips are lost"));
        }
        for refused in source.refused_hooks() {
            lines.push(format!("{}; {}", refused.error, refused.hook.cost()));
        }
        lines.push(format!(
            "buffer {} KiB, events shown within {} ms, at most {} connections",
            source.buffer_bytes() >> 10,
            shared.latency.as_millis(),
            shared.max_connections
        ));
    }
    lines
}
