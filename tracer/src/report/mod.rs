//! Output on stdout and stderr: rows, tables, diagrams, exported files, and the summary.

mod compare_table;
mod csv;
mod diagram;
mod exit_report;
pub mod export;
pub(crate) mod fields;
mod filter;
mod handshake_table;
mod join_table;
mod json;
mod listener_table;
mod row;
mod rows;
mod sink;
mod summary;
mod text;

pub use compare_table::CompareTable;
pub use diagram::{
    DIAGRAM_HEIGHT, DIAGRAM_WIDTH, DiagramSvg, Piece, PieceKind, diagram, diagram_lines, diagram_title,
    write_diagram_text,
};
pub use exit_report::ExitReport;
pub use fields::{Field, FieldKind, Fields, ValueWriter};
pub use filter::{
    ConnectionCgroups, Filter, FirstTransitions, PortSet, Released, parse_network, parse_state,
};
pub use handshake_table::{HandshakeTable, histogram_lines};
pub use join_table::JoinTable;
pub(crate) use json::json_line;
pub use listener_table::ListenerTable;
pub use row::Row;
pub use rows::{
    comparison::ComparisonRow, connection::ConnectionRow, diagram_edge::DiagramEdgeRow,
    diagram_state::DiagramStateRow, handshake_bucket::HandshakeBucketRow, handshake_group::HandshakeGroupRow,
    join::JoinRow, joined_handshake::JoinedHandshakeRow, listener::ListenerRow,
    listener_drops::ListenerDropsRow, shift::ShiftRow, slow_handshake::SlowHandshakeRow, stuck::StuckRow,
    stuck_group::GroupRow, transition::TransitionRow,
};
pub use sink::{Format, Sink};
pub use summary::{AbandonedSummary, DropSummary, Summary};
pub use text::{
    comparison::ComparedHosts,
    endpoint::endpoint_text,
    handshake::{fault_text, group_text, story},
    joined::{JoinHosts, join_summary, joined_story},
    quantity::{bytes_text, counted, duration_text},
    table_width::TableWidth,
    wall_time::{Rfc3339, TimeStyle, rfc3339, utc},
};
pub(crate) use text::{
    endpoint::{known_address, known_port, network_type},
    name::ProcessName,
    quantity::microseconds,
};
