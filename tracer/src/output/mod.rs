//! What is written to stdout, and the summary on stderr.

mod connection;
mod errno;
mod exit_report;
mod sink;
mod stuck;
mod summary;
mod text;
mod transition;

pub use connection::ConnectionRow;
pub use exit_report::ExitReport;
pub use sink::{Format, Row, Sink};
pub use stuck::{GroupRow, StuckRow};
pub use summary::{AbandonedSummary, Summary};
pub use text::{TimeStyle, escape, utc};
pub use transition::TransitionRow;
