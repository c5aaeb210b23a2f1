//! Scripted and generated connections, for tests.

pub mod generated;
pub mod script;
