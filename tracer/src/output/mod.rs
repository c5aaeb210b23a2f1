//! What is written to stdout, and the summary on stderr.

mod columns;
mod connection;
mod diagram_rows;
mod diagram_svg;
mod diagram_text;
mod errno;
mod exit_report;
mod handshake_table;
mod handshake_words;
mod handshakes;
mod json;
mod sink;
mod stuck;
mod summary;
mod text;
mod transition;
mod wall_time;

pub use connection::ConnectionRow;
pub use diagram_rows::{DiagramEdgeRow, DiagramStateRow, diagram_title, write_diagram_text};
pub use diagram_svg::DiagramSvg;
pub use diagram_text::{DIAGRAM_HEIGHT, DIAGRAM_WIDTH, Piece, PieceKind, diagram, diagram_lines};
pub use exit_report::ExitReport;
pub use handshake_table::{HandshakeTable, histogram_lines};
pub use handshake_words::{fault as fault_text, group_text, story};
pub use handshakes::{HandshakeBucketRow, HandshakeGroupRow, SlowHandshakeRow};
pub use sink::{Format, Row, Sink};
pub use stuck::{GroupRow, StuckRow};
pub use summary::{AbandonedSummary, Summary};
pub use text::{duration_text, endpoint_text, escape};
pub use transition::TransitionRow;
pub use wall_time::{TimeStyle, rfc3339, utc};
