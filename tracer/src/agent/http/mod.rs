//! The HTTP server: listening sockets, TLS, authentication, client limits and pages.

mod address;
pub(crate) mod auth;
pub(crate) mod clients;
pub(crate) mod listen;
pub(crate) mod pages;
pub(crate) mod timeouts;
pub(crate) mod web_config;

pub(crate) use address::ListenAddress;
