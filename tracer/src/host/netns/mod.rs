//! Network namespaces: listing them, and naming one.

mod enumerate;
mod spec;

pub use enumerate::{NetNamespaces, NetNs, NetnsLimits, enumerate_netns};
pub use spec::{NetnsError, NetnsSpec, parse_spec};
