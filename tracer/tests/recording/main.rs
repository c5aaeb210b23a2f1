//! Recordings: round trips of any events, and truncated or damaged files.
#![expect(clippy::unwrap_used, reason = "a test")]

mod any_event;
mod damage;
mod files;
mod round_trip;
mod support;
