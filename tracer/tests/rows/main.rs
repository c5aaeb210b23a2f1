//! Rows and exit reports of scripted and generated connections.

mod exit_report;
mod rows;
