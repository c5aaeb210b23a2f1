//! Recordings: what is written is what is read, whatever the events are and however the file ends.
#![expect(clippy::unwrap_used, reason = "a test")]

mod any_event;
mod damage;
mod files;
mod round_trip;
mod support;
