//! The log on stderr.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;

use crate::report::ColorChoice;

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Plain text
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Lowest level that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Only errors
    Error,
    /// Also warnings, which need an operator
    Warn,
    /// Also normal operation
    #[default]
    Info,
    /// Also details for debugging
    Debug,
}

/// Starts the log. A log that is already started stays. JSON has no colors.
pub(crate) fn start(level: LogLevel, format: LogFormat, color: ColorChoice) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        // An unwritable stderr would be reported on stderr, which panics.
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(format == LogFormat::Text && color.palette(&io::stderr()).has_colors());
    // The journal adds its own timestamps.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text if in_journal => log.without_time().try_init(),
        LogFormat::Text => log.try_init(),
    };
}
