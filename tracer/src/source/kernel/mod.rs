//! The live kernel as a source: capabilities, probing, loading, attaching, reading what the programs write.

pub mod btf;
pub mod counters;
pub mod decode;
mod heal;
pub mod host;
pub mod lanes;
pub mod layout;
pub mod load;
pub mod mapping;
pub mod privileges;
pub mod probe;
pub mod reading;
pub mod tracefs;
pub mod twin;

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    time::Timespec,
};

pub use self::load::{Hook, LoadError, Mode, RefusedHook};
use self::{
    decode::AddressKey,
    heal::Healing,
    load::{LoadOptions, Loaded, Twin},
    reading::Pass,
    twin::RecentTransitions,
};
use super::{
    ClockOffset, Host, Origin, Polled, Source,
    snapshot::{Existing, existing, reconcile},
};
use crate::{
    event::{Event, SourceCounts, Timestamp},
    owner::Attribution,
};

/// Memory for records that are not read yet, of all CPUs together, unless told otherwise.
///
/// A transition takes 64 to 192 bytes, some 100 on average, and half of the memory is for them: with two CPUs some 21,000 of
/// each, 75 ms of the busiest churn measured, nearly four times the interval between looks.
pub const DEFAULT_BUFFER_BYTES: u32 = 8 << 20;
/// What each CPU has at least, unless told otherwise.
pub const DEFAULT_BUFFER_BYTES_PER_CPU: u32 = 512 << 10;
/// How long transitions may wait in the buffer unless told otherwise.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Which modes may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// The best that works.
    #[default]
    Auto,
    /// This one or none.
    Only(Mode),
}

/// How to trace.
#[derive(Clone, Copy, Debug)]
pub struct KernelOptions {
    /// Which modes may be used.
    pub mode: ModeChoice,
    /// Memory for records that are not read yet, of all CPUs together, bytes; rounded up to a power of two of at least
    /// a page, and no less than a page for each kind of record on each CPU. None for the default.
    pub buffer_bytes: Option<u32>,
    /// How many CPUs, from the first, get lanes of their own; the ring takes what happens on others. None for all up to
    /// the last that is present.
    pub cpus: Option<u32>,
    /// How long to wait between looks at what was written; the programs wake the reader by themselves when a quarter
    /// of a lane, or of the ring, is full.
    pub poll_interval: Duration,
    /// Only sockets of the network namespace with this inode; decided in the kernel.
    pub only_netns: Option<u32>,
    /// Learn who first reads from an accepted connection.
    pub first_reads: bool,
    /// Begin with the sockets that exist already.
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
    /// Capabilities are lacking.
    #[error(transparent)]
    Privileges(#[from] privileges::Missing),
    /// The mode asked for does not work.
    #[error(transparent)]
    Mode(#[from] LoadError),
    /// No mode works.
    #[error("no way to trace works on this kernel: {btf}; {tracepoint}")]
    NoMode {
        /// Why mode `btf` does not.
        btf: LoadError,
        /// Why mode `tracepoint` does not.
        tracepoint: LoadError,
    },
    /// The reader could not be set up.
    #[error("what waits for the programs could not be set up: {0}")]
    Reader(io::Error),
}

/// The kernel's transitions, as they happen.
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
    /// To recognise the twin program's duplicates; none without a twin.
    recent: Option<RecentTransitions>,
    /// When the first program was detached: what the twin records from then on is not recovered from a skip.
    detached: Option<Timestamp>,
    /// The look at what existed when tracing began, until it is told.
    existing: Option<Existing>,
    healing: Healing,
    /// Not everything was read the last time.
    more: bool,
    problems: Vec<String>,
}

/// Interrupts the wait of a [`KernelSource`] from another thread.
#[derive(Debug)]
pub struct StopHandle(OwnedFd);

impl StopHandle {
    /// Makes the current and the next wait return at once.
    pub fn wake(&self) {
        // A full counter, the only error possible, means that it is awake already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl KernelSource {
    /// Checks privileges, loads and attaches the programs.
    ///
    /// # Errors
    ///
    /// [`StartError`], one sentence with the cause and the remedy.
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
        // After attaching, so that nothing can happen between the look and the first event.
        let mut existing = options.snapshot.then(existing);
        if let (Some(existing), Some(netns)) = (&mut existing, options.only_netns) {
            existing.sockets.retain(|socket| socket.netns == Some(netns));
            existing.channels.retain(|channel| channel.netns() == Some(netns));
        }
        let channels = existing.as_mut().map(|existing| std::mem::take(&mut existing.channels));
        let (epoll, stop) = reader(&loaded).map_err(|error| StartError::Reader(error.into()))?;
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
            origin: Some(origin(mode)),
            counts: SourceCounts { skipped: Some(0), ..SourceCounts::default() },
            recent,
            detached: None,
            problems: existing.iter().flat_map(|existing| existing.problems.clone()).collect(),
            existing,
            healing: Healing::through(channels.unwrap_or_default()),
            more: false,
        })
    }

    /// The mode in use.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Memory for records that are not read yet, of all CPUs together, bytes.
    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Why the preferred mode is not in use, when it is not.
    pub fn fallback_reason(&self) -> Option<&LoadError> {
        self.fallback_reason.as_ref()
    }

    /// A handle that interrupts the wait.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn stop_handle(&self) -> io::Result<StopHandle> {
        self.stop.0.try_clone().map(StopHandle)
    }

    /// The hooks beside the transitions that do not work here.
    pub fn refused_hooks(&self) -> &[RefusedHook] {
        self.loaded.as_ref().map_or(&[], |loaded| &loaded.refused)
    }

    /// Why no twin program is attached; none when it is, or was not asked for.
    pub fn refused_twin(&self) -> Option<&LoadError> {
        match &self.loaded.as_ref()?.twin {
            Twin::Refused(error) => Some(error),
            Twin::Attached | Twin::Unwanted => None,
        }
    }

    /// What the look at the existing sockets could not look into, one sentence each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Delivers what has happened up to a moment.
    ///
    /// `looked` is whether a look at the host had been taken before that moment: all that happened meanwhile is then
    /// among what is delivered.
    ///
    /// True when it was all of that.
    fn drain(&mut self, until: Timestamp, looked: bool, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Pass { more, complete } = match self.existing.take() {
            None => {
                let Self { loaded, key, counts, recent, detached, healing, .. } = self;
                read(loaded.as_mut(), *key, until, counts, recent.as_mut(), *detached, &mut |event| {
                    healing.event(event);
                    deliver(event);
                })
            }
            Some(existing) => self.begin_with(existing, until, deliver),
        };
        self.more = more;
        self.update_counts();
        if looked && complete {
            self.counts.renewed += u64::from(self.healing.finish(deliver));
        }
        complete
    }

    /// Tells what existed, then what happened since tracing began.
    fn begin_with(&mut self, existing: Existing, until: Timestamp, deliver: &mut dyn FnMut(&Event)) -> Pass {
        let mut events = Vec::new();
        let Self { loaded, key, counts, recent, detached, .. } = self;
        let deliver_later = &mut |event: &Event| events.push(*event);
        let pass = read(loaded.as_mut(), *key, until, counts, recent.as_mut(), *detached, deliver_later);
        if !pass.complete {
            // Nothing was delivered: there was no complete pass before this.
            self.existing = Some(existing);
            return pass;
        }
        for socket in reconcile(existing.sockets, &events) {
            deliver(&Event::Existing(socket));
        }
        deliver(&Event::SnapshotEnd { started: existing.started });
        for event in &events {
            deliver(event);
        }
        pass
    }

    fn update_counts(&mut self) {
        if let Some(loaded) = &mut self.loaded {
            // Before the counters: the twin counts a transition after the kernel has counted the skip. So what is skipped
            // and not recovered is never overestimated, and the largest estimate is the best.
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
        // What is left does not wake anybody again.
        let patience = if self.more { Timespec::default() } else { self.interval };
        match epoll::wait(&self.epoll, &mut events, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let looked = self.healing.is_done();
        // Before it is asked what there is.
        let now = Timestamp::now();
        let complete = self.drain(now, looked, deliver);
        if complete && !self.more {
            // A quiet host lets time pass, too.
            deliver(&Event::Time(now));
        }
        self.healing.begin_if_due(&self.counts, now);
        Ok(Polled::Drained)
    }

    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        if let Some(loaded) = &mut self.loaded {
            // In the order of attaching, the first program before its twin: no transition in between is missed.
            self.detached = Some(Timestamp::now());
            loaded.links.clear();
        }
        // Detached, so that nothing younger can come whose past is not there.
        let everything = Timestamp::END;
        let looked = self.healing.is_done();
        self.drain(everything, looked, deliver);
        // Written while the programs were being detached.
        self.drain(everything, false, deliver);
        deliver(&Event::Time(Timestamp::now()));
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        self.counts
    }

    fn run_time_ns(&self) -> Option<u64> {
        self.loaded.as_ref()?.skipped.run_time_ns()
    }

    fn origin(&mut self) -> Origin {
        self.origin.take().unwrap_or_else(|| origin(self.mode))
    }
}

/// Delivers what there is up to a moment.
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

/// This host, looked at while the privileges are there.
fn origin(mode: Mode) -> Origin {
    Origin {
        clock: ClockOffset::measure(),
        time_wait: host::time_wait_model(),
        attribution: Attribution::new(Duration::ZERO),
        host: Host::this(mode.name()),
    }
}

/// Waits on both the programs and the stop handle.
///
/// Edge-triggered: a level-triggered wait would return at once whenever anything is pending, and every
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

/// The kernel wants a power of two, at least a page.
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
    fn buffer_sizes_are_what_the_kernel_accepts() {
        assert_eq!(buffer_size(0), 4096);
        assert_eq!(buffer_size(4096), 4096);
        assert_eq!(buffer_size(5000), 8192);
        assert_eq!(buffer_size(u32::MAX), 1 << 31);
    }
}
