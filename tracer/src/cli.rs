//! The command line: the contract of names and meanings that users script against.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    analysis::HandshakesBy,
    filter::{Filter, PortSet, parse_network, parse_state},
    lifecycle::{DEFAULT_MAX_CONNECTIONS, GroupBy, Role, TcpState},
    output::{Format, TimeStyle},
    owner::{self, CgroupSubtree},
    source::kernel::{DEFAULT_BUFFER_BYTES, KernelOptions, Mode, ModeChoice},
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

/// Options that every command shares.
#[derive(Args, Clone, Debug)]
pub struct Shared {
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
    /// Size of the ring buffer, such as 4M; rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = parse_buffer, global = true)]
    pub buffer: u32,
    /// Longest that an event waits before it is shown
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_duration, global = true)]
    pub latency: Duration,
    /// Do not begin with the connections that exist already
    #[arg(long, global = true)]
    pub no_snapshot: bool,
    /// Say less on stderr: only errors
    #[arg(short, long, conflicts_with = "verbose", global = true)]
    pub quiet: bool,
    /// Say more on stderr
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// What is shown.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// What is shown; a filter never hides anything from the lifecycle.
#[derive(Args, Clone, Debug, Default)]
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

impl Shared {
    /// How to trace.
    pub fn kernel_options(&self) -> KernelOptions {
        KernelOptions {
            mode: match self.mode {
                ModeArgument::Auto => ModeChoice::Auto,
                ModeArgument::Btf => ModeChoice::Only(Mode::Btf),
                ModeArgument::Tracepoint => ModeChoice::Only(Mode::Tracepoint),
            },
            buffer_bytes: self.buffer,
            poll_interval: self.latency,
            only_netns: None,
            first_reads: true,
            snapshot: !self.no_snapshot,
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

/// Reads a size such as `4M`, `512KiB` or `65536`; the kernel's ring buffers go up to 2 GiB.
fn parse_buffer(text: &str) -> Result<u32, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .ok()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| (4096..=1 << 30).contains(size))
        .ok_or_else(|| format!("`{text}` is not a buffer size from 4K to 1G: use 512K, 4M or 64M"))
}

const _: () = assert!(DEFAULT_BUFFER_BYTES == 4 << 20, "the default is spelt out for --help");

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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
    fn the_default_buffer_is_the_sources() {
        let cli = Cli::try_parse_from(["tcptrace-bpf"]).unwrap();
        assert_eq!(cli.shared.buffer, DEFAULT_BUFFER_BYTES);
        assert_eq!(cli.shared.latency, crate::source::kernel::DEFAULT_POLL_INTERVAL);
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
