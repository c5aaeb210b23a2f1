//! The options of `handshakes`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tracer_core::analysis::HandshakesBy;

/// Options of `handshakes`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandshakesArguments {
    /// Group handshakes by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) by: HandshakesByArgument,
    /// Number of slowest handshakes to list
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) slowest: u32,
    /// Maximum groups; handshakes of further groups are counted together
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_groups: u32,
    /// Join the handshakes of --input with this recording of the other host: which of SYN, SYN-ACK and ACK was lost. Repeat
    /// for further files of one run
    #[arg(long, value_name = "FILE")]
    pub(crate) join: Vec<PathBuf>,
}

impl HandshakesArguments {
    /// Returns whether two recordings are joined.
    pub(crate) fn joins(&self) -> bool {
        !self.join.is_empty()
    }

    /// Returns the error of options that contradict each other. `input` is the shared option.
    pub(super) fn conflict(&self, input: &[PathBuf]) -> Option<&'static str> {
        let is_stdin = |paths: &[PathBuf]| paths.iter().any(|path| path == Path::new("-"));
        if self.joins() && input.is_empty() {
            Some("--join takes the recording of the other host; add --input with the recording of this one")
        } else if is_stdin(&self.join) && is_stdin(input) {
            Some("--join and --input both read stdin; pass a file to one of them")
        } else {
            None
        }
    }
}

/// What handshakes are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HandshakesByArgument {
    /// Service: remote address and port for clients, local port for servers
    #[default]
    Service,
    /// Service, with the backend for clients where it is known (--backends)
    Backend,
    /// Remote address
    Remote,
    /// Remote port
    RemotePort,
    /// Local port
    LocalPort,
    /// Process name
    Process,
    /// Container
    Container,
    /// Kubernetes pod
    Pod,
    /// Kubernetes namespace
    Namespace,
    /// Kubernetes workload, derived from the pod's name
    Workload,
    /// Role: client or server
    Role,
    /// One group for all
    None,
}

impl From<HandshakesByArgument> for HandshakesBy {
    fn from(by: HandshakesByArgument) -> Self {
        match by {
            HandshakesByArgument::Service => Self::Service,
            HandshakesByArgument::Backend => Self::Backend,
            HandshakesByArgument::Remote => Self::Remote,
            HandshakesByArgument::RemotePort => Self::RemotePort,
            HandshakesByArgument::LocalPort => Self::LocalPort,
            HandshakesByArgument::Process => Self::Process,
            HandshakesByArgument::Container => Self::Container,
            HandshakesByArgument::Pod => Self::Pod,
            HandshakesByArgument::Namespace => Self::Namespace,
            HandshakesByArgument::Workload => Self::Workload,
            HandshakesByArgument::Role => Self::Role,
            HandshakesByArgument::None => Self::None,
        }
    }
}
