//! The daemon.

pub(crate) mod http;
pub(crate) mod logging;
pub mod metrics;
pub(crate) mod publisher;
pub(crate) mod queue_scan;
pub(crate) mod systemd;
