//! The options of `handshakes`.

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
}

/// What handshakes are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HandshakesByArgument {
    /// Service: remote address and port for clients, local port for servers
    #[default]
    Service,
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
    /// Role: client or server
    Role,
    /// One group for all
    None,
}

impl From<HandshakesByArgument> for HandshakesBy {
    fn from(by: HandshakesByArgument) -> Self {
        match by {
            HandshakesByArgument::Service => Self::Service,
            HandshakesByArgument::Remote => Self::Remote,
            HandshakesByArgument::RemotePort => Self::RemotePort,
            HandshakesByArgument::LocalPort => Self::LocalPort,
            HandshakesByArgument::Process => Self::Process,
            HandshakesByArgument::Container => Self::Container,
            HandshakesByArgument::Role => Self::Role,
            HandshakesByArgument::None => Self::None,
        }
    }
}
