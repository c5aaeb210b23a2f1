//! The filter options, which every command shares.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use tracer_core::{
    event::{Nanos, Netns, TcpState},
    lifecycle::Role,
};

use crate::{
    cli::parsers::{Named, parse_duration, parse_netns},
    host::CgroupSubtree,
    report::{Filter, PortSet, parse_network, parse_state},
};

/// Filters of the output. A filter never hides events from the connection tracking.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Filters")]
pub(crate) struct FilterArguments {
    /// Local ports and ranges, such as 80,443,8000-8099
    #[arg(long, value_name = "PORTS", global = true)]
    pub(crate) local_port: Option<PortSet>,
    /// Remote ports and ranges
    #[arg(long, value_name = "PORTS", global = true)]
    pub(crate) remote_port: Option<PortSet>,
    /// Local addresses and networks
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_network, global = true)]
    pub(crate) local: Vec<IpNet>,
    /// Remote addresses and networks
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_network, global = true)]
    pub(crate) remote: Vec<IpNet>,
    /// Process ids of the owner
    #[arg(long, value_name = "PID", value_delimiter = ',', global = true)]
    pub(crate) pid: Vec<u32>,
    /// Names of the owning process or of its thread
    #[arg(long, value_name = "NAME", value_delimiter = ',', global = true)]
    pub(crate) comm: Vec<String>,
    /// A cgroup and its descendants: a directory or a path in the hierarchy
    #[arg(long, value_name = "PATH", value_parser = CgroupSubtree::parse, global = true, hide_short_help = true)]
    pub(crate) cgroup: Option<CgroupSubtree>,
    /// Names of Kubernetes pods
    #[arg(long, value_name = "NAME", value_delimiter = ',', global = true, hide_short_help = true)]
    pub(crate) pod: Vec<String>,
    /// Names of Kubernetes namespaces
    #[arg(long, value_name = "NAME", value_delimiter = ',', global = true, hide_short_help = true)]
    pub(crate) k8s_namespace: Vec<String>,
    /// A network namespace: a name in /run/netns, a path, an inode, or `self`
    #[arg(long, value_name = "NAME|PATH|INODE|self", value_parser = parse_netns, global = true, hide_short_help = true)]
    pub(crate) netns: Option<Netns>,
    /// Role of this host
    #[arg(long, value_enum, global = true)]
    pub(crate) role: Option<RoleArgument>,
    /// States left, entered or passed through
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = Named::new(parse_state, TcpState::ALL.map(TcpState::name)), global = true)]
    pub(crate) state: Vec<TcpState>,
    /// Only failed connections
    #[arg(long, global = true)]
    pub(crate) failed: bool,
    /// Only durations of at least this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration, global = true)]
    pub(crate) min_duration: Option<Duration>,
    /// Only IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6", global = true, hide_short_help = true)]
    pub(crate) ipv4: bool,
    /// Only IPv6
    #[arg(short = '6', long, global = true, hide_short_help = true)]
    pub(crate) ipv6: bool,
}

/// The role of this host in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArgument {
    /// This host opened the connection
    Client,
    /// This host accepted the connection
    Server,
}

impl FilterArguments {
    /// Returns whether any filter is given.
    pub(crate) fn selects(&self) -> bool {
        *self != Self::default()
    }

    /// Builds the filter.
    pub(super) fn filter(&self) -> Filter {
        let filter = self.clone();
        Filter {
            local_ports: filter.local_port,
            remote_ports: filter.remote_port,
            local: filter.local,
            remote: filter.remote,
            pids: filter.pid,
            comms: filter.comm,
            cgroup: filter.cgroup,
            pods: filter.pod,
            k8s_namespaces: filter.k8s_namespace,
            netns: filter.netns,
            role: filter.role.map(|role| match role {
                RoleArgument::Client => Role::Client,
                RoleArgument::Server => Role::Server,
            }),
            states: filter.state,
            failed: filter.failed,
            min_duration: filter.min_duration.map(Nanos::from_duration),
            ipv4: match (filter.ipv4, filter.ipv6) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
        }
    }
}
