//! `record`: the event stream into a file.

use std::io;

use super::{
    consumer::{Consumer, Progress},
    trace,
};
use crate::{
    cli::{RecordArguments, Shared},
    event::{Event, ExistingSocket, SourceCounts, Timestamp},
    lifecycle::{Observation, Tracker},
    output::Summary,
    owner::Attribution,
    recording::{Header, Output, Target, Writer},
    source::Origin,
};

/// How long events wait at most before they are written, nanoseconds.
const INTERVAL_NS: u64 = 1_000_000_000;
/// How often a host on which nothing happens is told of.
const QUIET_INTERVAL_NS: u64 = 10_000_000_000;

pub(super) fn run(shared: &Shared, arguments: &RecordArguments) -> anyhow::Result<()> {
    // Before tracing begins, and before the privileges are given back.
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
        // Tracing never began.
        let _ = std::fs::remove_file(path);
    }
    result
}

struct Record {
    target: Target,
    /// The first file, until it is begun.
    output: Option<Output>,
    writer: Option<Writer<Output>>,
    header: Header,
    attribution: Attribution,
    quiet: bool,
    count: Option<u64>,
    transitions: u64,
    events: u64,
    bytes: u64,
    written: Timestamp,
    /// The source's account when the file began.
    before: SourceCounts,
    latest: SourceCounts,
}

impl Record {
    fn new(shared: &Shared, target: Target, output: Output, origin: Origin) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let started = Timestamp::now();
        let header = Header {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: tracer_ebpf::WIRE_VERSION,
            host: origin.host,
            clock: origin.clock,
            time_wait: origin.time_wait,
            started,
            run: format!("{:016x}", RandomState::new().hash_one(started)),
            part: 1,
        };
        let nothing = SourceCounts { skipped: Some(0), ..SourceCounts::default() };
        Self {
            target,
            output: Some(output),
            writer: None,
            header,
            attribution: origin.attribution,
            quiet: shared.quiet,
            count: shared.count,
            transitions: 0,
            events: 0,
            bytes: 0,
            written: started,
            before: nothing,
            latest: nothing,
        }
    }

    /// Ends the file and begins the next with what is open now, so that it can be read alone.
    fn rotate(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.finish_file()?;
        let output = self.target.next_file().map_err(io::Error::other)?;
        self.header.part += 1;
        self.header.started = progress.now;
        self.before = progress.source;
        let mut writer = Writer::new(output, &self.header)?;
        for socket in existing(progress.tracker, progress.now) {
            writer.event(&Event::Existing(socket), &mut self.attribution)?;
        }
        writer.event(&Event::SnapshotEnd { started: progress.now }, &mut self.attribution)?;
        writer.flush(&self.counts(), &mut self.attribution)?;
        self.writer = Some(writer);
        Ok(())
    }

    fn finish_file(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let counts = self.counts();
        writer.flush(&counts, &mut self.attribution)?;
        self.bytes += writer.bytes();
        writer.finish(&counts, &mut self.attribution)?;
        Ok(())
    }

    /// The source's account since the file began.
    fn counts(&self) -> SourceCounts {
        let (now, before) = (&self.latest, &self.before);
        SourceCounts {
            seen: now.seen.saturating_sub(before.seen),
            lost: now.lost.saturating_sub(before.lost),
            skipped: now.skipped.zip(before.skipped).map(|(now, before)| now.saturating_sub(before)),
            others_lost: now.others_lost.saturating_sub(before.others_lost),
            renewed: now.renewed.saturating_sub(before.renewed),
            malformed: now.malformed.saturating_sub(before.malformed),
            recovered: now.recovered.saturating_sub(before.recovered),
            duplicates: now.duplicates.saturating_sub(before.duplicates),
        }
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
        writer.event(event, &mut self.attribution)
    }

    fn observe(&mut self, _observation: Observation<'_>) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.latest = progress.source;
        let counts = self.counts();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let waited = progress.now.since(self.written);
        let interval = if writer.pending() == 0 { QUIET_INTERVAL_NS } else { INTERVAL_NS };
        if waited < interval {
            return Ok(());
        }
        writer.flush(&counts, &mut self.attribution)?;
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
            let files = match self.target.made() {
                1 => "1 file".to_owned(),
                several => format!("{several} files"),
            };
            tell!("{} events recorded, {} bytes in {files}", self.events, self.bytes);
        }
        Ok(())
    }
}

/// Every listener and every connection in the table, as a look at the host would find them.
fn existing(tracker: &Tracker, now: Timestamp) -> impl Iterator<Item = ExistingSocket> + '_ {
    let listeners = tracker.listeners().enumerate().map(move |(index, (netns, local, process))| {
        let address = match local.address {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        ExistingSocket {
            time: now,
            cookie: index as u64,
            state: crate::lifecycle::TcpState::Listen,
            state_age_ns: None,
            local,
            remote: crate::event::Endpoint { address, port: 0 },
            process,
            netns,
            cgroup_id: None,
            info: None,
        }
    });
    let connections = tracker.connections().map(move |(socket, connection)| ExistingSocket {
        time: now,
        // The table takes the complement of a cookie for the identity of what it has only heard of: so
        // this one keeps its own, and its next transition finds it.
        cookie: !socket.0,
        state: connection.state(),
        state_age_ns: connection.history.since().map(|since| now.since(since)),
        local: connection.local,
        remote: connection.remote,
        process: connection.owner.process,
        netns: connection.netns,
        cgroup_id: connection.cgroup_id,
        info: None,
    });
    listeners.chain(connections)
}
