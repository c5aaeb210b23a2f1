//! The files of a flight recorder: their names, and how many are kept.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};
use tracer_core::event::{ClockOffset, Timestamp};

use crate::recording::{create_new, to_utc};

/// Why frozen files cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// The folder does not exist or is not writable.
    #[error(
        "frozen files cannot be written to {}: {cause}; name a folder that exists and that this user may write",
        folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// Where frozen files are written, and how many are kept.
#[derive(Clone, Debug)]
pub(crate) struct FrozenFiles {
    folder: PathBuf,
    /// The name up to the time, with its dot.
    prefix: String,
    /// The name after the time.
    suffix: String,
    most: usize,
}

impl FrozenFiles {
    /// Uses names like that of `path` with a time: `web.arrows` becomes `web.20261121T055959123Z.arrows`. The newest `most`
    /// are kept, those of earlier runs included.
    pub(crate) fn new(path: &Path, most: usize) -> Self {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let prefix = format!("{}.", text(path.file_stem()).unwrap_or_default());
        let suffix = text(path.extension()).map_or_else(String::new, |extension| format!(".{extension}"));
        Self { folder, prefix, suffix, most: most.max(1) }
    }

    /// Checks that the folder exists and that files can be created in it.
    ///
    /// # Errors
    ///
    /// [`FilesError`].
    pub(crate) fn check(&self) -> Result<(), FilesError> {
        access(&self.folder, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|cause| FilesError::Folder { folder: self.folder.clone(), cause: cause.into() })
    }

    /// Returns the name pattern, for people.
    pub(crate) fn shown(&self) -> String {
        self.folder.join(format!("{}TIME{}", self.prefix, self.suffix)).display().to_string()
    }

    /// Creates a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// When it cannot be created; also if the file of this millisecond exists.
    pub(super) fn create(&self, time: Timestamp, clock: ClockOffset) -> io::Result<(PathBuf, File)> {
        let utc = jiff::Timestamp::from_nanosecond(to_utc(time, clock).into()).map_err(io::Error::other)?;
        let name = format!("{}{}{}", self.prefix, utc.strftime("%Y%m%dT%H%M%S%3fZ"), self.suffix);
        let path = self.folder.join(name);
        let file = create_new(&path, 0o600)?;
        Ok((path, file))
    }

    /// Removes the oldest files beyond the limit.
    pub(super) fn prune(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| self.is_own(name)).collect();
        names.sort_unstable();
        for name in names.iter().take(names.len().saturating_sub(self.most)) {
            // The recorder continues if a file cannot be removed.
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    fn is_own(&self, name: &str) -> bool {
        let time = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_suffix(&self.suffix));
        time.is_some_and(|time| {
            time.len() == "20261121T055959123Z".len()
                && time.bytes().enumerate().all(|(place, byte)| match place {
                    8 => byte == b'T',
                    18 => byte == b'Z',
                    _ => byte.is_ascii_digit(),
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: ClockOffset = ClockOffset { to_utc_ns: 1_795_240_799_000_000_000 };
    const MS: u64 = 1_000_000;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_files_are_kept_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let others = ["web.0001.arrows", "web.20261121T05595912xZ.arrows", "webs.20261121T055959123Z.arrows"];
        for other in others {
            fs::write(folder.path().join(other), "").unwrap();
        }
        // A file of an earlier run.
        fs::write(folder.path().join("web.20250101T000000000Z.arrows"), "").unwrap();
        let files = FrozenFiles::new(&folder.path().join("web.arrows"), 2);
        for second in 0..3 {
            let time = Timestamp(second * 1000 * MS + 123 * MS);
            let (path, _) = files.create(time, CLOCK).unwrap();
            assert!(path.exists());
            assert_eq!(files.create(time, CLOCK).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            files.prune();
        }
        let mut expected = others.map(str::to_owned).to_vec();
        expected
            .extend(["web.20261121T060000123Z.arrows", "web.20261121T060001123Z.arrows"].map(str::to_owned));
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn a_name_without_extension_or_folder_is_possible() {
        let files = FrozenFiles::new(Path::new("web"), 0);
        assert_eq!(files.shown(), "./web.TIME");
        assert!(files.is_own("web.20261121T055959123Z") && !files.is_own("web.20261121T055959123Z.arrows"));
        assert_eq!(files.most, 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = FrozenFiles::new(Path::new("/no/such/folder/a.arrows"), 1).check().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/no/such/folder: No such file"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
