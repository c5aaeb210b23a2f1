//! The HTTP server: listening sockets, TLS, authentication, client limits and pages.

mod address;
pub(crate) mod auth;
pub(crate) mod clients;
mod freeze_api;
mod gzip;
mod host_check;
pub(crate) mod listen;
pub(crate) mod live_page;
pub(crate) mod pages;
pub(crate) mod timeouts;
pub(crate) mod web_config;

pub(crate) use address::ListenAddress;
