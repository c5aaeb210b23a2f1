//! Opens the source of a command: the live kernel or a recording.

use std::path::Path;

use anyhow::Context as _;
use caps::Capability;
use tracer_core::counted::counted;

use crate::{
    cli::Shared,
    commands::replay::Replay,
    host::{NamespaceFacts, Priority, PriorityError, Visibility},
    sources::{
        Source,
        live::{KernelSource, StopHandle, privileges},
        recording::RecordingSource,
    },
};

/// An open source and its properties.
pub(super) struct Input {
    /// The source.
    pub(super) source: Box<dyn Source + Send>,
    /// Interrupts the source's wait; `None` when it never waits.
    pub(super) stop: Option<StopHandle>,
    /// The tracing mode; `None` for a recording.
    pub(super) mode: Option<&'static str>,
    /// Lines to print when tracing starts.
    pub(super) announcement: Vec<String>,
    /// The raised priority of this thread, for the tracing thread to inherit; none for a recording. Drop it when that
    /// thread has started.
    pub(super) priority: Option<Priority>,
    /// The source is a recording, which applies `--duration` to its own time.
    pub(super) recorded: bool,
    /// Retransmitted SYN-ACKs are traced, and with them abandoned handshakes. False for a recording, which may have them.
    pub(super) traces_syn_ack_retransmits: bool,
    /// What this process sees of the host; none for a recording.
    pub(super) visibility: Option<Visibility>,
}

/// Returns what this process sees of the host.
pub(super) fn visibility() -> Visibility {
    Visibility::of(&NamespaceFacts::read(Path::new("/proc")))
}

/// The privileges to keep once the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privileges {
    /// None.
    Dropped,
    /// All, for a socket dump later.
    Kept,
    /// Only those that root needs to create files in another user's folder.
    ToCreateFiles,
}

impl Input {
    /// Opens the source that the options select.
    pub(super) fn open(shared: &Shared, afterwards: Privileges) -> anyhow::Result<Self> {
        if !shared.input.is_empty() {
            return Self::recording(shared);
        }
        // First, so that neither loading nor the socket dump waits for a busy host.
        let priority = match Priority::set(shared.nice) {
            Ok(priority) => Ok(priority),
            Err(refused) if shared.nice.is_none() => Err(refused),
            Err(refused) => return Err(refused.into()),
        };
        let visibility = visibility();
        let source = KernelSource::start(shared.kernel_options());
        let source = match visibility.user_problem() {
            Some(reason) => {
                source.with_context(|| format!("eBPF programs cannot be loaded here: {reason}"))?
            }
            None => source?,
        };
        // Before any lasting thread starts, because capabilities are per thread.
        match afterwards {
            Privileges::Dropped => privileges::keep_only(&[]),
            Privileges::ToCreateFiles => {
                privileges::keep_only(&[Capability::CAP_DAC_OVERRIDE, Capability::CAP_CHOWN])
            }
            Privileges::Kept => Ok(()),
        }
        .context("the capabilities that are no longer needed could not be dropped")?;
        let stop = source.stop_handle().context("no file descriptor is left for the stop signal")?;
        Ok(Self {
            mode: Some(source.mode().name()),
            announcement: announcement(shared, &source, priority.as_ref().err(), &visibility),
            priority: priority.ok().flatten(),
            traces_syn_ack_retransmits: source.traces_syn_ack_retransmits(),
            stop: Some(stop),
            source: Box::new(source),
            recorded: false,
            visibility: Some(visibility),
        })
    }

    fn recording(shared: &Shared) -> anyhow::Result<Self> {
        Ok(Self::of_recording(shared, RecordingSource::open(&shared.input, shared.duration)?))
    }

    /// Uses an open recording.
    pub(super) fn of_recording(shared: &Shared, source: RecordingSource) -> Self {
        let header = source.header();
        let first = Replay::announcement(&shared.input, header);
        let announcement = std::iter::once(first).chain(Replay::frozen(header)).collect();
        Self {
            mode: None,
            announcement,
            priority: None,
            stop: None,
            source: Box::new(Replay::new(source, shared)),
            recorded: true,
            traces_syn_ack_retransmits: false,
            visibility: None,
        }
    }
}

fn announcement(
    shared: &Shared,
    source: &KernelSource,
    refused: Option<&PriorityError>,
    visibility: &Visibility,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = source.fallback_reason() {
        lines.push(format!("falling back to mode tracepoint: {reason}"));
    }
    lines.push(format!("tracing TCP in mode {}; Ctrl-C ends it", source.mode().name()));
    lines.extend(visibility.notice().map(str::to_owned));
    for problem in source.problems() {
        lines.push(format!("the list of existing sockets is incomplete: {problem}"));
    }
    if shared.verbose {
        if let Some(refused) = refused {
            lines.push(format!("{refused}; a busy host may delay the reader until events are lost"));
        }
        if let Some(refused) = source.refused_twin() {
            lines.push(format!("{refused}; transitions that the kernel skips are lost"));
        }
        for refused in source.refused_hooks() {
            lines.push(format!("{}; {}", refused.error, refused.hook.cost()));
        }
        lines.push(format!(
            "buffer {} KiB, events shown within {} ms, at most {}",
            source.buffer_bytes() >> 10,
            shared.latency.as_millis(),
            counted(shared.max_connections, "connection")
        ));
    }
    lines
}
