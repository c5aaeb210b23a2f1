//! The options that every command shares.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use tracer_core::lifecycle::DEFAULT_MAX_CONNECTIONS;

use crate::{
    cli::{
        filters::FilterArguments,
        parsers::{Named, parse_buffer, parse_duration, parse_hook, parse_host_root, parse_run_duration},
    },
    host::DEFAULT_NICE,
    report::{ColorChoice, Filter, Format, TimeStyle},
    sources::live::{
        DEFAULT_BUFFER_BYTES_PER_CPU, DEFAULT_BUFFER_MAX, DEFAULT_BUFFER_MIN, DEFAULT_BUFFER_SHARE, Hook,
        Hooks, KernelOptions, Mode, ModeChoice,
    },
};

/// The heading of the options that users need first.
const INPUT_AND_OUTPUT: &str = "Input and output";
/// The heading of the options that change how events are collected; only the long help has them.
const TRACING: &str = "Tracing";

/// Options that every command shares.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shared {
    /// Read a recording instead of the kernel, `-` from stdin; repeat for further files of one run
    #[arg(short, long, value_name = "FILE", global = true, help_heading = INPUT_AND_OUTPUT)]
    pub(crate) input: Vec<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, global = true, help_heading = INPUT_AND_OUTPUT)]
    pub(crate) output: Format,
    /// Stop after this time, such as 10s or 1m30s; a number alone is seconds
    #[arg(short, long, value_parser = parse_run_duration, value_name = "TIME", global = true, help_heading = INPUT_AND_OUTPUT)]
    pub(crate) duration: Option<Duration>,
    /// Stop after this many lines of data
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), global = true, help_heading = INPUT_AND_OUTPUT)]
    pub(crate) count: Option<u64>,
    /// Time format in tables
    #[arg(long, value_enum, default_value_t, global = true, help_heading = INPUT_AND_OUTPUT, hide_short_help = true)]
    pub(crate) time: TimeStyle,
    /// Colors in tables and messages; JSON and CSV never have any
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true, help_heading = INPUT_AND_OUTPUT, hide_short_help = true)]
    pub(crate) color: ColorChoice,
    /// Kernel hook to use
    #[arg(long, value_enum, default_value_t, global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) mode: ModeArgument,
    /// Maximum tracked connections; beyond it the least recently active are evicted and counted
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CONNECTIONS as u32, value_parser = clap::value_parser!(u32).range(1..), global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) max_connections: u32,
    /// Event buffer size of all CPUs together, such as 16M; half is for transitions. Rounded up to a power of two, at
    /// least 16KiB per CPU [default: 1/1024 of the memory, 8MiB to 32MiB; at least 512KiB per CPU]
    #[arg(long, value_name = "SIZE", value_parser = parse_buffer, global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) buffer: Option<u32>,
    /// Maximum delay before an event is shown
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_duration, global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) latency: Duration,
    /// Nice value of the tracing thread, from -20 to 19 [default: -10 if permitted; a nice value set from outside is kept]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19), global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) nice: Option<i32>,
    /// Skip the connections that exist at the start
    #[arg(long, global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) no_snapshot: bool,
    /// Name the backend behind a translated address, as of a Kubernetes service; from conntrack, needs CAP_NET_ADMIN
    #[arg(long, global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) backends: bool,
    /// The host's root directory, for the names of containers and pods
    #[arg(long, value_name = "DIR", default_value = "/", value_parser = parse_host_root, global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) host_root: PathBuf,
    /// Do not attach this optional hook; `doctor` lists the hooks
    #[arg(long, value_name = "HOOK", value_delimiter = ',', value_parser = Named::new(parse_hook, Hook::ALL.map(Hook::name)), global = true, help_heading = TRACING, hide_short_help = true)]
    pub(crate) no_hook: Vec<Hook>,
    /// Attach no twin program, to measure its cost
    #[arg(long, hide = true, global = true, help_heading = TRACING)]
    pub(crate) no_twin: bool,
    /// Print only errors on stderr
    #[arg(short, long, conflicts_with = "verbose", global = true, help_heading = INPUT_AND_OUTPUT)]
    pub(crate) quiet: bool,
    /// Print more on stderr
    #[arg(short, long, global = true, help_heading = INPUT_AND_OUTPUT)]
    pub(crate) verbose: bool,
    /// Filters of the output.
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    /// The command writes nothing to stdout before its end, so the terminal can show the progress of a replay.
    #[arg(skip)]
    pub(crate) is_silent_while_running: bool,
}

/// The kernel hook to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArgument {
    /// BTF if supported, otherwise the classic tracepoint
    #[default]
    Auto,
    /// BTF-typed tracepoint
    Btf,
    /// Classic tracepoint
    Tracepoint,
}

impl Shared {
    /// Returns the options of the live source.
    pub(crate) fn kernel_options(&self) -> KernelOptions {
        KernelOptions {
            cpus: None,
            mode: match self.mode {
                ModeArgument::Auto => ModeChoice::Auto,
                ModeArgument::Btf => ModeChoice::Only(Mode::Btf),
                ModeArgument::Tracepoint => ModeChoice::Only(Mode::Tracepoint),
            },
            buffer_bytes: self.buffer,
            poll_interval: self.latency,
            only_netns: self.filter.netns,
            hooks: self.no_hook.iter().fold(Hooks::ALL, |hooks, hook| hooks.without(*hook)),
            snapshot: !self.no_snapshot,
            twin: !self.no_twin,
            backends: self.backends,
            host_root: self.host_root.clone(),
        }
    }

    /// Returns the filter of the output.
    pub(crate) fn filter(&self) -> Filter {
        self.filter.filter()
    }
}

const _: () = assert!(
    DEFAULT_NICE == -10
        && DEFAULT_BUFFER_SHARE == 1024
        && DEFAULT_BUFFER_MIN == 8 << 20
        && DEFAULT_BUFFER_MAX == 32 << 20
        && DEFAULT_BUFFER_BYTES_PER_CPU == 512 << 10,
    "the help of --buffer and --nice spells out the defaults"
);
