//! `handshakes --join`: the handshakes of two recordings, each of another host, end by end.
//!
//! Reads the other host's recording first, then this host's, and joins them at the end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
};

use anyhow::{Context as _, bail, ensure};
use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeEnd, HandshakeJoin, JoinSide, UtcTime},
    event::{ClockOffset, HandshakeSegment, Timestamp},
    lifecycle::{Observation, ObservedDrops, SegmentDrops},
};

use crate::{
    cli::{HandshakesArguments, Shared},
    commands::{input::Input, table_style, trace},
    event_loop::{Consumer, Progress},
    report::{
        ConnectionCgroups, Filter, Format, JoinHosts, JoinRow, JoinTable, JoinedHandshakeRow, Sink, Summary,
    },
    sources::{Origin, observed_drops, recording::RecordingSource},
};

pub(super) fn run(shared: &Shared, arguments: &HandshakesArguments) -> anyhow::Result<()> {
    let other = open(shared, &arguments.join)?;
    let this = open(shared, &shared.input)?;
    if other.header().run == this.header().run {
        bail!("--join and --input are the same recording; pass the recording of the other host to --join");
    }
    let hosts = JoinHosts { this: this.header().host.name.clone(), other: other.header().host.name.clone() };
    let Some(other) = collect(shared, other, &arguments.join, None)? else { return Ok(()) };
    let Some(this) = collect(shared, this, &shared.input, Some(shared.filter()))? else { return Ok(()) };
    write(shared, arguments, &HandshakeJoin { this, other }, &hosts)
}

fn open(shared: &Shared, paths: &[PathBuf]) -> anyhow::Result<RecordingSource> {
    Ok(RecordingSource::open(paths, shared.duration)?)
}

/// Reads a recording; none if the user ended it early. The ends that `filter` does not show are marked.
fn collect(
    shared: &Shared,
    source: RecordingSource,
    paths: &[PathBuf],
    filter: Option<Filter>,
) -> anyhow::Result<Option<JoinSide>> {
    let shared = Shared { input: paths.to_vec(), ..shared.clone() };
    let started = source.header().started;
    let (sender, receiver) = channel();
    let collected = |origin: Origin| Collector {
        side: JoinSide::default(),
        started,
        filter,
        clock: origin.clock,
        observed: observed_drops(&origin.host),
        cgroups: ConnectionCgroups::new(origin.resolver),
        sender,
    };
    let ended = trace::run_to_end(&shared, Input::of_recording(&shared, source), collected)?;
    let side = receiver.try_recv().context("the recording was not read to its end")?;
    if ended {
        ensure!(
            side.has_numbers() || !side.has_handshakes(),
            "{} has no initial sequence numbers, because an earlier version recorded it, or mode tracepoint without BTF; \
             record again",
            name(paths)
        );
    }
    Ok(ended.then_some(side))
}

fn name(paths: &[PathBuf]) -> String {
    let first = paths.first().map_or(Path::new("the recording"), PathBuf::as_path);
    tracer_core::escape::escape(first.as_os_str().as_encoded_bytes())
}

/// Collects the ends of a recording's handshakes.
struct Collector {
    side: JoinSide,
    started: Timestamp,
    filter: Option<Filter>,
    clock: ClockOffset,
    observed: ObservedDrops,
    cgroups: ConnectionCgroups,
    sender: Sender<JoinSide>,
}

impl Collector {
    fn add(&mut self, attempt: &HandshakeAttempt) {
        let shown = self.shows(attempt);
        let mut end = HandshakeEnd::new(attempt, self.clock);
        if let Some(end) = &mut end {
            end.shown = shown;
        }
        self.side.add(end);
    }

    fn shows(&mut self, attempt: &HandshakeAttempt) -> bool {
        let Some(filter) = &self.filter else { return true };
        if !filter.shows_attempt(attempt) {
            return false;
        }
        filter.shows_cgroup_of_attempt(attempt, &mut self.cgroups)
    }
}

impl Consumer for Collector {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.filter.as_ref().is_some_and(Filter::needs_cgroup) {
            self.cgroups.observe(&observation);
        }
        if let Observation::SegmentDropped(event) = observation
            && event.segment == HandshakeSegment::Syn
        {
            self.side.add_drop(UtcTime::new(event.time, self.clock), event);
        }
        if let Some(attempt) = HandshakeAttempt::ended_by(&observation) {
            self.add(&attempt);
        }
        Ok(())
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        for half_open in progress.tracker.half_opens() {
            let drops = SegmentDrops::observed(self.observed);
            self.add(&HandshakeAttempt { drops, ..HandshakeAttempt::abandoned(half_open) });
        }
        let wall = |time| UtcTime::new(time, self.clock);
        self.side.covers(wall(self.started), wall(progress.now));
        Ok(())
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        self.sender.send(std::mem::take(&mut self.side)).map_err(io::Error::other)
    }
}

fn write(
    shared: &Shared,
    arguments: &HandshakesArguments,
    join: &HandshakeJoin,
    hosts: &JoinHosts,
) -> anyhow::Result<()> {
    let written = write_report(shared, arguments, join, hosts);
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the output cannot be written"),
    }
}

fn write_report(
    shared: &Shared,
    arguments: &HandshakesArguments,
    join: &HandshakeJoin,
    hosts: &JoinHosts,
) -> io::Result<()> {
    let report = join.report();
    let slowest = arguments.slowest as usize;
    if matches!(shared.output, Format::Table | Format::Wide) {
        let mut text = String::new();
        let table = JoinTable { slowest, style: table_style::of_stdout(shared), hosts };
        table.write(&report, &mut text).map_err(io::Error::other)?;
        let mut stdout = io::stdout().lock();
        return io::Write::write_all(&mut stdout, text.as_bytes())
            .and_then(|()| io::Write::flush(&mut stdout));
    }
    let mut sink = Sink::new(io::stdout(), shared.output, shared.time);
    if shared.output == Format::Json {
        sink.write(&JoinRow::new(&report.counts, report.clock.as_ref(), hosts))?;
    }
    sink.begin::<JoinedHandshakeRow<'_>>()?;
    for joined in report.handshakes.iter().take(slowest) {
        sink.write(&JoinedHandshakeRow::new(joined, hosts))?;
    }
    sink.flush()
}
