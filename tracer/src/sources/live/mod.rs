//! The live kernel source: checks capabilities, loads and attaches the programs, and reads their records.

pub mod btf;
mod buffer;
mod counters;
pub mod decode;
mod first_dump;
pub mod hooks;
pub mod lanes;
mod layout;
pub mod load;
mod mapping;
pub(crate) mod privileges;
pub(crate) mod probe;
mod reading;
pub mod reasons;
mod resync;
mod stream;
pub mod tracefs;
mod twin;

pub use crate::sources::live::{
    buffer::{DEFAULT_BUFFER_BYTES_PER_CPU, DEFAULT_BUFFER_MAX, DEFAULT_BUFFER_MIN, DEFAULT_BUFFER_SHARE},
    hooks::{Hook, Hooks, RefusedHook},
    load::{LoadError, Mode},
    stream::StopHandle,
};

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tracer_core::event::{Event, Nanos, Netns, SourceCounts, Timestamp, Translated};

use crate::{
    host::{self, CgroupCounters, CgroupResolver, HostNames, time_wait_model},
    sources::{
        Coverage, Origin, Polled, Source,
        conntrack::{ConntrackError, Subscription, Translation},
        live::{
            buffer::{buffer_size, default_buffer},
            first_dump::{MAX_EARLY, dump_and_read},
            load::{LoadOptions, Twin},
            resync::Resync,
            stream::Stream,
        },
        sock_diag::{Existing, own_namespace, reconcile},
    },
};

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
#[derive(Clone, Debug)]
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
    /// The optional hooks to attach.
    pub hooks: Hooks,
    /// Start with a dump of the existing sockets.
    pub snapshot: bool,
    /// Attach a twin program that records the transitions for which the kernel skips the first one.
    pub twin: bool,
    /// Report the translations of this network namespace.
    pub backends: bool,
    /// The root directory below which the names of containers and pods are searched.
    pub host_root: PathBuf,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            mode: ModeChoice::Auto,
            buffer_bytes: None,
            cpus: None,
            poll_interval: DEFAULT_POLL_INTERVAL,
            only_netns: None,
            hooks: Hooks::ALL,
            snapshot: true,
            twin: true,
            backends: false,
            host_root: PathBuf::from("/"),
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
    /// Translations cannot be reported.
    #[error("the backends of translated addresses cannot be named: {0}")]
    Backends(ConntrackError),
    /// The reader could not be set up.
    #[error("cannot wait for records: {0}; if file descriptors ran out, raise the limit on open files")]
    Reader(io::Error),
}

/// Delivers the kernel's transitions as they happen.
pub struct KernelSource {
    stream: Stream,
    mode: Mode,
    fallback_reason: Option<LoadError>,
    buffer_bytes: u32,
    origin: Option<Origin>,
    /// The socket dump at the start, until it is delivered.
    existing: Option<Existing>,
    /// The events that were read during the dump.
    early: Vec<Event>,
    resync: Resync,
    coverage: Coverage,
    cgroups: Arc<CgroupCounters>,
    problems: Vec<String>,
    /// The translations, if they are wanted.
    translations: Option<Translations>,
    host_root: PathBuf,
}

/// The translations of the network namespace of this process.
struct Translations {
    netns: Option<Netns>,
    /// Those that existed at the start, until they are delivered.
    existing: Vec<Translation>,
    new: Subscription,
}

impl Translations {
    /// Subscribes to new translations, then dumps the existing ones if they are wanted.
    fn open(dump: bool) -> Result<Self, StartError> {
        let mut new = Subscription::open().map_err(StartError::Backends)?;
        let existing = if dump { new.existing().map_err(StartError::Backends)? } else { Vec::new() };
        Ok(Self { netns: own_namespace(), existing, new })
    }

    /// Delivers the translations that were announced so far.
    fn drain(&mut self, now: Timestamp, deliver: &mut dyn FnMut(&Event)) {
        let Self { netns, existing, new } = self;
        let mut translated = |Translation { client, service, backend }| {
            let event = Translated { time: now, client, service, backend, netns: *netns };
            deliver(&Event::Translated(event));
        };
        for translation in host::take_and_free(std::mem::take(existing)) {
            translated(translation);
        }
        new.drain(&mut translated);
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
        // Before the programs, because a long dump would let their buffer fill.
        let translations = options.backends.then(|| Translations::open(options.snapshot)).transpose()?;
        let cpus = options.cpus.unwrap_or_else(lanes::cpus);
        let load_options = LoadOptions {
            buffer_bytes: buffer_size(
                options.buffer_bytes.unwrap_or_else(|| default_buffer(cpus, host::memory_bytes())),
            ),
            cpus,
            only_netns: options.only_netns,
            hooks: options.hooks,
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
        let mut stream =
            Stream::new(loaded, options.poll_interval).map_err(|error| StartError::Reader(error.into()))?;
        // After the programs are attached, so that no transition is missed between the dump and the first event.
        let (mut existing, early) = if options.snapshot {
            let (existing, early) = dump_and_read(&mut stream).map_err(StartError::Reader)?;
            (Some(existing), early)
        } else {
            (None, Vec::new())
        };
        if let (Some(existing), Some(netns)) = (&mut existing, options.only_netns) {
            existing.sockets.retain(|socket| socket.netns == Some(netns));
            existing.timewait.retain(|socket| socket.netns == Some(netns));
            existing.channels.retain(|channel| channel.netns() == Some(netns));
        }
        let channels = existing.as_mut().map(|existing| std::mem::take(&mut existing.channels));
        let origin = origin(mode, &stream.loaded().attached, &options.host_root);
        Ok(Self {
            stream,
            mode,
            fallback_reason,
            buffer_bytes: load_options.buffer_bytes,
            cgroups: origin.resolver.counters(),
            origin: Some(origin),
            problems: existing.iter().flat_map(|existing| existing.problems.clone()).collect(),
            host_root: options.host_root,
            coverage: existing.as_ref().map_or_else(Coverage::default, |existing| existing.coverage),
            existing,
            early,
            resync: Resync::through(channels.unwrap_or_default()),
            translations,
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
        self.stream.stop_handle()
    }

    /// Returns the optional hooks that could not be attached.
    pub fn refused_hooks(&self) -> &[RefusedHook] {
        &self.stream.loaded().refused
    }

    /// Returns whether retransmitted SYN-ACKs are traced, and with them abandoned handshakes.
    pub fn traces_syn_ack_retransmits(&self) -> bool {
        self.stream.loaded().attached.iter().any(|(hook, _)| *hook == Hook::SynAckRetransmit)
    }

    /// Returns why no twin program is attached; none when it is, or when the options exclude it.
    pub fn refused_twin(&self) -> Option<&LoadError> {
        match &self.stream.loaded().twin {
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
        // Conntrack announces an entry before the SYN is sent, so what ends a handshake until now has been announced.
        if let Some(translations) = &mut self.translations {
            translations.drain(until.min(host::now()), deliver);
        }
        let complete = match self.existing.take() {
            None => {
                let Self { stream, resync, .. } = self;
                stream.read(until, &mut |event| {
                    resync.event(event);
                    deliver(event);
                })
            }
            Some(existing) => self.begin_with(existing, until, deliver),
        };
        if dumped && complete && self.resync.finish(deliver) {
            self.stream.count_resync();
        }
        complete
    }

    /// Delivers the existing sockets, then the events since tracing started.
    fn begin_with(&mut self, existing: Existing, until: Timestamp, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Self { stream, early, .. } = self;
        let complete = stream.read(until, &mut |event| early.push(*event));
        // A record that is still being written may concern a dumped socket. With too many events it is not waited for.
        if !complete && early.len() < MAX_EARLY {
            self.existing = Some(existing);
            return complete;
        }
        let events = std::mem::take(early);
        let (sockets, timewait) = reconcile(existing.sockets, existing.timewait, &events);
        for socket in host::take_and_free(sockets) {
            deliver(&Event::Existing(socket));
        }
        for socket in timewait {
            deliver(&Event::ExistingTimewait(socket));
        }
        deliver(&Event::DumpEnd { started: existing.started, timewait: true });
        for event in &events {
            deliver(event);
        }
        complete
    }
}

impl Source for KernelSource {
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled> {
        self.stream.wait()?;
        let dumped = self.resync.is_done();
        // The time is taken before the read.
        let now = host::now();
        let complete = self.drain(now, dumped, deliver);
        if complete && !self.stream.has_more() {
            // Time passes without events, too.
            deliver(&Event::Time(now));
        }
        // Until the first dump is delivered, its events would not reach a second one.
        if self.existing.is_none() {
            self.resync.begin_if_due(&self.stream.counts(), now);
        }
        Ok(Polled::Drained)
    }

    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        // The programs are detached, so all remaining records can be delivered in order.
        self.stream.detach();
        let everything = Timestamp::END;
        let dumped = self.resync.is_done();
        self.drain(everything, dumped, deliver);
        // Records that were written while the programs were being detached.
        self.drain(everything, false, deliver);
        deliver(&Event::Time(host::now()));
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        self.stream.counts()
    }

    fn coverage(&self) -> Coverage {
        let conntrack_overruns = self.translations.as_ref().map_or(0, |it| it.new.overruns());
        Coverage { conntrack_overruns, ..self.coverage.with_cgroups(self.cgroups.counts()) }
    }

    fn run_time(&self) -> Option<Nanos> {
        self.stream.run_time()
    }

    fn origin(&mut self) -> Origin {
        self.origin
            .take()
            .unwrap_or_else(|| origin(self.mode, &self.stream.loaded().attached, &self.host_root))
    }
}

/// Reads the properties of this host. Call it before the privileges are dropped.
fn origin(mode: Mode, hooks: &[(Hook, &str)], host_root: &Path) -> Origin {
    Origin {
        clock: host::clock_offset(),
        time_wait: time_wait_model(),
        resolver: CgroupResolver::new(host_root, Duration::ZERO),
        host: HostNames::this(mode.name(), &hooks.iter().map(|(hook, _)| hook.name()).collect::<Vec<_>>()),
    }
}
