//! `record`: writes the event stream to a file.

use std::io;

use tracer_core::{
    counted::counted,
    event::{Event, Nanos, SourceCounts, Timestamp},
    lifecycle::Observation,
};

use crate::{
    cli::{RecordArguments, Shared},
    commands::{flight_record, quiet_notice::QuietNotice, trace},
    event_loop::{Consumer, Progress},
    host::CgroupResolver,
    recording::{Header, Output, Target, Writer, write_open_sockets},
    report::Summary,
    sources::Origin,
};

/// Longest delay before events are written.
const INTERVAL: Nanos = Nanos::from_secs(1);
/// Interval of writes without events.
const QUIET_INTERVAL: Nanos = Nanos::from_secs(10);

pub(super) fn run(shared: &Shared, arguments: &RecordArguments) -> anyhow::Result<()> {
    if let Some(ring) = arguments.flight.ring {
        return flight_record::run(shared, arguments, ring);
    }
    // Before tracing starts, and before the privileges are dropped.
    let mut target = Target::new(&arguments.file, arguments.rotation(), arguments.force)?;
    let output = target.next_file()?;
    let rotates = target.rotation().is_on();
    let first = target.files().next().map(std::path::Path::to_owned);
    let consumer = |origin| Record::new(shared, target, output, origin);
    let result =
        if rotates { trace::trace_creating_files(shared, consumer) } else { trace::trace(shared, consumer) };
    if result.is_err()
        && let Some(path) = first
        && std::fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() == 0)
    {
        // Tracing never started.
        let _ = std::fs::remove_file(path);
    }
    result
}

struct Record {
    target: Target,
    /// The first file, until writing starts.
    output: Option<Output>,
    writer: Option<Writer<Output>>,
    header: Header,
    resolver: CgroupResolver,
    quiet: bool,
    count: Option<u64>,
    transitions: u64,
    events: u64,
    bytes: u64,
    written: Timestamp,
    /// The source's counts at the start of the file.
    before: SourceCounts,
    latest: SourceCounts,
    notice: QuietNotice,
}

impl Record {
    fn new(shared: &Shared, target: Target, output: Output, origin: Origin) -> Self {
        let started = crate::host::now();
        let header = origin.recording_header(started);
        let nothing = SourceCounts { skipped: Some(0), ..SourceCounts::default() };
        Self {
            target,
            output: Some(output),
            writer: None,
            header,
            resolver: origin.resolver,
            quiet: shared.quiet,
            count: shared.count,
            transitions: 0,
            events: 0,
            bytes: 0,
            written: started,
            before: nothing,
            latest: nothing,
            notice: QuietNotice::until_the_end(shared, "the recording goes on"),
        }
    }

    /// Finishes the file and starts the next one with the open connections, so that it can be read by itself.
    fn rotate(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.finish_file()?;
        let output = self.target.next_file().map_err(io::Error::other)?;
        self.header.part += 1;
        self.header.started = progress.now;
        self.before = progress.source;
        let mut writer = Writer::new(output, &self.header)?;
        write_open_sockets(&mut writer, progress.tracker, progress.now, &mut self.resolver)?;
        writer.flush(&self.counts(), &mut self.resolver)?;
        self.writer = Some(writer);
        Ok(())
    }

    fn finish_file(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let counts = self.counts();
        writer.flush(&counts, &mut self.resolver)?;
        self.bytes += writer.bytes();
        writer.finish(&counts, &mut self.resolver)?;
        Ok(())
    }

    /// Returns the source's counts since the start of the file.
    fn counts(&self) -> SourceCounts {
        self.latest.since(&self.before)
    }
}

impl Consumer for Record {
    fn begin(&mut self) -> io::Result<()> {
        if let Some(output) = self.output.take() {
            self.writer = Some(Writer::new(output, &self.header)?);
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if self.count.is_some_and(|count| self.transitions >= count) {
            return Ok(());
        }
        self.events += u64::from(!matches!(event, Event::Time(_)));
        self.transitions += u64::from(matches!(event, Event::Transition(_)));
        writer.event(event, &mut self.resolver)
    }

    fn observe(&mut self, _observation: Observation<'_>) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.latest = progress.source;
        self.notice.print_if_due(0, &progress);
        let counts = self.counts();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let waited = progress.now.since(self.written);
        let interval = if writer.pending() == 0 { QUIET_INTERVAL } else { INTERVAL };
        if waited < interval {
            return Ok(());
        }
        writer.flush(&counts, &mut self.resolver)?;
        self.written = progress.now;
        let age = progress.now.since(self.header.started);
        if self.target.rotation().is_due(writer.bytes(), age) {
            self.rotate(progress)?;
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.transitions >= count)
    }

    fn writes_to_stdout(&self) -> bool {
        self.target.is_stdout()
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        self.latest = summary.source;
        self.finish_file()?;
        if !self.quiet {
            stderr_line!(
                "{} recorded, {} in {}",
                counted(self.events, "event"),
                counted(self.bytes, "byte"),
                counted(self.target.made(), "file")
            );
        }
        Ok(())
    }
}
