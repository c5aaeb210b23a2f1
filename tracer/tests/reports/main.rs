//! What the analyses come to, and how it is drawn.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod diagram;
mod handshakes;
mod lives;
mod openings;
mod stories;
mod top;
