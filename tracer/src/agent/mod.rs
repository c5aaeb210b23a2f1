//! The daemon behind `serve`: metrics, the HTTP server, the log and systemd.

pub(crate) mod http;
pub(crate) mod label_lists;
pub(crate) mod listener_scan;
pub(crate) mod logging;
pub mod metrics;
pub mod overview;
pub(crate) mod process_figures;
pub(crate) mod publisher;
pub(crate) mod systemd;
