//! Where a recording goes: stdout, a file, or a set of files that are rotated.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Gid, Uid};

use crate::recording::writer::synced::SyncedFile;

/// When another file is begun, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// When a file has this many bytes.
    pub bytes: Option<u64>,
    /// When a file is this old, nanoseconds.
    pub age_ns: Option<u64>,
    /// How many files are kept; the oldest are removed.
    pub max_files: Option<usize>,
}

impl Rotation {
    /// Whether there is more than one file.
    pub fn is_on(&self) -> bool {
        self.bytes.is_some() || self.age_ns.is_some()
    }

    /// Whether a file of this size and age is full.
    pub fn is_due(&self, bytes: u64, age_ns: u64) -> bool {
        self.bytes.is_some_and(|most| bytes >= most) || self.age_ns.is_some_and(|most| age_ns >= most)
    }
}

/// Why a recording cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is there already.
    #[error("{} exists already: choose another name, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    /// It cannot be made.
    #[error("cannot create the recording {}: {cause}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A recording is not for people.
    #[error("a recording is not written to a terminal: redirect stdout, or name a file")]
    Terminal,
}

/// Where a recording goes.
#[derive(Debug)]
pub struct Target {
    /// None: stdout.
    path: Option<PathBuf>,
    rotation: Rotation,
    /// The files that are kept, oldest first.
    files: VecDeque<PathBuf>,
    made: u32,
}

/// A file of a recording, or stdout.
pub type Output = Box<dyn Write + Send>;

impl Target {
    /// A file, several files, or stdout for `-`. Files that are there already are refused unless `force`
    /// allows to overwrite them.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub fn new(path: &Path, rotation: Rotation, force: bool) -> Result<Self, TargetError> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(TargetError::Terminal);
            }
            return Ok(Self { path: None, rotation, files: VecDeque::new(), made: 0 });
        }
        let there: Vec<PathBuf> = if rotation.is_on() {
            parts_of(path)
        } else if path.try_exists().is_ok_and(|there| there) {
            vec![path.to_owned()]
        } else {
            Vec::new()
        };
        for path in there {
            // A device or a pipe is written to as it is.
            if !fs::metadata(&path).is_ok_and(|it| it.is_file()) {
                continue;
            }
            if !force {
                return Err(TargetError::Exists(path));
            }
            // A new file, with its own mode, rather than the old one emptied under whoever reads it.
            fs::remove_file(&path).map_err(|cause| TargetError::Create { path, cause })?;
        }
        Ok(Self { path: Some(path.to_owned()), rotation, files: VecDeque::new(), made: 0 })
    }

    /// When another file is begun.
    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// The files that are there, oldest first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// How many files were begun.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Whether it is stdout.
    pub fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    /// Begins the next file, readable by its owner only, and removes those that are too many.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn next_file(&mut self) -> Result<Output, TargetError> {
        self.made += 1;
        let Some(path) = &self.path else { return Ok(Box::new(io::stdout())) };
        let path = if self.rotation.is_on() { part_name(path, self.made) } else { path.clone() };
        let file = create(&path).map_err(|cause| TargetError::Create { path: path.clone(), cause })?;
        self.files.push_back(path.clone());
        if let Some(most) = self.rotation.max_files {
            while self.files.len() > most.max(1) {
                if let Some(oldest) = self.files.pop_front() {
                    // Gone already, or not ours to remove any more: the recording goes on.
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

/// Makes a file that is not there yet, with this mode; under sudo it is the caller's.
///
/// # Errors
///
/// When it is there, or cannot be made.
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    if let Some((user, group)) = caller() {
        // Without the capability the file stays root's, as any that root makes.
        let _ = rustix::fs::fchown(&file, Some(user), Some(group));
    }
    Ok(file)
}

/// Who called sudo: recording takes root, reading the file does not.
fn caller() -> Option<(Uid, Gid)> {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok().filter(|&id| id != u32::MAX);
    let ids = (Uid::from_raw(id("SUDO_UID")?), Gid::from_raw(id("SUDO_GID")?));
    rustix::process::geteuid().is_root().then_some(ids)
}

/// The name of a part: `web.arrows` becomes `web.0001.arrows`.
fn part_name(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{number:04}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The parts that an earlier run has left under this name.
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

    const EVERY: Rotation = Rotation { bytes: Some(1), age_ns: None, max_files: Some(2) };

    #[test]
    fn a_file_is_its_owners_and_not_overwritten() {
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
    fn a_folder_that_is_not_there_is_named() {
        let path = Path::new("/no/such/folder/a.arrows");
        let Err(error) = Target::new(path, Rotation::default(), false).unwrap().next_file() else { panic!() };
        assert!(error.to_string().contains("/no/such/folder/a.arrows"), "{error}");
    }
}
