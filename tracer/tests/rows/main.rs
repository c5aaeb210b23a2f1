//! Rows and reports of scripted and generated connections.

mod exit_report;
mod rows;
