//! Network namespaces: enumeration, and the value of `--netns`.

mod enumerate;
mod spec;

pub use enumerate::{HostNetns, NetnsLimits, enumerate_netns};
pub use spec::parse_spec;
