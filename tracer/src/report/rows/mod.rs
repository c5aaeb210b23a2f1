//! The row types, one per file: each declares its fields, and the columns of its table.

pub(super) mod comparison;
pub(super) mod connection;
pub(super) mod diagram_edge;
pub(super) mod diagram_state;
pub(super) mod handshake_bucket;
pub(super) mod handshake_group;
pub(super) mod join;
pub(super) mod joined_handshake;
pub(super) mod listener;
pub(super) mod listener_drops;
pub(super) mod open_connection;
pub(super) mod segment_drop;
pub(super) mod shift;
pub(super) mod slow_handshake;
pub(super) mod state_span;
pub(super) mod stuck;
pub(super) mod stuck_group;
pub(super) mod transition;
