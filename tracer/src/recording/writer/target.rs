//! The target of a recording: stdout, a file, or rotated files.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Gid, Uid};
use tracer_core::event::Nanos;

use crate::recording::writer::synced::SyncedFile;

/// When to start a new file, and how many files to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Maximum size of a file, bytes.
    pub bytes: Option<u64>,
    /// When a file is this old.
    pub age: Option<Nanos>,
    /// Most files to keep. The oldest are removed.
    pub max_files: Option<usize>,
}

impl Rotation {
    /// Returns whether rotation is enabled.
    pub(crate) fn is_on(&self) -> bool {
        self.bytes.is_some() || self.age.is_some()
    }

    /// Returns whether a file of this size and age is full.
    pub(crate) fn is_due(&self, bytes: u64, age: Nanos) -> bool {
        self.bytes.is_some_and(|most| bytes >= most) || self.age.is_some_and(|most| age >= most)
    }
}

/// Why a recording cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TargetError {
    /// The file exists.
    #[error("{} exists already; choose another name, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    /// The file cannot be created.
    #[error("cannot create the recording {}: {cause}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// Stdout is a terminal.
    #[error("a recording is binary and cannot be written to a terminal; redirect stdout, or name a file")]
    Terminal,
}

/// The target of a recording.
#[derive(Debug)]
pub(crate) struct Target {
    /// `None` for stdout.
    path: Option<PathBuf>,
    rotation: Rotation,
    /// The files of this run that are kept, oldest first.
    files: VecDeque<PathBuf>,
    made: u32,
}

/// A file of a recording, or stdout.
pub(crate) type Output = Box<dyn Write + Send>;

impl Target {
    /// Creates a target for a path; `-` is stdout. With `force`, existing files are overwritten.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub(crate) fn new(path: &Path, rotation: Rotation, force: bool) -> Result<Self, TargetError> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(TargetError::Terminal);
            }
            return Ok(Self { path: None, rotation, files: VecDeque::new(), made: 0 });
        }
        let existing: Vec<PathBuf> = if rotation.is_on() {
            parts_of(path)
        } else if path.try_exists().is_ok_and(|exists| exists) {
            vec![path.to_owned()]
        } else {
            Vec::new()
        };
        for path in existing {
            // Devices and pipes are not replaced.
            if !fs::metadata(&path).is_ok_and(|it| it.is_file()) {
                continue;
            }
            if !force {
                return Err(TargetError::Exists(path));
            }
            // Removed instead of truncated, so that the new file has its own mode and readers of the old one keep it.
            fs::remove_file(&path).map_err(|cause| TargetError::Create { path, cause })?;
        }
        Ok(Self { path: Some(path.to_owned()), rotation, files: VecDeque::new(), made: 0 })
    }

    /// Returns the rotation.
    pub(crate) fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Returns the files that are kept, oldest first.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Returns how many files were started.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Returns whether the target is stdout.
    pub(crate) fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    /// Starts the next file, which only its owner can read, and removes the oldest files beyond the limit.
    ///
    /// # Errors
    ///
    /// When the file cannot be created.
    pub(crate) fn next_file(&mut self) -> Result<Output, TargetError> {
        self.made += 1;
        let Some(path) = &self.path else { return Ok(Box::new(io::stdout())) };
        let path = if self.rotation.is_on() { part_name(path, self.made) } else { path.clone() };
        let file = create(&path).map_err(|cause| TargetError::Create { path: path.clone(), cause })?;
        self.files.push_back(path.clone());
        if let Some(most) = self.rotation.max_files {
            while self.files.len() > most.max(1) {
                if let Some(oldest) = self.files.pop_front() {
                    // The recording continues if the file cannot be removed.
                    let _ = fs::remove_file(oldest);
                }
            }
        }
        Ok(Box::new(SyncedFile::new(file, path)))
    }
}

fn create(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|it| !it.is_file()) {
        return OpenOptions::new().write(true).open(path);
    }
    create_new(path, 0o600)
}

/// Creates a new file with this mode. Under sudo, the file belongs to the caller of sudo.
///
/// # Errors
///
/// When the file exists or cannot be created.
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    if let Some((user, group)) = caller() {
        // Without the capability, root stays the owner.
        let _ = rustix::fs::fchown(&file, Some(user), Some(group));
    }
    Ok(file)
}

/// Returns the user and group that called sudo.
fn caller() -> Option<(Uid, Gid)> {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok().filter(|&id| id != u32::MAX);
    let ids = (Uid::from_raw(id("SUDO_UID")?), Gid::from_raw(id("SUDO_GID")?));
    rustix::process::geteuid().is_root().then_some(ids)
}

/// Returns the name of a part: `web.arrows` becomes `web.0001.arrows`.
fn part_name(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{number:04}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Returns the existing parts of an earlier run with this name.
fn parts_of(path: &Path) -> Vec<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_part = |other: &Path| {
        let number = other.file_stem().and_then(|stem| {
            let stem = Path::new(stem);
            let number = if path.extension().is_some() { stem.extension() } else { other.extension() };
            number?.to_str()?.parse::<u32>().ok()
        });
        number.is_some_and(|number| part_name(path, number).file_name() == other.file_name())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|other| is_part(other)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const EVERY: Rotation = Rotation { bytes: Some(1), age: None, max_files: Some(2) };

    #[test]
    fn a_file_is_private_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrows");
        let mut target = Target::new(&path, Rotation::default(), false).unwrap();
        target.next_file().unwrap().write_all(b"old").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Target::new(&path, Rotation::default(), false).unwrap_err().to_string();
        assert!(error.contains("exists already") && error.contains("--force"), "{error}");
        let mut target = Target::new(&path, Rotation::default(), true).unwrap();
        target.next_file().unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn the_oldest_files_are_removed() {
        for (name, kept) in [("a.arrows", ["a.0003.arrows", "a.0004.arrows"]), ("a", ["a.0003", "a.0004"])] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            let mut target = Target::new(&path, EVERY, false).unwrap();
            for _ in 0..4 {
                target.next_file().unwrap();
            }
            let mut names: Vec<_> =
                fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, kept);
            assert_eq!(target.files().count(), 2);
            assert!(matches!(Target::new(&path, EVERY, false), Err(TargetError::Exists(_))));
            Target::new(&path, EVERY, true).unwrap();
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        }
    }

    #[test]
    fn the_error_names_a_missing_folder() {
        let path = Path::new("/no/such/folder/a.arrows");
        let Err(error) = Target::new(path, Rotation::default(), false).unwrap().next_file() else { panic!() };
        assert!(error.to_string().contains("/no/such/folder/a.arrows"), "{error}");
    }
}
