//! The live kernel source: checks capabilities, loads and attaches the programs, and reads their records.

pub mod btf;
mod counters;
pub mod decode;
pub mod lanes;
mod layout;
pub mod load;
mod mapping;
pub(crate) mod privileges;
pub(crate) mod probe;
mod reading;
mod resync;
pub mod tracefs;
mod twin;

pub use crate::sources::live::load::{Hook, LoadError, Mode, RefusedHook};

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    time::Timespec,
};
use tracer_core::event::{Event, Nanos, Netns, SourceCounts, Timestamp};

use crate::{
    host::{self, CgroupCounters, CgroupResolver, HostNames, time_wait_model},
    sources::{
        Coverage, Origin, Polled, Source,
        live::{
            decode::AddressKey,
            load::{LoadOptions, Loaded, Twin},
            reading::Pass,
            resync::Resync,
            twin::RecentTransitions,
        },
        sock_diag::{Existing, existing, reconcile},
    },
};

/// Default size of the buffer for unread records, of all CPUs together.
///
/// A transition takes 64 to 192 bytes, about 100 on average, and transitions get half of the buffer. With two CPUs,
/// this is about 21,000 transitions each: 75 ms at the highest measured rate, nearly four poll intervals.
pub const DEFAULT_BUFFER_BYTES: u32 = 8 << 20;
/// Default minimum size of the buffer per CPU.
pub const DEFAULT_BUFFER_BYTES_PER_CPU: u32 = 512 << 10;
/// Default time that transitions wait in the buffer at most.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The allowed modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// The first that works: `btf`, then `tracepoint`.
    #[default]
    Auto,
    /// Only this mode.
    Only(Mode),
}

/// Options of the live source.
#[derive(Clone, Copy, Debug)]
pub struct KernelOptions {
    /// The allowed modes.
    pub mode: ModeChoice,
    /// Size of the buffer for unread records, of all CPUs together, bytes. Rounded up to a power of two of at least a
    /// page, and to at least a page for each kind of record on each CPU. `None` for the default.
    pub buffer_bytes: Option<u32>,
    /// How many CPUs, from the first, have lanes. The ring takes the records of the others. `None` for all up to the
    /// last present CPU.
    pub cpus: Option<u32>,
    /// Longest wait between two reads. The programs wake the reader earlier when a quarter of a lane or of the ring is
    /// full.
    pub poll_interval: Duration,
    /// Trace only sockets of the network namespace with this inode. The programs filter in the kernel.
    pub only_netns: Option<Netns>,
    /// Report the first process that reads from an accepted connection.
    pub first_reads: bool,
    /// Start with a dump of the existing sockets.
    pub snapshot: bool,
    /// Attach a twin program that records the transitions for which the kernel skips the first one.
    pub twin: bool,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            mode: ModeChoice::Auto,
            buffer_bytes: None,
            cpus: None,
            poll_interval: DEFAULT_POLL_INTERVAL,
            only_netns: None,
            first_reads: true,
            snapshot: true,
            twin: true,
        }
    }
}

/// Why tracing could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Capabilities are missing.
    #[error(transparent)]
    Privileges(#[from] privileges::Missing),
    /// The requested mode does not work.
    #[error(transparent)]
    Mode(#[from] LoadError),
    /// No mode works.
    #[error("neither tracing mode works on this kernel: {btf}; {tracepoint}")]
    NoMode {
        /// The error of mode `btf`.
        btf: LoadError,
        /// The error of mode `tracepoint`.
        tracepoint: LoadError,
    },
    /// The reader could not be set up.
    #[error("cannot create the epoll instance that waits for records: {0}; raise the limit on open files")]
    Reader(io::Error),
}

/// Delivers the kernel's transitions as they happen.
pub struct KernelSource {
    loaded: Option<Loaded>,
    mode: Mode,
    fallback_reason: Option<LoadError>,
    buffer_bytes: u32,
    epoll: OwnedFd,
    stop: StopHandle,
    interval: Timespec,
    key: AddressKey,
    origin: Option<Origin>,
    counts: SourceCounts,
    /// Recognizes the twin program's duplicates; none without a twin.
    recent: Option<RecentTransitions>,
    /// When the first program was detached: what the twin records afterwards is not recovered from a skip.
    detached: Option<Timestamp>,
    /// The socket dump at the start, until it is delivered.
    existing: Option<Existing>,
    resync: Resync,
    coverage: Coverage,
    cgroups: Arc<CgroupCounters>,
    /// The last read left records behind.
    more: bool,
    problems: Vec<String>,
}

/// Interrupts the wait of a [`KernelSource`] from another thread.
#[derive(Debug)]
pub struct StopHandle(OwnedFd);

impl StopHandle {
    /// Makes the current and the next wait return at once.
    pub fn wake(&self) {
        // The only possible error is a full counter, which means that the reader has already been woken.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl KernelSource {
    /// Checks the privileges, loads and attaches the programs, and dumps the existing sockets.
    ///
    /// # Errors
    ///
    /// [`StartError`]: one sentence with the cause and the remedy.
    pub fn start(options: KernelOptions) -> Result<Self, StartError> {
        privileges::check()?;
        let cpus = options.cpus.unwrap_or_else(lanes::cpus);
        let load_options = LoadOptions {
            buffer_bytes: buffer_size(options.buffer_bytes.unwrap_or_else(|| default_buffer(cpus))),
            cpus,
            only_netns: options.only_netns,
            first_reads: options.first_reads,
            twin: options.twin,
        };
        let (mode, loaded, fallback_reason) = match options.mode {
            ModeChoice::Only(mode) => (mode, load::load(mode, load_options)?, None),
            ModeChoice::Auto => match load::load(Mode::Btf, load_options) {
                Ok(loaded) => (Mode::Btf, loaded, None),
                Err(btf) => match load::load(Mode::Tracepoint, load_options) {
                    Ok(loaded) => (Mode::Tracepoint, loaded, Some(btf)),
                    Err(tracepoint) => return Err(StartError::NoMode { btf, tracepoint }),
                },
            },
        };
        // After the programs are attached, so that no transition is missed between the dump and the first event.
        let mut existing = options.snapshot.then(existing);
        if let (Some(existing), Some(netns)) = (&mut existing, options.only_netns) {
            existing.sockets.retain(|socket| socket.netns == Some(netns));
            existing.channels.retain(|channel| channel.netns() == Some(netns));
        }
        let channels = existing.as_mut().map(|existing| std::mem::take(&mut existing.channels));
        let (epoll, stop) = reader(&loaded).map_err(|error| StartError::Reader(error.into()))?;
        let origin = origin(mode);
        let interval =
            Timespec::try_from(options.poll_interval).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 20_000_000 });
        let recent = matches!(loaded.twin, Twin::Attached).then(RecentTransitions::new);
        Ok(Self {
            loaded: Some(loaded),
            mode,
            fallback_reason,
            buffer_bytes: load_options.buffer_bytes,
            epoll,
            stop,
            interval,
            key: AddressKey::random(),
            cgroups: origin.resolver.counters(),
            origin: Some(origin),
            counts: SourceCounts { skipped: Some(0), ..SourceCounts::default() },
            recent,
            detached: None,
            problems: existing.iter().flat_map(|existing| existing.problems.clone()).collect(),
            coverage: existing.as_ref().map_or_else(Coverage::default, |existing| existing.coverage),
            existing,
            resync: Resync::through(channels.unwrap_or_default()),
            more: false,
        })
    }

    /// Returns the mode in use.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the size of the buffer for unread records, of all CPUs together, bytes.
    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Returns why the preferred mode is not in use; `None` if it is.
    pub fn fallback_reason(&self) -> Option<&LoadError> {
        self.fallback_reason.as_ref()
    }

    /// Returns a handle that interrupts the wait.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn stop_handle(&self) -> io::Result<StopHandle> {
        self.stop.0.try_clone().map(StopHandle)
    }

    /// Returns the optional hooks that could not be attached.
    pub fn refused_hooks(&self) -> &[RefusedHook] {
        self.loaded.as_ref().map_or(&[], |loaded| &loaded.refused)
    }

    /// Returns why no twin program is attached; none when it is, or when the options exclude it.
    pub fn refused_twin(&self) -> Option<&LoadError> {
        match &self.loaded.as_ref()?.twin {
            Twin::Refused(error) => Some(error),
            Twin::Attached | Twin::Unwanted => None,
        }
    }

    /// Returns what the dump of the existing sockets lacks, one sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Delivers the events up to `until`. Returns true if all of them were delivered.
    ///
    /// `dumped` is whether the socket dump of a resync was complete before `until`. The delivered events then include
    /// all that happened during the dump.
    fn drain(&mut self, until: Timestamp, dumped: bool, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Pass { more, complete } = match self.existing.take() {
            None => {
                let Self { loaded, key, counts, recent, detached, resync, .. } = self;
                read(loaded.as_mut(), *key, until, counts, recent.as_mut(), *detached, &mut |event| {
                    resync.event(event);
                    deliver(event);
                })
            }
            Some(existing) => self.begin_with(existing, until, deliver),
        };
        self.more = more;
        self.update_counts();
        if dumped && complete {
            self.counts.resyncs += u64::from(self.resync.finish(deliver));
        }
        complete
    }

    /// Delivers the existing sockets, then the events since tracing started.
    fn begin_with(&mut self, existing: Existing, until: Timestamp, deliver: &mut dyn FnMut(&Event)) -> Pass {
        let mut events = Vec::new();
        let Self { loaded, key, counts, recent, detached, .. } = self;
        let deliver_later = &mut |event: &Event| events.push(*event);
        let pass = read(loaded.as_mut(), *key, until, counts, recent.as_mut(), *detached, deliver_later);
        if !pass.complete {
            // Nothing was delivered, because no earlier pass was complete.
            self.existing = Some(existing);
            return pass;
        }
        for socket in reconcile(existing.sockets, &events) {
            deliver(&Event::Existing(socket));
        }
        deliver(&Event::DumpEnd { started: existing.started });
        for event in &events {
            deliver(event);
        }
        pass
    }

    fn update_counts(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            // Before the counters: the twin counts a transition after the kernel has counted the skip. So what is
            // skipped and not recovered is never overestimated, and the largest estimate is the best.
            let skipped = loaded.skipped.read();
            let kernel = loaded.counters.read();
            self.counts.lost = kernel.transitions_lost;
            self.counts.others_lost = kernel.others_lost;
            let recovered = kernel.twin_taken.saturating_sub(self.counts.duplicates);
            let before = self.counts.skipped.unwrap_or(0);
            self.counts.skipped = skipped.map(|skipped| skipped.saturating_sub(recovered).max(before));
        }
    }
}

impl Source for KernelSource {
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        // Records that are left do not wake the reader again.
        let timeout = if self.more { Timespec::default() } else { self.interval };
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let dumped = self.resync.is_done();
        // The time is taken before the read.
        let now = host::now();
        let complete = self.drain(now, dumped, deliver);
        if complete && !self.more {
            // Time passes without events, too.
            deliver(&Event::Time(now));
        }
        self.resync.begin_if_due(&self.counts, now);
        Ok(Polled::Drained)
    }

    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        if let Some(loaded) = &mut self.loaded {
            // In the order of attaching, the first program before its twin: no transition in between is missed.
            self.detached = Some(host::now());
            loaded.links.clear();
        }
        // The programs are detached, so all remaining records can be delivered in order.
        let everything = Timestamp::END;
        let dumped = self.resync.is_done();
        self.drain(everything, dumped, deliver);
        // Records that were written while the programs were being detached.
        self.drain(everything, false, deliver);
        deliver(&Event::Time(host::now()));
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        self.counts
    }

    fn coverage(&self) -> Coverage {
        self.coverage.with_cgroups(self.cgroups.counts())
    }

    fn run_time(&self) -> Option<Nanos> {
        self.loaded.as_ref()?.skipped.run_time()
    }

    fn origin(&mut self) -> Origin {
        self.origin.take().unwrap_or_else(|| origin(self.mode))
    }
}

/// Delivers the records up to `until`.
fn read(
    loaded: Option<&mut Loaded>,
    key: AddressKey,
    until: Timestamp,
    counts: &mut SourceCounts,
    mut recent: Option<&mut RecentTransitions>,
    detached: Option<Timestamp>,
    deliver: &mut dyn FnMut(&Event),
) -> Pass {
    let Some(loaded) = loaded else { return Pass::NOTHING };
    loaded.reading.pass(until, |bytes| {
        decode::event(bytes, key, |event| match event {
            Some(event) => {
                if let Event::Transition(transition) = event {
                    if let Some(recent) = &mut recent {
                        let by_twin = decode::is_by_twin(bytes);
                        if !recent.admit(transition, by_twin) {
                            counts.duplicates += 1;
                            return;
                        }
                        let skipped = by_twin && detached.is_none_or(|detached| transition.time < detached);
                        counts.recovered += u64::from(skipped);
                    }
                    counts.seen += 1;
                }
                deliver(event);
            }
            None => counts.malformed += 1,
        })
    })
}

/// Reads the properties of this host. Call it before the privileges are dropped.
fn origin(mode: Mode) -> Origin {
    Origin {
        clock: host::clock_offset(),
        time_wait: time_wait_model(),
        resolver: CgroupResolver::new(Duration::ZERO),
        host: HostNames::this(mode.name()),
    }
}

/// Creates an epoll instance that waits for records and for the stop handle.
///
/// It is edge-triggered, because a level-triggered wait would return at once while any record is pending: every
/// transition would cost a system call.
fn reader(loaded: &Loaded) -> rustix::io::Result<(OwnedFd, StopHandle)> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, loaded.reading.descriptor(), epoll::EventData::new_u64(0), edge)?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    epoll::add(&epoll, &stop, epoll::EventData::new_u64(1), edge)?;
    Ok((epoll, StopHandle(stop)))
}

fn default_buffer(cpus: u32) -> u32 {
    DEFAULT_BUFFER_BYTES.max(DEFAULT_BUFFER_BYTES_PER_CPU.saturating_mul(cpus))
}

/// Rounds up to a power of two of at least a page, which the kernel requires.
fn buffer_size(bytes: u32) -> u32 {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    bytes.max(page).checked_next_power_of_two().unwrap_or(1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_grows_with_the_cpus() {
        assert_eq!(default_buffer(1), 8 << 20);
        assert_eq!(default_buffer(16), 8 << 20);
        assert_eq!(buffer_size(default_buffer(96)), 64 << 20);
    }

    #[test]
    fn buffer_sizes_are_accepted_by_the_kernel() {
        assert_eq!(buffer_size(0), 4096);
        assert_eq!(buffer_size(4096), 4096);
        assert_eq!(buffer_size(5000), 8192);
        assert_eq!(buffer_size(u32::MAX), 1 << 31);
    }
}
