//! The command line: the contract of names and meanings that users script against.

mod serve;
mod settings;

pub use serve::{LabelRequest, ListenAddress, LogFormat, LogLevel, ServeArguments};
pub use settings::SettingsError;

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    analysis::HandshakesBy,
    export::{FileFormat, Table},
    filter::{Filter, PortSet, parse_network, parse_state},
    lifecycle::{DEFAULT_MAX_CONNECTIONS, GroupBy, Role, TcpState},
    output::{Format, TimeStyle},
    owner::{self, CgroupSubtree},
    recording::Rotation,
    source::kernel::{DEFAULT_BUFFER_BYTES, DEFAULT_BUFFER_BYTES_PER_CPU, KernelOptions, Mode, ModeChoice},
};

/// Traces every TCP state transition of this host: lifecycles, handshake times, close reasons, owners.
///
/// Without a command it prints a line for each connection when its life ends.
#[derive(Debug, Parser)]
#[command(name = "tcptrace-bpf", version, propagate_version = true)]
#[command(
    after_help = "Needs CAP_BPF and CAP_PERFMON: run it with sudo. `tcptrace-bpf doctor` says what this kernel allows."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options that every command shares.
    #[command(flatten)]
    pub shared: Shared,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// A line per connection when its life ends (the default)
    Connections,
    /// A line per kernel transition, as it happens
    Transitions,
    /// Who is slow to open, how slow, and why
    Handshakes(HandshakesArguments),
    /// Connections that stay too long in a state, with their owner
    Stuck(StuckArguments),
    /// A live full-screen view: the state diagram, connections, owners, handshakes, stuck connections
    Top,
    /// The TCP state diagram with what went along each edge, as text or SVG
    Diagram(DiagramArguments),
    /// The daemon: metrics and health over HTTP
    Serve(ServeArguments),
    /// Write the event stream to a file, for every command's --input
    Record(RecordArguments),
    /// Turn a recording into Parquet or CSV files
    Export(ExportArguments),
    /// What this kernel and these privileges allow, what is missing, and what that costs
    Doctor,
}

/// Options of `handshakes`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct HandshakesArguments {
    /// What to group by
    #[arg(long, value_enum, default_value_t)]
    pub by: HandshakesBy,
    /// How many of the slowest are listed one by one
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub slowest: u32,
    /// Most groups; the handshakes of further ones are summed up in one
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_groups: u32,
}

/// Options of `diagram`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct DiagramArguments {
    /// Write the diagram as SVG into this file as well; `-` writes it to stdout instead of the text
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Options of `stuck`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct StuckArguments {
    /// Longest time in a state, such as close_wait=60s,syn_sent=3s; the others keep their defaults
    #[arg(long, value_name = "STATE=TIME", value_delimiter = ',', value_parser = parse_threshold)]
    pub threshold: Vec<(TcpState, u64)>,
    /// What to group by
    #[arg(long, value_enum, default_value_t)]
    pub by: GroupBy,
    /// Most connections listed under each group
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub limit: usize,
    /// List the connections in TIME_WAIT too, and when each lets go of its local port
    #[arg(long)]
    pub time_wait: bool,
}

/// Options of `record`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RecordArguments {
    /// Where to; `-` is stdout. With --rotate its name gets a number, as in trace.0001.arrows
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Begin another file at this size, such as 100M, or after this time, such as 1h
    #[arg(long, value_name = "SIZE|TIME", value_parser = parse_rotation)]
    pub rotate: Option<Rotation>,
    /// Keep this many files; the oldest are removed
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_files: Option<u32>,
}

impl RecordArguments {
    /// When another file is begun, and how many are kept.
    pub fn rotation(&self) -> Rotation {
        let max_files = self.max_files.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Rotation { max_files, ..self.rotate.unwrap_or_default() }
    }
}

/// Options of `export`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ExportArguments {
    /// The recording: one file, or several of one run
    #[arg(value_name = "RECORDING", required = true)]
    pub recording: Vec<PathBuf>,
    /// Where to: a folder, which gets a file for each host and hour, or a file by its .parquet or .csv
    #[arg(long, value_name = "FOLDER|FILE")]
    pub to: PathBuf,
    /// Form of the files; that of the file's name, else parquet
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// What to export
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Table::Connections, Table::Transitions])]
    pub what: Vec<Table>,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
}

impl ExportArguments {
    /// The form of the files.
    pub fn format(&self) -> FileFormat {
        self.format.or(self.format_of_name()).unwrap_or(FileFormat::Parquet)
    }

    /// Whether everything goes to one file.
    pub fn is_one_file(&self) -> bool {
        self.format_of_name().is_some()
    }

    fn format_of_name(&self) -> Option<FileFormat> {
        let extension = self.to.extension()?;
        [FileFormat::Parquet, FileFormat::Csv].into_iter().find(|format| extension == format.extension())
    }

    fn wrong(&self) -> Option<&'static str> {
        let again = (1..self.what.len()).any(|at| self.what[..at].contains(&self.what[at]));
        if again {
            Some("--what names a table twice")
        } else if self.is_one_file() && self.what.len() > 1 {
            Some(
                "one file holds one table: give --what connections or --what transitions, or a folder to --to",
            )
        } else if self.is_one_file() && self.format_of_name() != Some(self.format()) {
            Some("the name of the file and --format do not agree")
        } else {
            None
        }
    }
}

/// Options that every command shares.
#[derive(Args, Clone, Debug)]
pub struct Shared {
    /// Read a recording instead of the kernel, `-` from stdin; given again, the next file of its run
    #[arg(short, long, value_name = "FILE", global = true)]
    pub input: Vec<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub output: Format,
    /// End after this time, such as 10s or 1m30s
    #[arg(short, long, value_parser = parse_duration, value_name = "TIME", global = true)]
    pub duration: Option<Duration>,
    /// End after this many lines of data
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), global = true)]
    pub count: Option<u64>,
    /// How times are shown in tables
    #[arg(long, value_enum, default_value_t, global = true)]
    pub time: TimeStyle,
    /// Which hook to use
    #[arg(long, value_enum, default_value_t, global = true)]
    pub mode: ModeArgument,
    /// Most connections in the table; beyond it the longest silent are forgotten, and counted
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CONNECTIONS as u32, value_parser = clap::value_parser!(u32).range(1..), global = true)]
    pub max_connections: u32,
    /// Memory for events that are not read yet, of all CPUs together, such as 16M; half of it is for transitions. Rounded up
    /// to a power of two, and no less than 16KiB for each CPU [default: 8MiB, beyond 16 CPUs 512KiB for each]
    #[arg(long, value_name = "SIZE", value_parser = parse_buffer, global = true)]
    pub buffer: Option<u32>,
    /// Longest that an event waits before it is shown
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_duration, global = true)]
    pub latency: Duration,
    /// Do not begin with the connections that exist already
    #[arg(long, global = true)]
    pub no_snapshot: bool,
    /// Attach no twin program, to measure its cost
    #[arg(long, hide = true, global = true)]
    pub no_twin: bool,
    /// Say less on stderr: only errors
    #[arg(short, long, conflicts_with = "verbose", global = true)]
    pub quiet: bool,
    /// Say more on stderr
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What is shown.
    #[command(flatten)]
    pub filter: FilterArguments,
    /// The command writes nothing to stdout before its end, so that the progress of a replay can be seen there.
    #[arg(skip)]
    pub is_silent_while_running: bool,
}

/// What is shown; a filter never hides anything from the lifecycle.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Filters")]
pub struct FilterArguments {
    /// Local ports and ranges, such as 80,443,8000-8099
    #[arg(long, value_name = "PORTS", global = true)]
    pub local_port: Option<PortSet>,
    /// Remote ports and ranges
    #[arg(long, value_name = "PORTS", global = true)]
    pub remote_port: Option<PortSet>,
    /// Local addresses and networks
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_network, global = true)]
    pub local: Vec<IpNet>,
    /// Remote addresses and networks
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_network, global = true)]
    pub remote: Vec<IpNet>,
    /// Owners by process id
    #[arg(long, value_name = "PID", value_delimiter = ',', global = true)]
    pub pid: Vec<u32>,
    /// Owners by process name
    #[arg(long, value_name = "NAME", value_delimiter = ',', global = true)]
    pub comm: Vec<String>,
    /// A cgroup and those below it, by its directory or its path in the hierarchy
    #[arg(long, value_name = "PATH", value_parser = CgroupSubtree::parse, global = true)]
    pub cgroup: Option<CgroupSubtree>,
    /// A network namespace: a path, an inode, or `self`
    #[arg(long, value_name = "PATH|INODE|self", value_parser = parse_netns, global = true)]
    pub netns: Option<u32>,
    /// Which side opened the connection
    #[arg(long, value_enum, global = true)]
    pub role: Option<RoleArgument>,
    /// States left, entered or passed through
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = parse_state, global = true)]
    pub state: Vec<TcpState>,
    /// Only connections that failed
    #[arg(long, global = true)]
    pub failed: bool,
    /// Only what lasted at least this long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, global = true)]
    pub min_duration: Option<Duration>,
    /// Only IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6", global = true)]
    pub ipv4: bool,
    /// Only IPv6
    #[arg(short = '6', long, global = true)]
    pub ipv6: bool,
}

/// Which hook to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModeArgument {
    /// The best that works
    #[default]
    Auto,
    /// The tracepoint through BTF
    Btf,
    /// The classic tracepoint
    Tracepoint,
}

/// Which side opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArgument {
    /// This side
    Client,
    /// The peer
    Server,
}

impl Cli {
    /// Whether the command writes nothing to a terminal before its end.
    fn is_silent_while_running(&self) -> bool {
        let draws = matches!(self.shared.output, Format::Table | Format::Wide);
        match self.command {
            None | Some(Command::Connections | Command::Transitions | Command::Top | Command::Serve(_)) => {
                false
            }
            Some(Command::Handshakes(_)) => !draws,
            Some(
                Command::Stuck(_)
                | Command::Diagram(_)
                | Command::Record(_)
                | Command::Export(_)
                | Command::Doctor,
            ) => true,
        }
    }

    /// Checks what the definition of the options cannot say.
    ///
    /// # Errors
    ///
    /// Wrong usage.
    pub fn check(&self) -> Result<(), clap::Error> {
        let reads = !self.shared.input.is_empty();
        let wrong = match &self.command {
            Some(Command::Record(_)) if reads => "`record` records the kernel: it takes no --input",
            Some(Command::Record(_)) if !self.shared.filter.is_default() => {
                "`record` records everything: give the filters to the command that reads the recording"
            }
            Some(Command::Doctor) if reads => "`doctor` looks at this host: it takes no --input",
            Some(Command::Export(_)) if reads => "`export` takes its recordings without --input",
            Some(Command::Export(arguments)) => match arguments.wrong() {
                Some(wrong) => wrong,
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        Err(Self::command().error(clap::error::ErrorKind::ArgumentConflict, wrong))
    }
}

impl FilterArguments {
    /// Whether everything is shown.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Shared {
    /// How to trace.
    pub fn kernel_options(&self) -> KernelOptions {
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
            first_reads: true,
            snapshot: !self.no_snapshot,
            twin: !self.no_twin,
        }
    }

    /// What is shown.
    pub fn filter(&self) -> Filter {
        let filter = self.filter.clone();
        Filter {
            local_ports: filter.local_port,
            remote_ports: filter.remote_port,
            local: filter.local,
            remote: filter.remote,
            pids: filter.pid,
            comms: filter.comm,
            cgroup: filter.cgroup,
            netns: filter.netns,
            role: filter.role.map(|role| match role {
                RoleArgument::Client => Role::Client,
                RoleArgument::Server => Role::Server,
            }),
            states: filter.state,
            failed: filter.failed,
            min_duration_ns: filter
                .min_duration
                .map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            ipv4: match (filter.ipv4, filter.ipv6) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
        }
    }
}

/// Reads a duration such as `100ms`, `10s`, `1m30s` or `2h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration above zero: use 100ms, 10s, 1m30s or 2h"))
}

/// Reads a size such as `100M` or a time such as `1h`: sizes end in a capital letter, times in a small one.
fn parse_rotation(text: &str) -> Result<Rotation, String> {
    let wrong = || {
        format!(
            "`{text}` is neither a size from 64K on, such as 100M or 2G, nor a time from 1s on, such as 10m or 1h"
        )
    };
    if text.ends_with(|last: char| last.is_ascii_lowercase()) {
        let age = parse_duration(text).map_err(|_| wrong())?;
        let age_ns =
            u64::try_from(age.as_nanos()).ok().filter(|&age| age >= 1_000_000_000).ok_or_else(wrong)?;
        return Ok(Rotation { age_ns: Some(age_ns), ..Rotation::default() });
    }
    let bytes = parse_size::Config::new().with_binary().parse_size(text).map_err(|_| wrong())?;
    if bytes < 64 << 10 {
        return Err(wrong());
    }
    Ok(Rotation { bytes: Some(bytes), ..Rotation::default() })
}

/// Reads a state and its longest time, such as `close_wait=60s`, in nanoseconds.
fn parse_threshold(text: &str) -> Result<(TcpState, u64), String> {
    let (state, time) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not a threshold: use STATE=TIME, as in close_wait=60s"))?;
    let time = parse_duration(time)?;
    Ok((parse_state(state)?, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
}

/// Reads a network namespace and gives its inode.
fn parse_netns(text: &str) -> Result<u32, owner::NetnsError> {
    owner::parse_spec(text).inode()
}

/// Reads a size such as `4M`, `512KiB` or `65536`.
fn parse_buffer(text: &str) -> Result<u32, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .ok()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| (4096..=1 << 30).contains(size))
        .ok_or_else(|| format!("`{text}` is not a buffer size from 4K to 1G: use 512K, 4M or 64M"))
}

const _: () = assert!(
    DEFAULT_BUFFER_BYTES == 8 << 20 && DEFAULT_BUFFER_BYTES_PER_CPU == 512 << 10,
    "the default is spelt out for --help"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        let before = Cli::try_parse_from(["tcptrace-bpf", "-o", "json", "transitions"]).unwrap();
        let after = Cli::try_parse_from(["tcptrace-bpf", "transitions", "-o", "json"]).unwrap();
        assert_eq!((before.command, before.shared.output), (Some(Command::Transitions), Format::Json));
        assert_eq!((after.command, after.shared.output), (Some(Command::Transitions), Format::Json));
        let none = Cli::try_parse_from(["tcptrace-bpf", "-n", "3", "-4"]).unwrap();
        assert_eq!((none.command, none.shared.count), (None, Some(3)));
        assert_eq!(none.shared.filter().ipv4, Some(true));
    }

    #[test]
    fn the_default_latency_is_the_sources() {
        let cli = Cli::try_parse_from(["tcptrace-bpf"]).unwrap();
        assert_eq!(cli.shared.buffer, None);
        assert_eq!(cli.shared.latency, crate::source::kernel::DEFAULT_POLL_INTERVAL);
    }

    #[test]
    fn rotation_is_by_size_or_by_time() {
        let rotation = |text| parse_rotation(text).map(|rotation| (rotation.bytes, rotation.age_ns));
        assert_eq!(rotation("100M"), Ok((Some(100 << 20), None)));
        assert_eq!(rotation("65536"), Ok((Some(1 << 16), None)));
        assert_eq!(rotation("1h"), Ok((None, Some(3_600_000_000_000))));
        assert_eq!(rotation("10m"), Ok((None, Some(600_000_000_000))));
        for wrong in ["1K", "10ms", "soon", "", "M", "-1h"] {
            assert!(rotation(wrong).unwrap_err().contains("100M"), "{wrong}");
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_wrong_usage() {
        for (arguments, part) in [
            (&["record", "a", "-i", "b"][..], "--input"),
            (&["record", "a", "--local-port", "80"], "filters"),
            (&["doctor", "-i", "a"], "--input"),
            (&["export", "a", "--to", "b", "-i", "c"], "--input"),
            (&["export", "a", "--to", "b.csv"], "--what connections"),
            (&["export", "a", "--to", "b.csv", "--what", "connections", "--format", "parquet"], "agree"),
            (&["export", "a", "--to", "b", "--what", "connections,connections"], "twice"),
        ] {
            let cli = Cli::try_parse_from(["tcptrace-bpf"].iter().chain(arguments)).unwrap();
            let error = cli.check().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{error}");
        }
        let cli = Cli::try_parse_from(["tcptrace-bpf", "record", "a", "-n", "3"]).unwrap();
        assert!(cli.check().is_ok());
    }

    #[test]
    fn wrong_values_are_named_with_a_remedy() {
        for (arguments, parts) in [
            (["--local-port", "70000"], ["`70000`", "65535"]),
            (["--remote", "10.0.0/8"], ["`10.0.0/8`", "2001:db8::/32"]),
            (["--duration", "soon"], ["`soon`", "10s"]),
            (["--duration", "0s"], ["`0s`", "above zero"]),
            (["--buffer", "1"], ["`1`", "4M"]),
            (["--state", "open"], ["`open`", "syn_sent"]),
            (["stuck", "--threshold=close_wait"], ["`close_wait`", "close_wait=60s"]),
            (["--netns", "/no/such/file"], ["/no/such/file", "self"]),
            (["--frobnicate", "x"], ["--frobnicate", "unexpected"]),
        ] {
            let text =
                Cli::try_parse_from(["tcptrace-bpf"].into_iter().chain(arguments)).unwrap_err().to_string();
            for part in parts {
                assert!(text.contains(part), "{part} not in: {text}");
            }
        }
    }
}
