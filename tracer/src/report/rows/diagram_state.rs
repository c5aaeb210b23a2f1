//! A state of the state diagram.

use tracer_core::event::TcpState;

use crate::report::{fields::fields, text::table::table};

/// A state of the state diagram, with its connections.
#[derive(Clone, Copy, Debug)]
pub struct DiagramStateRow {
    state: TcpState,
    live: u64,
}

impl DiagramStateRow {
    /// Creates the row of a state with `live` connections.
    pub fn new(state: TcpState, live: u64) -> Self {
        Self { state, live }
    }
}

fields! { DiagramStateRow, |row| {
    /// `diagram_state`
    type: &'static str = "diagram_state";
    /// The state
    state: &'static str = row.state.name();
    /// Connections in the state at the end. With a filter, timewait sockets are not counted: `time_wait`, and
    /// `fin_wait_2` without an application
    live: u64 ["connections"] = row.live;
}}

table! { DiagramStateRow, |row, wide| {
    left 11 "STATE" = row.state.name();
    right 8 "LIVE" = row.live;
}}
