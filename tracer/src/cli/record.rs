//! The options of `record`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    cli::{FlightArguments, parsers::parse_rotation},
    recording::Rotation,
};

/// Options of `record`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordArguments {
    /// File to write; `-` is stdout. With --rotate, the name gets a number, as in trace.0001.arrows; with --ring, the time,
    /// as in trace.20261121T055959123Z.arrows
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    pub(crate) force: bool,
    /// Start a new file at this size, such as 100M, or after this time, such as 1h
    #[arg(long, value_name = "SIZE|TIME", value_parser = parse_rotation)]
    pub(crate) rotate: Option<Rotation>,
    /// Keep this many files and remove the oldest
    #[arg(long, value_name = "N", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_files: Option<u32>,
    /// The flight recorder.
    #[command(flatten)]
    pub(crate) flight: FlightArguments,
}

impl RecordArguments {
    /// Returns when a new file starts and how many files are kept.
    pub(crate) fn rotation(&self) -> Rotation {
        let max_files = self.max_files.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Rotation { max_files, ..self.rotate.unwrap_or_default() }
    }

    /// Returns the error of options that contradict each other.
    pub(super) fn conflict(&self) -> Option<&'static str> {
        if self.flight.ring.is_none() {
            return self.flight.conflict();
        }
        if self.file == Path::new("-") {
            Some("--ring writes files when a condition holds; give the name of a file instead of `-`")
        } else if self.rotate.is_some() {
            Some("--rotate writes everything and --ring only the last events; give one of them")
        } else if self.force {
            Some("--force has no use with --ring, whose files have the time in their names")
        } else {
            None
        }
    }
}
