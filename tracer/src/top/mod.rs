//! The live full-screen view: a pure model fed by observations, what the user wants to see, and the drawing.
//!
//! The thread that reads the source feeds the [`Model`] and leaves a [`Screen`] for the thread that draws; what the
//! user wants, [`Settings`], goes the other way. Nothing here asks a clock: rates and ages come from the events.

mod input;
mod lines;
mod model;
mod popup;
mod settings;
mod tables;
mod theme;
mod view;

pub use input::{Input, apply};
pub use lines::{ConnectionLine, EdgeLine, HandshakeLine, OwnerLine, Screen, StateLine};
pub use model::Model;
pub use settings::{Settings, Sort, Tab};
pub use theme::Theme;
pub use view::{Regions, draw};
