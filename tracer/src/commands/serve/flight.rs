//! The flight recorder of `serve`.

use std::{sync::Arc, time::Duration};

use tracer_core::lifecycle::Thresholds;

use crate::{
    cli::{ServeArguments, Shared},
    commands::WrongUsage,
    flight_recorder::{
        FlightOptions, FlightRecorder, FreezeHandle, FreezeRequests, FrozenFiles, Notice, freeze_channel,
    },
    host::CgroupResolver,
    sources::Origin,
};

/// Name of the files without the time.
const FILE: &str = "freeze.arrows";

/// Returns where files are written, once the folder is checked; none without `--ring`. Call it without privileges, because
/// files are created without them.
pub(super) fn files(arguments: &ServeArguments) -> anyhow::Result<Option<FrozenFiles>> {
    let Some(folder) = arguments.freeze_to.as_ref().filter(|_| arguments.flight.ring.is_some()) else {
        return Ok(None);
    };
    let files = FrozenFiles::new(&folder.join(FILE), arguments.flight.files());
    files.check().map_err(WrongUsage::of)?;
    Ok(Some(files))
}

/// The parts of the recorder that need the privileges, and the handle that requests use.
pub(super) struct Flight {
    ring: u64,
    resolver: CgroupResolver,
    requests: FreezeRequests,
    /// Asks for a file.
    pub(super) handle: FreezeHandle,
}

impl Flight {
    /// Reads the cgroups of this host; none without `--ring`.
    pub(super) fn prepare(shared: &Shared, arguments: &ServeArguments) -> Option<Self> {
        let ring = arguments.flight.ring?;
        let (handle, requests) = freeze_channel();
        // The resolver of the source is that of the labels.
        let resolver = CgroupResolver::new(&shared.host_root, Duration::ZERO);
        Some(Self { ring, resolver, requests, handle })
    }

    /// Creates the recorder.
    pub(super) fn recorder(
        self,
        arguments: &ServeArguments,
        thresholds: Thresholds,
        files: FrozenFiles,
        origin: &Origin,
    ) -> std::io::Result<FlightRecorder> {
        if let Some(line) = arguments.flight.announcement(&files.shown()) {
            tracing::info!("{line}");
        }
        let report = |notice: Notice| match notice {
            Notice::Done(text) => tracing::info!("{text}"),
            Notice::Problem(text) => tracing::error!("{text}"),
        };
        let options = FlightOptions {
            ring: self.ring,
            trigger: arguments.flight.trigger(thresholds),
            files,
            report: Arc::new(report),
        };
        let header = origin.recording_header(crate::host::now());
        FlightRecorder::new(options, header, self.resolver, self.requests)
    }
}

/// Asks for a file because of SIGUSR1.
pub(super) fn on_signal(freeze: Option<&FreezeHandle>) {
    if let Some(handle) = freeze {
        handle.signal();
    } else {
        tracing::info!("nothing to freeze: SIGUSR1 writes the ring of --ring, which is not set");
    }
}
