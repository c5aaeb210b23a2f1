//! The pure core of `tcptrace-bpf`.
#![forbid(unsafe_code)]

pub mod analysis;
pub mod escape;
pub mod event;
pub mod lifecycle;
pub mod owner;
