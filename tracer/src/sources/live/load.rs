//! Loads the programs and attaches them to their hooks.

use std::{borrow::Cow, env, fs, io, path::PathBuf};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, RingBuf},
    programs::{
        BtfTracePoint, FEntry, FExit, Program, ProgramError, RawTracePoint, TracePoint, fentry::FEntryLink,
        fexit::FExitLink, raw_trace_point::RawTracePointLink, tp_btf::BtfTracePointLink,
        trace_point::TracePointLink,
    },
};
use tracer_core::event::Netns;
use tracer_ebpf::{ArgumentCounts, BitLayout, Config, CtxLayout, SocketLayout, Wire as _, first_use};

use crate::sources::live::{
    btf::{self, Btf, BtfError},
    counters::{MappedCounters, SkipCounter, tracepoint_skips_are_counted},
    hooks::{Hook, HookKind, Hooks, Place, RefusedHook},
    lanes::{Division, Lanes},
    layout, mapping,
    reading::Reading,
    reasons::Reasons,
    tracefs::{self, TracefsError},
};

/// The object built by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/tcptrace.bpf.o");
/// The environment variable with the path of an object that replaces the built-in one, for tests.
const OBJECT_VARIABLE: &str = "TCPTRACE_BPF_OBJECT";

const TRACEPOINT: (&str, &str) = ("sock", "inet_sock_set_state");

/// The hook for transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The tracepoint with BTF (`tp_btf`), which gives access to the socket. Kernel 5.9 with BTF.
    Btf,
    /// The classic tracepoint with its tracefs record. Kernel 5.8. The kernel skips the program when it interrupts
    /// another tracepoint or kprobe program on the same CPU.
    Tracepoint,
}

impl Mode {
    /// Returns the name on the command line and in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Why a mode does not work.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel's BTF is missing or unreadable.
    #[error("cannot read the kernel's BTF {path}: {source}; use a kernel with CONFIG_DEBUG_INFO_BTF, or `--mode tracepoint`", path = btf::VMLINUX)]
    NoBtf {
        /// The cause.
        source: io::Error,
    },
    /// The kernel's BTF cannot be parsed.
    #[error("cannot parse the kernel's BTF {path}: {source}; try `--mode tracepoint`", path = btf::VMLINUX)]
    BadBtf {
        /// The cause.
        source: BtfError,
    },
    /// A required field is missing in the BTF.
    #[error("mode btf does not work because this kernel's BTF has no field `{0}`; try `--mode tracepoint`")]
    Field(&'static str),
    /// The layout of the tracepoint could not be read.
    #[error(transparent)]
    Tracefs(#[from] TracefsError),
    /// The replacement object cannot be read.
    #[error("cannot read the eBPF object {path}: {source}; correct or unset {variable}", variable = OBJECT_VARIABLE)]
    Object {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refused the object or a map.
    #[error("the kernel refused the eBPF object: {reason}; use kernel 5.8 or later, which has ring buffers")]
    Refused {
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// Something between this process and the kernel forbids eBPF: a seccomp filter, an LSM or the kernel's lockdown.
    #[error(
        "eBPF is not permitted here: {reason}; the capabilities are there, so a sandbox forbids it: allow the system call \
         bpf in the seccomp filter of the container or unit, and check AppArmor, SELinux and kernel lockdown"
    )]
    Forbidden {
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// The kernel refused the program for transitions.
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
    /// The kernel refused the program of an optional hook.
    #[error("the kernel refused the program at {target}: {reason}")]
    Hook {
        /// The name of the tracepoint or function.
        target: &'static str,
        /// The kernel's reason, on one line.
        reason: String,
    },
    /// The counters or lanes cannot be mapped.
    #[error(
        "cannot map the BPF maps of the programs: {0}; use kernel 5.8 or later, and check the limits on memory"
    )]
    Mapping(io::Error),
}

/// The attached programs, and readers of their maps.
pub struct Loaded {
    /// Keeps the programs loaded, so that their skip counters stay readable.
    pub ebpf: Ebpf,
    /// Keeps the programs attached. Dropping a link detaches its program.
    pub links: Vec<AttachedLink>,
    /// Reads the records.
    pub reading: Reading,
    /// Counts lost records.
    pub counters: MappedCounters,
    /// Counts skipped runs of the first program.
    pub skipped: SkipCounter,
    /// The twin program.
    pub twin: Twin,
    /// The optional hooks that could not be attached.
    pub refused: Vec<RefusedHook>,
    /// The optional hooks that are attached, each with the name of its tracepoint or function.
    pub attached: Vec<(Hook, &'static str)>,
    /// The names of the kernel's reasons.
    pub(super) reasons: Reasons,
}

/// The program behind the first one. It records the transitions for which the kernel skips the first.
#[derive(Debug)]
pub enum Twin {
    /// It is attached.
    Attached,
    /// The options exclude it.
    Unwanted,
    /// The kernel or the privileges refuse it.
    Refused(LoadError),
}

/// The link of an attached program.
#[derive(Debug)]
pub enum AttachedLink {
    /// A `tp_btf` program.
    Btf(BtfTracePointLink),
    /// A classic tracepoint program.
    Tracepoint(TracePointLink),
    /// A raw tracepoint program.
    RawTracepoint(RawTracePointLink),
    /// A program at a function's entry.
    Entry(FEntryLink),
    /// A program at a function's return.
    Return(FExitLink),
}

/// Options of [`load`].
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Size of the buffer for unread records, bytes; a power of two of at least a page. See [`Division`].
    pub buffer_bytes: u32,
    /// CPUs with lanes.
    pub cpus: u32,
    /// Trace only sockets of this network namespace.
    pub only_netns: Option<Netns>,
    /// The optional hooks to attach.
    pub hooks: Hooks,
    /// Attach the twin program.
    pub twin: bool,
}

/// Loads and attaches the program of `mode`.
///
/// # Errors
///
/// [`LoadError`] when the mode does not work on this kernel or with these privileges.
pub fn load(mode: Mode, options: LoadOptions) -> Result<Loaded, LoadError> {
    let loaded = load_with(mode, options);
    // Parsing BTF takes about 20 MB, which the C library would keep.
    crate::host::release_free_memory();
    loaded
}

fn load_with(mode: Mode, options: LoadOptions) -> Result<Loaded, LoadError> {
    match mode {
        Mode::Btf => load_btf(options),
        // On a temporary thread, because mounting tracefs moves the thread into a new mount namespace.
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
/// When it is missing or cannot be parsed.
pub fn read_btf() -> Result<Btf, LoadError> {
    let bytes = fs::read(btf::VMLINUX).map_err(|source| LoadError::NoBtf { source })?;
    Btf::parse(bytes).map_err(|source| LoadError::BadBtf { source })
}

fn load_btf(options: LoadOptions) -> Result<Loaded, LoadError> {
    let (layouts, reasons) = {
        let types = read_btf()?;
        let socket = layout::socket_layout(&types).map_err(LoadError::Field)?;
        let layouts = Layouts {
            ctx: CtxLayout::ABSENT,
            socket,
            bits: layout::bit_layout(&types),
            arguments: layout::argument_counts(&types),
        };
        (layouts, Reasons::of(&types))
    };
    let config = config(&layouts, options);
    // Kernels before 5.12 do not generate cookies in these programs, and those before 5.11 lack the typed current task;
    // only a load can detect this.
    let features = |typed_task, socket_cookies| Config { typed_task, socket_cookies, ..config };
    let loaded = load_btf_with(&features(1, 1), options)
        .or_else(|_| load_btf_with(&features(1, 0), options))
        .or_else(|_| load_btf_with(&features(0, 0), options))?;
    Ok(Loaded { reasons, ..loaded })
}

fn load_btf_with(config: &Config, options: LoadOptions) -> Result<Loaded, LoadError> {
    let (mut ebpf, reading) = load_object(config, options)?;
    let refused =
        |error: ProgramError| LoadError::Program { mode: Mode::Btf, reason: program_reason(&error) };
    let types = AyaBtf::from_sys_fs().map_err(|error| refused(error.into()))?;
    load_beside_twin(&mut ebpf, options.twin, &types)?.map_err(refused)?;
    let program: &mut BtfTracePoint = program(&mut ebpf, "transition_btf")?;
    let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
    let skipped = SkipCounter::open(program.fd().map_err(refused)?, true).map_err(LoadError::Mapping)?;
    let mut loaded = finish(ebpf, reading, AttachedLink::Btf(link), skipped)?;
    if options.twin {
        let attached = attach_btf_twin(&mut loaded.ebpf, &types);
        add_twin(&mut loaded, attached);
    }
    for hook in Hook::ALL {
        if !options.hooks.contains(hook) {
            continue;
        }
        let mut refused = None;
        for place in hook.places() {
            let attached = if hook == Hook::Drop && config.arguments.kfree_skb < 3 {
                let reason = "this kernel gives no reason for a drop (5.17)".to_owned();
                Err(LoadError::Hook { target: place.target, reason })
            } else {
                attach_hook(&mut loaded.ebpf, place, &types)
            };
            match attached {
                Ok(link) => {
                    loaded.links.push(link);
                    loaded.attached.push((hook, place.target));
                    refused = None;
                    break;
                }
                Err(error) => refused = Some(error),
            }
        }
        loaded.refused.extend(refused.map(|error| RefusedHook { hook, error }));
    }
    Ok(loaded)
}

/// Loads the first program of mode btf, and its twin on another thread meanwhile: the verifier takes half of the start.
/// Without the thread, or when the kernel refuses the twin, [`attach_btf_twin`] loads it.
fn load_beside_twin(
    ebpf: &mut Ebpf,
    twin: bool,
    types: &AyaBtf,
) -> Result<Result<(), ProgramError>, LoadError> {
    let (mut first, mut second) = (None, None);
    for (name, program) in ebpf.programs_mut() {
        match (name, program) {
            ("transition_btf", Program::BtfTracePoint(program)) => first = Some(program),
            ("transition_btf_twin", Program::BtfTracePoint(program)) if twin => second = Some(program),
            _ => {}
        }
    }
    let missing = || LoadError::Refused { reason: "it has no program `transition_btf`".to_owned() };
    let first = first.ok_or_else(missing)?;
    Ok(std::thread::scope(|scope| {
        let thread = second
            .map(|twin| std::thread::Builder::new().spawn_scoped(scope, || twin.load(TRACEPOINT.1, types)));
        let loaded = first.load(TRACEPOINT.1, types);
        // The end of the scope waits for the thread; `attach_btf_twin` finds its error again.
        drop(thread);
        loaded
    }))
}

/// Attaches the twin program of mode btf. The kernel calls the programs of a tracepoint in the order in which they were
/// attached, so the first program must be attached already.
fn attach_btf_twin(ebpf: &mut Ebpf, types: &AyaBtf) -> Result<AttachedLink, LoadError> {
    let refused = |error: ProgramError| LoadError::Twin { mode: Mode::Btf, reason: program_reason(&error) };
    let program: &mut BtfTracePoint = program(ebpf, "transition_btf_twin")?;
    if program.fd().is_err() {
        program.load(TRACEPOINT.1, types).map_err(refused)?;
    }
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

fn attach_hook(ebpf: &mut Ebpf, place: &Place, types: &AyaBtf) -> Result<AttachedLink, LoadError> {
    let &Place { program: name, kind, target } = place;
    let refused = |error: ProgramError| LoadError::Hook { target, reason: program_reason(&error) };
    match kind {
        HookKind::Tracepoint => {
            let program: &mut BtfTracePoint = program(ebpf, name)?;
            program.load(target, types).map_err(refused)?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(AttachedLink::Btf(link))
        }
        HookKind::Entry => {
            let program: &mut FEntry = program(ebpf, name)?;
            program.load(target, types).map_err(refused)?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(AttachedLink::Entry(link))
        }
        HookKind::Return => {
            let program: &mut FExit = program(ebpf, name)?;
            program.load(target, types).map_err(refused)?;
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            Ok(AttachedLink::Return(link))
        }
    }
}

fn load_tracepoint(options: LoadOptions) -> Result<Loaded, LoadError> {
    let ctx = tracefs::record_layout()?;
    // With BTF, the program also reads the socket. Without, it uses only the tracepoint's record.
    let types = read_btf();
    let layout = types
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|types| layout::socket_layout(types).map_err(|field| LoadError::Field(field).to_string()));
    let socket = *layout.as_ref().unwrap_or(&SocketLayout::ABSENT);
    let bits = types.as_ref().map_or(BitLayout::ABSENT, layout::bit_layout);
    // The optional hooks require typed arguments, which only mode btf has.
    let options = LoadOptions { hooks: Hooks::NONE, ..options };
    let layouts = Layouts { ctx, socket, bits, arguments: ArgumentCounts::NONE };
    let (mut ebpf, reading) = load_object(&config(&layouts, options), options)?;
    let refused =
        |error: ProgramError| LoadError::Program { mode: Mode::Tracepoint, reason: program_reason(&error) };
    let program: &mut TracePoint = program(&mut ebpf, "transition_tracepoint")?;
    program.load().map_err(refused)?;
    let link =
        program.attach(TRACEPOINT.0, TRACEPOINT.1).and_then(|id| program.take_link(id)).map_err(refused)?;
    // Without BTF this is unknown.
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

/// What the programs must know of this kernel.
struct Layouts {
    ctx: CtxLayout,
    socket: SocketLayout,
    bits: BitLayout,
    arguments: ArgumentCounts,
}

/// Returns the configuration without the optional features and `wakeup_bytes`, which depends on the size of the ring.
fn config(layouts: &Layouts, options: LoadOptions) -> Config {
    let &Layouts { ctx, socket, bits, arguments } = layouts;
    Config {
        ctx,
        socket,
        bits,
        wakeup_bytes: 0,
        only_netns: options.only_netns.map_or(0, |netns| netns.0),
        typed_task: 0,
        first_uses: u32::from(options.hooks.contains(Hook::FirstRead)) * first_use::READ
            + u32::from(options.hooks.contains(Hook::FirstWrite)) * first_use::WRITE,
        socket_cookies: 0,
        arguments,
    }
}

/// Creates the maps, and initializes the lanes before the programs are loaded.
fn load_object(config: &Config, options: LoadOptions) -> Result<(Ebpf, Reading), LoadError> {
    raise_locked_memory_limit();
    let division = Division::of(options.buffer_bytes, options.cpus);
    // A program wakes the reader at each quarter of a buffer. In between, the reader polls.
    let config = Config { wakeup_bytes: division.ring / 4, ..*config };
    let mut ebpf = EbpfLoader::new()
        .override_global("CONFIG", config.as_bytes(), true)
        .map_max_entries("LANES", division.lanes())
        .map_max_entries("CHUNKS", division.chunks())
        .map_max_entries("RING", division.ring)
        .load(&object()?)
        .map_err(|error| refused(&error))?;
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

/// Raises the locked-memory limit, to which kernels before 5.11 charge maps. If this fails, the error of the map
/// creation reports the problem.
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
    Ok(Loaded {
        ebpf,
        links: vec![link],
        reading,
        counters,
        skipped,
        twin: Twin::Unwanted,
        refused: Vec::new(),
        attached: Vec::new(),
        reasons: Reasons::default(),
    })
}

/// Returns the kernel's reason without the verifier's listing, which is many pages long.
fn program_reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            // The reason follows a listing of the program and precedes statistics.
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

/// Returns why the kernel refused the object: its errno tells a sandbox from an old kernel.
fn refused(error: &EbpfError) -> LoadError {
    let reason = object_reason(error);
    // Privileges are checked before, so EPERM comes from elsewhere.
    if is_forbidden(error) { LoadError::Forbidden { reason } } else { LoadError::Refused { reason } }
}

fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn object_reason(error: &EbpfError) -> String {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error, .. }) => {
            format!("map {name} could not be created: {io_error}")
        }
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
