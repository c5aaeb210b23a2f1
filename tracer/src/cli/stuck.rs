//! The options of `stuck`.

use clap::{Args, ValueEnum};
use tracer_core::{
    event::{Nanos, TcpState},
    lifecycle::GroupBy,
};

use crate::cli::parsers::{Named, THRESHOLDS, parse_threshold};

/// Options of `stuck`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StuckArguments {
    /// Thresholds by state, such as close_wait=60s,syn_sent=3s; other states keep their defaults
    #[arg(long, value_name = "STATE=TIME", value_delimiter = ',', value_parser = Named::new(parse_threshold, THRESHOLDS), hide_possible_values = true)]
    pub(crate) threshold: Vec<(TcpState, Nanos)>,
    /// Group connections by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) by: GroupByArgument,
    /// Maximum connections listed per group
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) limit: usize,
    /// Also list connections in TIME_WAIT, with the time until their local port is free
    #[arg(long)]
    pub(crate) time_wait: bool,
}

/// What stuck connections are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupByArgument {
    /// Process that holds the socket
    #[default]
    Process,
    /// Container of the socket
    Container,
    /// Kubernetes pod of the socket
    Pod,
    /// Kubernetes namespace of the socket
    Namespace,
    /// Kubernetes workload, derived from the pod's name
    Workload,
    /// Remote address
    Remote,
    /// Local port
    Port,
}

impl From<GroupByArgument> for GroupBy {
    fn from(by: GroupByArgument) -> Self {
        match by {
            GroupByArgument::Process => Self::Process,
            GroupByArgument::Container => Self::Container,
            GroupByArgument::Pod => Self::Pod,
            GroupByArgument::Namespace => Self::Namespace,
            GroupByArgument::Workload => Self::Workload,
            GroupByArgument::Remote => Self::Remote,
            GroupByArgument::Port => Self::Port,
        }
    }
}
