//! The daemon.

pub mod http;
pub mod logging;
pub mod metrics;
pub(crate) mod publisher;
pub(crate) mod queue_scan;
pub(crate) mod systemd;
