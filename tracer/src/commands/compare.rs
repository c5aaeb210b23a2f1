//! `compare`: what shifted between two recordings, or between a recording and now.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
};

use anyhow::{Context as _, ensure};
use tracer_core::{
    analysis::{ComparePeriod, CompareReport, HandshakeAttempt},
    lifecycle::Observation,
};

use crate::{
    cli::{CompareArguments, Shared},
    commands::{
        handshakes::owner,
        input::{Input, Privileges},
        quiet_notice::QuietNotice,
        table_style, trace,
    },
    event_loop::{Consumer, Progress},
    host::Cgroup,
    report::{
        CompareTable, ComparedHosts, ComparisonRow, ConnectionCgroups, Filter, Format, ShiftRow, Sink,
        Summary,
    },
    sources::{Origin, recording::RecordingSource},
};

/// Most groups in a table without `--count`.
const TABLE_GROUPS: u64 = 20;

pub(super) fn run(shared: &Shared, arguments: &CompareArguments) -> anyhow::Result<()> {
    // Without AFTER, the duration limits the tracing.
    let limit = arguments.after.as_ref().and(shared.duration);
    let before = RecordingSource::open(std::slice::from_ref(&arguments.before), limit)?;
    let after = arguments
        .after
        .as_ref()
        .map(|path| RecordingSource::open(std::slice::from_ref(path), shared.duration))
        .transpose()?;
    if let Some(after) = &after {
        let (before, after) = (before.header(), after.header());
        ensure!(
            (&before.run, before.part) != (&after.run, after.part),
            "BEFORE and AFTER are the same recording; pass one from before and one from after the change"
        );
    }
    let mut hosts = ComparedHosts { before: before.header().host.name.clone(), after: String::new() };
    let Some((before, _)) = collect(shared, arguments, of_recording(shared, &arguments.before, before))?
    else {
        return Ok(());
    };
    let after = match (&arguments.after, after) {
        (Some(path), Some(source)) => of_recording(shared, path, source),
        _ => Input::open(&Shared { input: Vec::new(), ..shared.clone() }, Privileges::Dropped)?,
    };
    let Some((after, host)) = collect(shared, arguments, after)? else { return Ok(()) };
    hosts.after = host;
    write(shared, &before, &after, &hosts)
}

fn of_recording(shared: &Shared, path: &Path, source: RecordingSource) -> Input {
    Input::of_recording(&Shared { input: vec![path.to_owned()], ..shared.clone() }, source)
}

/// Collects a period and the name of its host; none if the user ended the reading of a recording early.
fn collect(
    shared: &Shared,
    arguments: &CompareArguments,
    input: Input,
) -> anyhow::Result<Option<(ComparePeriod, String)>> {
    let is_live = !input.recorded;
    let (sender, receiver) = channel();
    let is_for_people = matches!(shared.output, Format::Table | Format::Wide);
    let collector = |origin: Origin| Collector {
        period: ComparePeriod::new(arguments.by.into()),
        host: origin.host.name.clone(),
        filter: shared.filter(),
        cgroups: ConnectionCgroups::new(origin.resolver),
        is_for_people,
        notice: is_live.then(|| QuietNotice::until_the_end(shared, "the comparison comes at the end")),
        sender,
    };
    let ended = trace::run_to_end(shared, input, collector)?;
    let collected = receiver.try_recv().context("the events were not read to their end")?;
    Ok((ended || is_live).then_some(collected))
}

/// Collects the handshakes and closes of a period.
struct Collector {
    period: ComparePeriod,
    host: String,
    filter: Filter,
    cgroups: ConnectionCgroups,
    is_for_people: bool,
    /// None while it reads a recording.
    notice: Option<QuietNotice>,
    sender: Sender<(ComparePeriod, String)>,
}

impl Collector {
    fn needs_cgroups(&self) -> bool {
        self.period.by().is_owner() || self.filter.needs_cgroup()
    }

    /// Returns the container, pod, namespace or workload that the groups share.
    fn owner(&self, cgroup: Option<&Cgroup>) -> Option<Arc<str>> {
        owner(cgroup?, self.period.by(), self.is_for_people).map(Arc::from)
    }
}

impl Consumer for Collector {
    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        if self.needs_cgroups() {
            self.cgroups.observe(&observation);
        }
        if let Some(attempt) = HandshakeAttempt::ended_by(&observation)
            && self.filter.shows_attempt(&attempt)
        {
            let cgroup = self.needs_cgroups().then(|| self.cgroups.of_attempt(&attempt)).flatten();
            if self.filter.shows_cgroup(cgroup.as_deref()) {
                let owner = self.owner(cgroup.as_deref());
                self.period.add_handshake(&attempt, owner);
            }
        }
        if let Observation::Closed(closed) = &observation
            && self.filter.shows_connection(closed)
        {
            let cgroup = self.needs_cgroups().then(|| self.cgroups.of_closed(closed)).flatten();
            if self.filter.shows_cgroup(cgroup.as_deref()) {
                let owner = self.owner(cgroup.as_deref());
                self.period.add_close(closed, owner);
            }
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        if let Some(notice) = &mut self.notice {
            notice.print_if_due(0, &progress);
        }
        Ok(())
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        let empty = ComparePeriod::new(self.period.by());
        let collected = (std::mem::replace(&mut self.period, empty), std::mem::take(&mut self.host));
        self.sender.send(collected).map_err(io::Error::other)
    }
}

fn write(
    shared: &Shared,
    before: &ComparePeriod,
    after: &ComparePeriod,
    hosts: &ComparedHosts,
) -> anyhow::Result<()> {
    match write_report(shared, before, after, hosts) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the output cannot be written"),
    }
}

fn write_report(
    shared: &Shared,
    before: &ComparePeriod,
    after: &ComparePeriod,
    hosts: &ComparedHosts,
) -> io::Result<()> {
    let report = CompareReport::new(before, after);
    let is_table = matches!(shared.output, Format::Table | Format::Wide);
    let limit = shared.count.or(is_table.then_some(TABLE_GROUPS));
    let groups = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let comparison = ComparisonRow::new(&report, before, after, hosts);
    if is_table {
        let table = CompareTable { groups, style: table_style::of_stdout(shared) };
        let mut text = String::new();
        table.write(&comparison, &report, &mut text).map_err(io::Error::other)?;
        let mut stdout = io::stdout().lock();
        return io::Write::write_all(&mut stdout, text.as_bytes())
            .and_then(|()| io::Write::flush(&mut stdout));
    }
    let mut sink = Sink::new(io::stdout(), shared.output, shared.time);
    // CSV has only one row type: the shifts.
    if shared.output == Format::Json {
        sink.write(&comparison)?;
    }
    sink.begin::<ShiftRow<'_>>()?;
    for group in report.groups.iter().take(groups) {
        for shift in &group.shifts {
            sink.write(&ShiftRow::new(group.key, shift))?;
        }
    }
    sink.flush()
}
