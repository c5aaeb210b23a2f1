//! Loading the programs and attaching them to the tracepoint.

use std::{borrow::Cow, env, fs, io, path::PathBuf};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, RingBuf},
    programs::{
        BtfTracePoint, FEntry, Program, ProgramError, RawTracePoint, TracePoint, fentry::FEntryLink,
        raw_trace_point::RawTracePointLink, tp_btf::BtfTracePointLink, trace_point::TracePointLink,
    },
};
use tracer_ebpf::{BitLayout, Config, CtxLayout, SocketLayout, Wire as _};

use super::{
    btf::{self, Btf, BtfError},
    counters::{MappedCounters, SkipCounter, tracepoint_skips_are_counted},
    lanes::{Division, Lanes},
    layout, mapping,
    reading::Reading,
    tracefs::{self, TracefsError},
};

/// The object built by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/tcptrace.bpf.o");
/// A path in this variable replaces the built-in object, to test one that was just built.
const OBJECT_VARIABLE: &str = "TCPTRACE_BPF_OBJECT";

const TRACEPOINT: (&str, &str) = ("sock", "inet_sock_set_state");

/// Which hook carries the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The tracepoint through BTF (`tp_btf`): the socket itself is at hand. Kernel 5.9 with BTF.
    Btf,
    /// The classic tracepoint: the record of tracefs. Kernel 5.8. The kernel skips it whenever it
    /// interrupts any other tracepoint or kprobe program on the same CPU.
    Tracepoint,
}

impl Mode {
    /// The name on the command line and in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Why a mode does not work here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no BTF, or it cannot be read.
    #[error("the kernel's type information at {path} cannot be read ({source}); mode btf needs a kernel built with CONFIG_DEBUG_INFO_BTF, `--mode tracepoint` works without", path = btf::VMLINUX)]
    NoBtf {
        /// Why.
        source: io::Error,
    },
    /// There is BTF that this program cannot read.
    #[error("the kernel's type information at {path} is not understood: {source}; try `--mode tracepoint`", path = btf::VMLINUX)]
    BadBtf {
        /// Why.
        source: BtfError,
    },
    /// A field is not where any known kernel has it.
    #[error(
        "this kernel's BTF has no field `{0}`, so mode btf cannot read its sockets; try `--mode tracepoint`"
    )]
    Field(&'static str),
    /// The tracepoint's layout is not known.
    #[error(transparent)]
    Tracefs(#[from] TracefsError),
    /// The replacement object named by the environment cannot be read.
    #[error("the eBPF object {path} named by {variable} cannot be read: {source}", variable = OBJECT_VARIABLE)]
    Object {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused the object or a map.
    #[error("the kernel refused the eBPF object: {reason}; a ring buffer needs kernel 5.8")]
    Refused {
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// The kernel refused the program.
    #[error("the kernel refused the eBPF program of mode {mode}: {reason}", mode = .mode.name())]
    Program {
        /// The mode.
        mode: Mode,
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// The kernel refused the twin program.
    #[error("the kernel refused the twin program of mode {mode}: {reason}", mode = .mode.name())]
    Twin {
        /// The mode.
        mode: Mode,
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// The kernel refused an additional hook.
    #[error("the kernel refused the program at {target}: {reason}", target = .hook.target())]
    Hook {
        /// Which.
        hook: Hook,
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// The counters or lanes cannot be read.
    #[error("what the programs write to cannot be mapped: {0}")]
    Mapping(io::Error),
}

/// Programs that are attached, and what they write to.
pub struct Loaded {
    /// Keeps the programs alive, so that they can still be asked what they skipped.
    pub ebpf: Ebpf,
    /// Keeps them attached; dropping a link detaches its program.
    pub links: Vec<AttachedLink>,
    /// Where the records come out.
    pub reading: Reading,
    /// What was lost.
    pub counters: MappedCounters,
    /// What was skipped of the first program.
    pub skipped: SkipCounter,
    /// Whether the twin program records what is skipped.
    pub twin: Twin,
    /// The hooks beside the transitions that this kernel refused.
    pub refused: Vec<RefusedHook>,
}

/// The program that is attached behind the first one and records the transitions for which the kernel skips that.
#[derive(Debug)]
pub enum Twin {
    /// It is attached.
    Attached,
    /// It was not asked for.
    Unwanted,
    /// This kernel or these privileges refuse it.
    Refused(LoadError),
}

/// A hook that makes the picture fuller, and that this kernel or these privileges refuse.
#[derive(Debug)]
pub struct RefusedHook {
    /// Which.
    pub hook: Hook,
    /// Why.
    pub error: LoadError,
}

/// The hooks beside the transitions. Each is tried; each missing one costs one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `tcp:tcp_retransmit_synack`
    SynAckRetransmit,
    /// `tcp:tcp_rcv_space_adjust`
    FirstRead,
    /// `inet_twsk_kill`
    TimeWaitEnd,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 3] = [Self::SynAckRetransmit, Self::FirstRead, Self::TimeWaitEnd];

    /// The tracepoint or function it is attached to.
    pub const fn target(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "tcp_retransmit_synack",
            Self::FirstRead => "tcp_rcv_space_adjust",
            Self::TimeWaitEnd => "inet_twsk_kill",
        }
    }

    /// What its absence costs.
    pub const fn cost(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "abandoned server handshakes are not counted",
            Self::FirstRead => "an accepted connection keeps its listener's owner until it is closed",
            Self::TimeWaitEnd => "the end of TIME_WAIT is modelled (60 s), not observed",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "syn_ack_retransmit",
            Self::FirstRead => "first_read",
            Self::TimeWaitEnd => "time_wait_end",
        }
    }
}

/// A program's hold on its hook.
#[derive(Debug)]
pub enum AttachedLink {
    /// Of a `tp_btf` program.
    Btf(BtfTracePointLink),
    /// Of a classic tracepoint program.
    Tracepoint(TracePointLink),
    /// Of a raw tracepoint program.
    RawTracepoint(RawTracePointLink),
    /// Of a program at a function's entry.
    Entry(FEntryLink),
}

/// What the loader is asked for.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Bytes for records that are not read yet, a power of two of at least a page; [`Division`] says of what.
    pub buffer_bytes: u32,
    /// CPUs with lanes.
    pub cpus: u32,
    /// Only sockets of this network namespace.
    pub only_netns: Option<u32>,
    /// Report who first reads from an accepted connection.
    pub first_reads: bool,
    /// Attach the twin program.
    pub twin: bool,
}

/// Loads and attaches the program of `mode`.
///
/// # Errors
///
/// Why the mode does not work on this kernel or with these privileges.
pub fn load(mode: Mode, options: LoadOptions) -> Result<Loaded, LoadError> {
    let loaded = load_with(mode, options);
    give_memory_back();
    loaded
}

/// The kernel's types took some 20 MB while they were read; the C library would keep that for later.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn load_with(mode: Mode, options: LoadOptions) -> Result<Loaded, LoadError> {
    match mode {
        Mode::Btf => load_btf(options),
        // A scratch thread, because mounting tracefs gives the thread a mount namespace of its own.
        Mode::Tracepoint => std::thread::scope(|scope| {
            scope
                .spawn(|| tracefs::with_tracefs(|| load_tracepoint(options))?)
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
    }
}

/// Reads the kernel's BTF.
///
/// # Errors
///
/// When there is none or it is not understood.
pub fn read_btf() -> Result<Btf, LoadError> {
    let bytes = fs::read(btf::VMLINUX).map_err(|source| LoadError::NoBtf { source })?;
    Btf::parse(bytes).map_err(|source| LoadError::BadBtf { source })
}

fn load_btf(options: LoadOptions) -> Result<Loaded, LoadError> {
    let layouts = {
        let types = read_btf()?;
        let socket = layout::socket_layout(&types).map_err(LoadError::Field)?;
        (socket, layout::bit_layout(&types))
    };
    let config = config(CtxLayout::ABSENT, layouts, options);
    // Kernels before 5.12 do not generate cookies in these programs, and those before 5.11 lack the typed current task;
    // nothing but trying tells.
    let features = |typed_task, socket_cookies| Config { typed_task, socket_cookies, ..config };
    load_btf_with(&features(1, 1), options)
        .or_else(|_| load_btf_with(&features(1, 0), options))
        .or_else(|_| load_btf_with(&features(0, 0), options))
}

fn load_btf_with(config: &Config, options: LoadOptions) -> Result<Loaded, LoadError> {
    let (mut ebpf, reading) = load_object(config, options)?;
    let refused =
        |error: ProgramError| LoadError::Program { mode: Mode::Btf, reason: program_reason(&error) };
    let types = AyaBtf::from_sys_fs().map_err(|error| refused(error.into()))?;
    let program: &mut BtfTracePoint = program(&mut ebpf, "transition_btf")?;
    program.load(TRACEPOINT.1, &types).map_err(refused)?;
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
    let skipped = SkipCounter::open(program.fd().map_err(refused)?, true).map_err(LoadError::Mapping)?;
    let mut loaded = finish(ebpf, reading, AttachedLink::Btf(link), skipped)?;
    if options.twin {
        let attached = attach_btf_twin(&mut loaded.ebpf, &types);
        add_twin(&mut loaded, attached);
    }
    for hook in Hook::ALL {
        if hook == Hook::FirstRead && !options.first_reads {
            continue;
        }
        match attach_hook(&mut loaded.ebpf, hook, &types) {
            Ok(link) => loaded.links.push(link),
            Err(error) => loaded.refused.push(RefusedHook { hook, error }),
        }
    }
    Ok(loaded)
}

/// Attaches the twin program of mode btf. The kernel calls the programs of a tracepoint in the order in which they were
/// attached, so the first program must be attached already.
fn attach_btf_twin(ebpf: &mut Ebpf, types: &AyaBtf) -> Result<AttachedLink, LoadError> {
    let refused = |error: ProgramError| LoadError::Twin { mode: Mode::Btf, reason: program_reason(&error) };
    let program: &mut BtfTracePoint = program(ebpf, "transition_btf_twin")?;
    program.load(TRACEPOINT.1, types).map_err(refused)?;
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
    Ok(AttachedLink::Btf(link))
}

/// Attaches the twin program of mode tracepoint, likewise after the first program.
fn attach_tracepoint_twin(ebpf: &mut Ebpf) -> Result<AttachedLink, LoadError> {
    let refused =
        |error: ProgramError| LoadError::Twin { mode: Mode::Tracepoint, reason: program_reason(&error) };
    let program: &mut RawTracePoint = program(ebpf, "transition_tracepoint_twin")?;
    program.load().map_err(refused)?;
    let link = program.attach(TRACEPOINT.1).and_then(|id| program.take_link(id)).map_err(refused)?;
    Ok(AttachedLink::RawTracepoint(link))
}

fn add_twin(loaded: &mut Loaded, attached: Result<AttachedLink, LoadError>) {
    loaded.twin = match attached {
        Ok(link) => {
            loaded.links.push(link);
            Twin::Attached
        }
        Err(error) => Twin::Refused(error),
    };
}

fn attach_hook(ebpf: &mut Ebpf, hook: Hook, types: &AyaBtf) -> Result<AttachedLink, LoadError> {
    let refused = |error: ProgramError| LoadError::Hook { hook, reason: program_reason(&error) };
    match hook {
        Hook::SynAckRetransmit | Hook::FirstRead => {
            let program: &mut BtfTracePoint = program(ebpf, hook.program())?;
            program.load(hook.target(), types).map_err(refused)?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(AttachedLink::Btf(link))
        }
        Hook::TimeWaitEnd => {
            let program: &mut FEntry = program(ebpf, hook.program())?;
            program.load(hook.target(), types).map_err(refused)?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(AttachedLink::Entry(link))
        }
    }
}

fn load_tracepoint(options: LoadOptions) -> Result<Loaded, LoadError> {
    let ctx = tracefs::record_layout()?;
    // With BTF the program also reads the socket; without, the tracepoint's own record must do.
    let types = read_btf();
    let layout = types
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|types| layout::socket_layout(types).map_err(|field| LoadError::Field(field).to_string()));
    let socket = *layout.as_ref().unwrap_or(&SocketLayout::ABSENT);
    let bits = types.as_ref().map_or(BitLayout::ABSENT, layout::bit_layout);
    // The hooks beside the transitions need typed arguments, which only mode btf has.
    let options = LoadOptions { first_reads: false, ..options };
    let (mut ebpf, reading) = load_object(&config(ctx, (socket, bits), options), options)?;
    let refused =
        |error: ProgramError| LoadError::Program { mode: Mode::Tracepoint, reason: program_reason(&error) };
    let program: &mut TracePoint = program(&mut ebpf, "transition_tracepoint")?;
    program.load().map_err(refused)?;
    let link =
        program.attach(TRACEPOINT.0, TRACEPOINT.1).and_then(|id| program.take_link(id)).map_err(refused)?;
    // Without types there is no telling.
    let counts = types.as_ref().is_ok_and(tracepoint_skips_are_counted);
    let skipped = SkipCounter::open(program.fd().map_err(refused)?, counts).map_err(LoadError::Mapping)?;
    let mut loaded = finish(ebpf, reading, AttachedLink::Tracepoint(link), skipped)?;
    if options.twin {
        // It has no record to read: it must know where a socket's fields are.
        let attached = match layout {
            Ok(_) => attach_tracepoint_twin(&mut loaded.ebpf),
            Err(reason) => Err(LoadError::Twin { mode: Mode::Tracepoint, reason }),
        };
        add_twin(&mut loaded, attached);
    }
    Ok(loaded)
}

/// All but what depends on the size of the ring, without the features that may be missing.
fn config(ctx: CtxLayout, (socket, bits): (SocketLayout, BitLayout), options: LoadOptions) -> Config {
    Config {
        ctx,
        socket,
        bits,
        wakeup_bytes: 0,
        only_netns: options.only_netns.unwrap_or(0),
        typed_task: 0,
        first_reads: u32::from(options.first_reads),
        socket_cookies: 0,
    }
}

/// Creates the maps, and prepares what the programs write to before they are loaded.
fn load_object(config: &Config, options: LoadOptions) -> Result<(Ebpf, Reading), LoadError> {
    raise_locked_memory_limit();
    let division = Division::of(options.buffer_bytes, options.cpus);
    // The reader is woken at each quarter of a buffer; it looks by itself in between.
    let config = Config { wakeup_bytes: division.ring / 4, ..*config };
    let mut ebpf = EbpfLoader::new()
        .override_global("CONFIG", config.as_bytes(), true)
        .map_max_entries("LANES", division.lanes())
        .map_max_entries("CHUNKS", division.chunks())
        .map_max_entries("RING", division.ring)
        .load(&object()?)
        .map_err(|error| LoadError::Refused { reason: object_reason(&error) })?;
    let lanes = Lanes::new(&ebpf, &division).map_err(LoadError::Mapping)?;
    let missing = || LoadError::Refused { reason: "it has no usable map `RING`".to_owned() };
    let ring = ebpf.take_map("RING").ok_or_else(missing)?;
    let ring = RingBuf::try_from(ring).map_err(|error| LoadError::Refused { reason: error.to_string() })?;
    let reading = Reading::new(lanes, ring, division.ring).map_err(LoadError::Mapping)?;
    Ok((ebpf, reading))
}

fn object() -> Result<Cow<'static, [u8]>, LoadError> {
    match env::var_os(OBJECT_VARIABLE) {
        None => Ok(Cow::Borrowed(OBJECT)),
        Some(path) => {
            let path = PathBuf::from(path);
            fs::read(&path).map(Cow::Owned).map_err(|source| LoadError::Object { path, source })
        }
    }
}

/// Kernels before 5.11 charge maps to the locked-memory limit. Where raising it is not allowed, the
/// kernel's own refusal of the map says what is wrong.
fn raise_locked_memory_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let wrong_object = || LoadError::Refused { reason: format!("it has no program `{name}`") };
    let program = ebpf.program_mut(name).ok_or_else(wrong_object)?;
    <&mut P>::try_from(program).map_err(|_| wrong_object())
}

fn finish(
    ebpf: Ebpf,
    reading: Reading,
    link: AttachedLink,
    skipped: SkipCounter,
) -> Result<Loaded, LoadError> {
    let counters =
        mapping::array(&ebpf, "COUNTERS").and_then(MappedCounters::new).map_err(LoadError::Mapping)?;
    Ok(Loaded { ebpf, links: vec![link], reading, counters, skipped, twin: Twin::Unwanted, refused: Vec::new() })
}

/// The kernel's reason without the verifier's listing, which is many pages.
fn program_reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            // Behind the reason stand statistics, in front of it a listing of the program.
            let statistics = ["processed ", "verification time", "stack depth"];
            let last = log
                .lines()
                .rev()
                .map(str::trim)
                .find(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)));
            last.map_or_else(|| io_error.to_string(), |line| format!("{io_error}: {line}"))
        }
        ProgramError::SyscallError(error) => format!("{} failed: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}

fn object_reason(error: &EbpfError) -> String {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error, .. }) => {
            format!("map {name} could not be created: {io_error}")
        }
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
