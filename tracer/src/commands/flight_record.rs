//! `record --ring`: keeps the last events, and writes them to a file when a condition holds or on SIGUSR1.

use std::sync::Arc;

use tracer_core::lifecycle::Thresholds;

use crate::{
    cli::{RecordArguments, Shared},
    commands::trace,
    flight_recorder::{FlightOptions, FlightRecorder, FrozenFiles, Notice, freeze_channel},
};

/// Runs with a ring of `ring` bytes.
pub(super) fn run(shared: &Shared, arguments: &RecordArguments, ring: u64) -> anyhow::Result<()> {
    let flight = &arguments.flight;
    let files = FrozenFiles::new(&arguments.file, flight.files());
    // Now, and not when something happens.
    files.check()?;
    let announcement = flight.announcement(&files.shown());
    let quiet = shared.quiet;
    let report = move |notice: Notice| match notice {
        Notice::Done(_) if quiet => {}
        Notice::Done(text) | Notice::Problem(text) => stderr_line!("{text}"),
    };
    let (handle, requests) = freeze_channel();
    let trigger = flight.trigger(Thresholds::default());
    let options = FlightOptions { ring, trigger, files, report: Arc::new(report) };
    trace::trace_for_flight_recorder(shared, announcement, &handle, |origin| {
        let header = origin.recording_header(crate::host::now());
        Ok(FlightRecorder::new(options, header, origin.resolver, requests)?)
    })
}
