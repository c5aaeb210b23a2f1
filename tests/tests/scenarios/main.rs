//! Runs the program against the real kernel. Each scenario opens one kind of connection in a new network
//! namespace and asserts what the program reports.
//!
//! All scenarios require root and fail without it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports a failure")]

mod abandoned;
mod accounting;
mod after_close;
mod backends;
mod closing;
mod colors;
mod compare;
mod compression;
mod connection_setup;
mod containers;
mod deferred;
mod diagram;
mod filters;
mod flight;
mod formats;
mod handshakes;
mod investigation;
mod join;
mod lifecycle;
mod listener_drops;
mod listeners;
mod listeners_command;
mod names;
mod overload;
mod owners;
mod page;
mod page_numbers;
mod privileges;
mod prometheus;
mod recording;
mod refused;
mod reload;
mod robustness;
mod serve;
mod simultaneous;
mod snapshot;
mod start_and_exit;
mod stuck;
mod support;
mod time_wait;
mod top;
mod visibility;
mod whole_handshake;
