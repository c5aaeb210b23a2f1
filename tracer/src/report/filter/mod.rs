//! Filters of the commands.

mod connection_cgroups;
mod criteria;
mod first_transitions;
mod parse;

pub use connection_cgroups::ConnectionCgroups;
pub use criteria::Filter;
pub use first_transitions::{FirstTransitions, Released};
pub use parse::{PortSet, parse_network, parse_state};
