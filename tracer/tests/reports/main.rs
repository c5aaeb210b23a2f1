//! The reports of the analyses as text, SVG and screens.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod attempts;
mod compared;
mod diagram;
mod events;
mod handshakes;
mod joined;
mod listeners;
mod stories;
mod top;
