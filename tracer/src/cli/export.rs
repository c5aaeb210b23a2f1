//! The options of `export`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::file_names,
    report::export::{FileFormat, Table},
};

/// Options of `export`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportArguments {
    /// Recording to export: one file, or several files of one run
    #[arg(value_name = "RECORDING", required = true)]
    pub(crate) recording: Vec<PathBuf>,
    /// Destination: a folder, with one file per host and hour, or a .parquet or .csv file
    #[arg(long, value_name = "FOLDER|FILE")]
    pub(crate) to: PathBuf,
    /// Format of the files; by default from the file name, otherwise parquet
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// Tables to export
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Table::Connections, Table::Transitions, Table::OpenConnections])]
    pub(crate) what: Vec<Table>,
    /// Overwrite existing files
    #[arg(long)]
    pub(crate) force: bool,
}

impl ExportArguments {
    /// Returns the format of the files.
    pub(crate) fn format(&self) -> FileFormat {
        self.format.or(self.format_of_name()).unwrap_or(FileFormat::Parquet)
    }

    /// Returns whether the destination is one file.
    pub(crate) fn is_one_file(&self) -> bool {
        self.format_of_name().is_some()
    }

    fn format_of_name(&self) -> Option<FileFormat> {
        let extension = self.to.extension()?;
        [FileFormat::Parquet, FileFormat::Csv].into_iter().find(|format| extension == format.extension())
    }

    /// Returns whether only closed connections are exported.
    pub(super) fn exports_only_closed(&self) -> bool {
        self.what == [Table::Connections]
    }

    /// Returns the error of options that contradict each other, or of a file name that `export` does not write.
    pub(super) fn conflict(&self) -> Option<String> {
        let repeated = (1..self.what.len()).any(|at| self.what[..at].contains(&self.what[at]));
        let sentence = if repeated {
            "--what names a table twice"
        } else if self.is_one_file() && self.what.len() > 1 {
            "one file holds one table: give --what connections, --what transitions or --what open_connections, or a \
             folder to --to"
        } else if self.is_one_file() && self.format_of_name() != Some(self.format()) {
            "the file name and --format do not agree"
        } else {
            return file_names::refused_export(&self.to, &self.recording);
        };
        Some(sentence.to_owned())
    }
}
