//! The options of `listeners`.

use clap::Args;

use crate::report::PortSet;

/// Options of `listeners`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenersArguments {
    /// Ports and ranges to list, such as 80,443,8000-8099; the same as --local-port
    #[arg(long, value_name = "PORTS", conflicts_with = "local_port")]
    pub(crate) port: Option<PortSet>,
}
