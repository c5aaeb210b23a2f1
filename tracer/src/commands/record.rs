//! `record`: writes the event stream to a file.

use std::{io, num::NonZeroU32};

use tracer_core::{
    counted::counted,
    event::{
        Event, ExistingSocket, ExistingTimewait, Nanos, SocketCookie, SourceCounts, Timestamp, Translated,
    },
    lifecycle::{Observation, TimewaitSocket, Tracker},
};

use crate::{
    cli::{RecordArguments, Shared},
    commands::{quiet_notice::QuietNotice, trace},
    event_loop::{Consumer, Progress},
    host::CgroupResolver,
    recording::{Header, Output, Target, Writer},
    report::Summary,
    sources::Origin,
};

/// Longest delay before events are written.
const INTERVAL: Nanos = Nanos::from_secs(1);
/// Interval of writes without events.
const QUIET_INTERVAL: Nanos = Nanos::from_secs(10);

pub(super) fn run(shared: &Shared, arguments: &RecordArguments) -> anyhow::Result<()> {
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
        use std::hash::{BuildHasher as _, RandomState};
        let started = crate::host::now();
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
        for translated in progress.tracker.translations() {
            let event = Event::Translated(Translated { time: progress.now, ..translated });
            writer.event(&event, &mut self.resolver)?;
        }
        for socket in existing(progress.tracker, progress.now) {
            writer.event(&Event::Existing(socket), &mut self.resolver)?;
        }
        for socket in progress.tracker.timewait_sockets() {
            let TimewaitSocket { state, timer_due, local, remote, netns, .. } = socket;
            let time = progress.now;
            let event =
                Event::ExistingTimewait(ExistingTimewait { time, state, timer_due, local, remote, netns });
            writer.event(&event, &mut self.resolver)?;
        }
        writer.event(&Event::DumpEnd { started: progress.now, timewait: true }, &mut self.resolver)?;
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

/// Returns every listener and connection in the table as a socket dump would.
fn existing(tracker: &Tracker, now: Timestamp) -> impl Iterator<Item = ExistingSocket> + '_ {
    let listeners = tracker.listeners().enumerate().map(move |(index, (netns, local, process))| {
        let address = match local.address {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        ExistingSocket {
            time: now,
            cookie: SocketCookie(index as u64),
            state: tracer_core::event::TcpState::Listen,
            state_age: None,
            local,
            remote: tracer_core::event::Endpoint { address, port: 0 },
            process,
            netns,
            cgroup_id: None,
            info: None,
            interface: None,
        }
    });
    let connections = tracker.connections().map(move |(socket, connection)| ExistingSocket {
        time: now,
        // The table identifies a dumped socket by the complement of its cookie. The complement of the identity
        // therefore restores it, and the next transition finds the connection.
        cookie: SocketCookie(!socket.0),
        state: connection.state(),
        state_age: connection.history.since().map(|since| now.since(since)),
        local: connection.local,
        remote: connection.remote,
        process: connection.owner.process,
        netns: connection.netns,
        cgroup_id: connection.cgroup_id,
        info: None,
        interface: connection.interface.map(NonZeroU32::get),
    });
    listeners.chain(connections)
}
