//! The live full-screen view: a pure model, the user's settings, and the drawing.
//!
//! The tracing thread feeds the [`Model`] and hands a [`Screen`] to the drawing thread. The user's [`Settings`] go the
//! other way. Nothing here reads a clock: rates and ages come from the events.

mod drill_down;
mod input;
mod lines;
mod model;
mod popup;
mod settings;
mod tables;
mod theme;
mod view;

pub use input::{Effect, apply};
pub use lines::{ConnectionLine, EdgeLine, HandshakeLine, ListenerLine, OwnerLine, Screen, StateLine};
pub use model::Model;
pub use settings::{Settings, Sort, Tab};
pub use theme::Theme;
pub use view::{Regions, draw};
