//! Which file a row goes to, and making it.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::report::{
    Format, Row, Sink, TimeStyle,
    export::{columns::nanoseconds, parquet_file::ParquetFile, schema::Table},
};

/// The form of the exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// Parquet, compressed by Zstandard
    Parquet,
    /// Comma-separated values, as `-o csv` writes them
    Csv,
}

impl FileFormat {
    /// The end of the file names.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// Why something cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file is there already.
    #[error("{} exists already: remove it, overwrite it with --force, or export to another place", .0.display())]
    Exists(PathBuf),
    /// A file cannot be made or written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Where to.
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
        /// The name of the files, which no other recording's have.
        name: String,
    },
}

/// Hours whose files are open at once: events come in their order, but for those from several processors.
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

/// A file that has its name when it is whole, so that no engine reads half of one.
struct Partial {
    path: PathBuf,
    content: Content,
    /// Removed after the content, whose file it is.
    temporary: Temporary,
}

/// The name of a file while it is written; what is not finished is removed.
struct Temporary(PathBuf);

impl Temporary {
    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Of a finished file this name is no more; what cannot be removed is at least called partial.
        let _ = fs::remove_file(&self.0);
    }
}

enum Content {
    Parquet(Box<ParquetFile>),
    Csv(Sink<File>),
}

impl Partitions {
    /// Nothing yet.
    pub fn new(table: Table, format: FileFormat, destination: Destination, force: bool) -> Self {
        Self { table, format, destination, force, open: VecDeque::new(), made: 0, rows: 0 }
    }

    /// How many rows were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many files were begun.
    pub fn files(&self) -> u32 {
        self.made
    }

    /// Writes a row of this table.
    ///
    /// # Errors
    ///
    /// When its file cannot be made or written.
    pub fn write<R: Row>(&mut self, row: &R) -> Result<(), ExportError> {
        let value = serde_json::to_value(row).unwrap_or_default();
        let hour = match &self.destination {
            Destination::File(_) => 0,
            // A connection whose end was not seen has no time; it is with those that had just ended.
            Destination::Folder { .. } => {
                let time = value[self.table.time_column()].as_str().and_then(nanoseconds);
                match (time, self.open.back()) {
                    (Some(time), _) => time.div_euclid(3_600_000_000_000),
                    (None, Some((hour, _))) => *hour,
                    (None, None) => 0,
                }
            }
        };
        self.rows += 1;
        let partial = self.partial(hour)?;
        let written = match &mut partial.content {
            Content::Parquet(file) => file.push(&value),
            Content::Csv(sink) => sink.write(row),
        };
        written.map_err(|cause| ExportError::Write { path: partial.path.clone(), cause })
    }

    /// Finishes every file.
    ///
    /// # Errors
    ///
    /// When one cannot be written.
    pub fn finish(&mut self) -> Result<(), ExportError> {
        if self.made == 0 && matches!(self.destination, Destination::File(_)) {
            // A file was asked for: one without rows says that there were none.
            self.partial(0)?;
        }
        while let Some((_, partial)) = self.open.pop_front() {
            partial.finish()?;
        }
        Ok(())
    }

    fn partial(&mut self, hour: i64) -> Result<&mut Partial, ExportError> {
        let at = self.open.iter().position(|(open, _)| *open == hour);
        let at = if let Some(at) = at {
            at
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
        Ok(&mut self.open[at].1)
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

/// A host's name as the name of a folder; whatever else stands in the metadata of a recording.
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
                    Table::Connections => sink.begin::<crate::report::ConnectionRow>()?,
                    Table::Transitions => sink.begin::<crate::report::TransitionRow>()?,
                }
                Self::Csv(sink)
            }
        })
    }
}

/// As a recording, it holds addresses and names of processes: it is its owner's.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_folder_whatever_its_name() {
        assert_eq!(folder_name("web-1.example"), "web-1.example");
        assert_eq!(folder_name("../../etc"), ".._.._etc");
        assert_eq!(folder_name(""), "unknown");
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let names = |folder: &tempfile::TempDir| {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            entries.collect::<Vec<_>>()
        };
        for format in [FileFormat::Parquet, FileFormat::Csv] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let partial = || Partial::new(path.clone(), Table::Connections, format, true).unwrap();
            let begun = partial();
            assert_eq!(names(&folder), ["a.partial"]);
            drop(begun);
            assert!(names(&folder).is_empty());
            partial().finish().unwrap();
            assert_eq!(names(&folder), ["a"]);
            // It cannot have its name.
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(matches!(partial().finish(), Err(ExportError::Write { .. })));
            assert_eq!(names(&folder), ["a"]);
        }
    }
}
