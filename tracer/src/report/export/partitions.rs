//! Distributes rows over files by host and hour.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::report::{
    export::{
        parquet_file::ParquetFile,
        schema::{ExportRow, Table},
    },
    rows::{connection::ConnectionRow, open_connection::OpenConnectionRow, transition::TransitionRow},
    sink::{Format, Sink},
    text::wall_time::{Rfc3339, TimeStyle},
};

/// The format of the exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// Parquet, compressed with Zstandard
    Parquet,
    /// Comma-separated values, as `-o csv` writes them
    Csv,
}

impl FileFormat {
    /// The extension of the file names.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// An error of an export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file exists already.
    #[error("{} exists already: remove it, overwrite it with --force, or export elsewhere", .0.display())]
    Exists(PathBuf),
    /// A file cannot be created or written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// The destination of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// One file.
    File(PathBuf),
    /// A folder with a file for each host and hour: `TABLE/host=NAME/date=DAY/hour=HH/RUN.parquet`.
    Folder {
        /// The folder.
        path: PathBuf,
        /// The recorded host.
        host: String,
        /// The name of the files, unique to the recording.
        name: String,
    },
}

/// Hours whose files are open at once. Events are in order, except for those of different CPUs.
const OPEN_HOURS: usize = 2;

/// The files of one table.
pub struct Partitions {
    table: Table,
    format: FileFormat,
    destination: Destination,
    force: bool,
    /// By hour since 1970, the oldest first.
    open: VecDeque<(i64, Partial)>,
    made: u32,
    rows: u64,
}

/// A file that gets its name when it is complete, so that readers never see a part of it.
struct Partial {
    path: PathBuf,
    content: Content,
    /// Dropped after the content, whose file it names.
    temporary: Temporary,
}

/// The name of a file while it is written; removes the file unless it is renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails after a rename. A file that cannot be removed keeps the name `.partial`.
        let _ = fs::remove_file(&self.0);
    }
}

enum Content {
    Parquet(Box<ParquetFile>),
    Csv(Sink<File>),
}

impl Partitions {
    /// Creates an export without files.
    pub fn new(table: Table, format: FileFormat, destination: Destination, force: bool) -> Self {
        Self { table, format, destination, force, open: VecDeque::new(), made: 0, rows: 0 }
    }

    /// Returns how many rows were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns how many files were created.
    pub fn files(&self) -> u32 {
        self.made
    }

    /// Writes a row of this table.
    ///
    /// # Errors
    ///
    /// When its file cannot be created or written.
    pub fn write<R: ExportRow>(&mut self, row: &R) -> Result<(), ExportError> {
        let hour = match &self.destination {
            Destination::File(_) => 0,
            // A connection whose end was not seen has no time; it joins the latest hour.
            Destination::Folder { .. } => {
                let time = row.partition_time().and_then(Rfc3339::nanoseconds);
                match (time, self.open.back()) {
                    (Some(time), _) => hour_of(time),
                    (None, Some((hour, _))) => *hour,
                    (None, None) => 0,
                }
            }
        };
        self.rows += 1;
        let partial = self.partial(hour)?;
        let written = match &mut partial.content {
            Content::Parquet(file) => file.push(row),
            Content::Csv(sink) => sink.write(row),
        };
        written.map_err(|cause| ExportError::Write { path: partial.path.clone(), cause })
    }

    /// Finishes every file. A table without rows gets a file without rows, in the hour of `end`, so that queries find the
    /// table.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn finish(&mut self, end: Option<Rfc3339>) -> Result<(), ExportError> {
        if self.made == 0 {
            let hour = match self.destination {
                Destination::File(_) => 0,
                Destination::Folder { .. } => end.and_then(Rfc3339::nanoseconds).map_or(0, hour_of),
            };
            self.partial(hour)?;
        }
        while let Some((_, partial)) = self.open.pop_front() {
            partial.finish()?;
        }
        Ok(())
    }

    fn partial(&mut self, hour: i64) -> Result<&mut Partial, ExportError> {
        let index = self.open.iter().position(|(open, _)| *open == hour);
        let index = if let Some(index) = index {
            index
        } else {
            if self.open.len() >= OPEN_HOURS
                && let Some((_, oldest)) = self.open.pop_front()
            {
                oldest.finish()?;
            }
            self.made += 1;
            let partial = Partial::new(self.path(hour), self.table, self.format, self.force)?;
            self.open.push_back((hour, partial));
            self.open.len() - 1
        };
        Ok(&mut self.open[index].1)
    }

    fn path(&self, hour: i64) -> PathBuf {
        match &self.destination {
            Destination::File(path) => path.clone(),
            Destination::Folder { path, host, name } => {
                let start = jiff::Timestamp::from_second(hour.saturating_mul(3600)).unwrap_or_default();
                path.join(self.table.name())
                    .join(format!("host={}", folder_name(host)))
                    .join(format!("date={}", start.strftime("%Y-%m-%d")))
                    .join(format!("hour={}", start.strftime("%H")))
                    .join(format!("{name}-{}.{}", self.made, self.format.extension()))
            }
        }
    }
}

/// Returns the hour of a time in nanoseconds, both since 1970.
fn hour_of(time: i64) -> i64 {
    time.div_euclid(3_600_000_000_000)
}

/// Returns a folder name for a host name, which a recording's metadata may hold in any form.
fn folder_name(host: &str) -> String {
    let kept = |it: char| if it.is_ascii_alphanumeric() || "-_.".contains(it) { it } else { '_' };
    let name: String = host.chars().take(255).map(kept).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

impl Partial {
    fn new(path: PathBuf, table: Table, format: FileFormat, force: bool) -> Result<Self, ExportError> {
        if !force && path.try_exists().unwrap_or(false) {
            return Err(ExportError::Exists(path));
        }
        let mut temporary = path.clone().into_os_string();
        temporary.push(".partial");
        let temporary = PathBuf::from(temporary);
        let cannot = |cause| ExportError::Write { path: path.clone(), cause };
        let file = create(&temporary).map_err(cannot)?;
        let temporary = Temporary(temporary);
        let content = Content::new(file, table, format).map_err(cannot)?;
        Ok(Self { path, content, temporary })
    }

    fn finish(self) -> Result<(), ExportError> {
        let Self { path, content, temporary } = self;
        let finished = match content {
            Content::Parquet(file) => file.finish(),
            Content::Csv(mut sink) => sink.flush(),
        };
        finished.and_then(|()| temporary.rename(&path)).map_err(|cause| ExportError::Write { path, cause })
    }
}

impl Content {
    fn new(file: File, table: Table, format: FileFormat) -> io::Result<Self> {
        Ok(match format {
            FileFormat::Parquet => Self::Parquet(Box::new(ParquetFile::new(file, table)?)),
            FileFormat::Csv => {
                let mut sink = Sink::new(file, Format::Csv, TimeStyle::Utc);
                match table {
                    Table::Connections => sink.begin::<ConnectionRow>()?,
                    Table::Transitions => sink.begin::<TransitionRow>()?,
                    Table::OpenConnections => sink.begin::<OpenConnectionRow>()?,
                }
                Self::Csv(sink)
            }
        })
    }
}

/// Creates a file that only its owner can read: it holds addresses and process names.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use tracer_core::event::{ClockOffset, Timestamp};

    use super::*;
    use crate::report::text::wall_time::rfc3339;

    #[test]
    fn any_host_name_is_one_folder() {
        assert_eq!(folder_name("web-1.example"), "web-1.example");
        assert_eq!(folder_name("../../etc"), ".._.._etc");
        assert_eq!(folder_name(""), "unknown");
    }

    #[test]
    fn a_table_without_rows_has_a_file_in_the_hour_of_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::Folder {
            path: folder.path().to_owned(),
            host: "web-1".to_owned(),
            name: "run-1".to_owned(),
        };
        let mut empty = Partitions::new(Table::OpenConnections, FileFormat::Csv, destination, false);
        let clock = ClockOffset { to_utc_ns: 1_795_240_800_000_000_000 };
        empty.finish(Some(rfc3339(Timestamp(1), clock))).unwrap();
        assert_eq!((empty.rows(), empty.files()), (0, 1));
        let file = "open_connections/host=web-1/date=2026-11-21/hour=06/run-1-1.csv";
        let text = fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.starts_with("type,connection_id,time,state,age_us,"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn an_unfinished_file_is_removed() {
        let names = |folder: &tempfile::TempDir| {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            entries.collect::<Vec<_>>()
        };
        for format in [FileFormat::Parquet, FileFormat::Csv] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let partial = || Partial::new(path.clone(), Table::Connections, format, true).unwrap();
            let unfinished = partial();
            assert_eq!(names(&folder), ["a.partial"]);
            drop(unfinished);
            assert!(names(&folder).is_empty());
            partial().finish().unwrap();
            assert_eq!(names(&folder), ["a"]);
            // A folder has the name: renaming fails.
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(matches!(partial().finish(), Err(ExportError::Write { .. })));
            assert_eq!(names(&folder), ["a"]);
        }
    }
}
