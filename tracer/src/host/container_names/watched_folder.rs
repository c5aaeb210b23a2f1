//! A folder that is read again when it has changed.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{fd::OwnedFd, fs::OFlags, io::Errno, time::ClockId};

use crate::host::container_names::{
    MAX_ENTRIES, Names,
    host_root::{HostRoot, entries, read_in},
    runtimes::read_podman_store,
};

/// Shortest time between two readings.
const READ_INTERVAL: Duration = Duration::from_millis(10);
/// Readings take at most one part in this many of the time.
const MAX_SHARE: u32 = 20;
/// Time until a folder that cannot be opened is tried again.
const OPEN_INTERVAL: Duration = Duration::from_secs(5);
/// A change so soon before a reading may have the same time as one after it: the resolution of times of files, at most
/// 10 ms, and as much again for the clocks.
const UNSETTLED: Duration = Duration::from_millis(50);

/// What a folder contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FolderKind {
    /// A folder for each pod: `/var/log/pods`.
    PodLogs,
    /// A link for each container of a pod: `/var/log/containers`.
    ContainerLogs,
    /// The lists of a container storage.
    PodmanStore,
    /// A folder for each address of containerd: `/var/lib/nerdctl`.
    NerdctlRoot,
    /// A folder for each namespace of containerd: `/var/lib/nerdctl/HASH/names`.
    NerdctlNamespaces,
    /// A file for each container of a namespace.
    NerdctlNames,
}

/// A folder that is read again when it has changed.
///
/// It stays open, so that its entries can be listed without privileges later.
#[derive(Debug)]
pub(super) struct WatchedFolder {
    kind: FolderKind,
    path: PathBuf,
    directory: Option<OwnedFd>,
    /// The modification time at the last reading; none if the folder must be read again.
    read: Option<ModificationTime>,
    /// No reading before this time.
    next: Duration,
    /// An error was reported since the folder could be read.
    failed: bool,
}

/// A time of the wall clock, in nanoseconds since 1970.
type ModificationTime = i128;

impl WatchedFolder {
    pub(super) fn new(kind: FolderKind, path: PathBuf) -> Self {
        Self { kind, path, directory: None, read: None, next: Duration::ZERO, failed: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the folder again the next time.
    pub(super) fn forget(&mut self) {
        self.read = None;
    }

    /// Adds the folder's names, if it has changed since the last time. Returns whether it was read. `found` receives
    /// folders that are to be watched, too. A lasting error is returned once.
    pub(super) fn read_if_changed(
        &mut self,
        root: &HostRoot,
        now: Duration,
        names: &mut Names,
        found: &mut Vec<(FolderKind, PathBuf)>,
    ) -> Result<bool, Errno> {
        if now < self.next {
            return Ok(false);
        }
        let outcome = self.try_read(root, now, names, found);
        match outcome {
            Ok(read) => {
                self.failed &= !read;
                Ok(read)
            }
            Err(error) => {
                self.directory = None;
                self.read = None;
                self.next = now + OPEN_INTERVAL;
                // Without the folder there are no such containers.
                let is_new = !std::mem::replace(&mut self.failed, true) && error != Errno::NOENT;
                if is_new { Err(error) } else { Ok(false) }
            }
        }
    }

    fn try_read(
        &mut self,
        root: &HostRoot,
        now: Duration,
        names: &mut Names,
        found: &mut Vec<(FolderKind, PathBuf)>,
    ) -> Result<bool, Errno> {
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => root.open_below(&self.path, OFlags::DIRECTORY)?,
        };
        let stat = rustix::fs::fstat(&directory)?;
        if stat.st_nlink == 0 {
            // It was removed, and may exist again. It is opened the next time.
            self.read = None;
            return Ok(false);
        }
        let modified = ModificationTime::from(stat.st_mtime) * 1_000_000_000
            + ModificationTime::from(stat.st_mtime_nsec);
        if self.read == Some(modified) {
            self.directory = Some(directory);
            return Ok(false);
        }
        let (clock, started) = (wall_clock(), Instant::now());
        self.list(&directory, names, found)?;
        let is_settled = clock - modified >= i128::try_from(UNSETTLED.as_nanos()).unwrap_or_default();
        self.read = is_settled.then_some(modified);
        self.next = now + READ_INTERVAL.max(started.elapsed().saturating_mul(MAX_SHARE));
        self.directory = Some(directory);
        Ok(true)
    }

    fn list(
        &self,
        directory: &OwnedFd,
        names: &mut Names,
        found: &mut Vec<(FolderKind, PathBuf)>,
    ) -> Result<(), Errno> {
        if self.kind == FolderKind::PodmanStore {
            return read_podman_store(directory, names);
        }
        for (count, entry) in entries(directory)?.enumerate() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.starts_with('.') {
                continue;
            }
            if count > MAX_ENTRIES {
                names.omitted += 1;
                continue;
            }
            match self.kind {
                FolderKind::PodLogs => names.add_pod_folder(name),
                FolderKind::ContainerLogs => names.add_container_log(name),
                FolderKind::NerdctlRoot => {
                    found.push((FolderKind::NerdctlNamespaces, self.path.join(name).join("names")));
                }
                FolderKind::NerdctlNamespaces => found.push((FolderKind::NerdctlNames, self.path.join(name))),
                FolderKind::NerdctlNames => {
                    // A container that has just been removed, or the lock.
                    let Ok(id) = read_in(directory, Path::new(name), 1024) else { continue };
                    if let Ok(id) = str::from_utf8(&id) {
                        names.add_container(id.trim(), name, None);
                    }
                }
                FolderKind::PodmanStore => {}
            }
        }
        Ok(())
    }
}

/// Returns the time of the clock that file systems use.
fn wall_clock() -> ModificationTime {
    let time = rustix::time::clock_gettime(ClockId::Realtime);
    ModificationTime::from(time.tv_sec) * 1_000_000_000 + ModificationTime::from(time.tv_nsec)
}
