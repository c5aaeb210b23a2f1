//! The live full-screen view: a pure model, the user's settings, and the drawing.
//!
//! The tracing thread feeds the [`Model`] and hands a [`Screen`] to the drawing thread. The user's [`Settings`] go the
//! other way. Nothing here reads a clock: rates and ages come from the events.

mod connection_lines;
mod connection_table;
mod drill_down;
mod group_lines;
mod input;
mod lines;
mod model;
mod owner_lines;
mod popup;
mod query;
mod rates;
mod saved_view;
mod settings;
mod tables;
mod theme;
mod view;

pub use input::{Effect, apply};
pub use lines::{ConnectionLine, EdgeLine, HandshakeLine, ListenerLine, OwnerLine, Screen, StateLine};
pub use model::Model;
pub(crate) use popup::KEYS;
pub use query::{Queries, Query, Sort};
pub use saved_view::SavedView;
pub use settings::{Settings, Tab};
pub use theme::Theme;
pub use view::{Regions, draw};
