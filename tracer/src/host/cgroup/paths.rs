//! From a cgroup id to its path.
//!
//! The id that the kernel reports with a socket (`cgroup->kn->id`) is the inode number of the cgroup's
//! directory in the cgroup v2 hierarchy (5.5+, on 64-bit hosts). Ids are not reused: kernfs puts a
//! generation into their upper half. cgroup v2 knows no renaming, so a path once known stays right.

use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use rustix::{
    fd::OwnedFd,
    fs::{FsWord, Mode, OFlags},
};

use crate::host::{
    cgroup::handle::{self, HandleError},
    container::CgroupOwner,
    mountinfo::{self, Mount},
};

/// `CGROUP2_SUPER_MAGIC` of `include/uapi/linux/magic.h`.
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// Why cgroup ids cannot be resolved on this host.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo: {0}; mount procfs at /proc to see cgroups and containers")]
    Mounts(#[source] std::io::Error),
    /// The host has no cgroup v2 hierarchy that this process can see.
    #[error(
        "no cgroup v2 hierarchy is mounted here, so sockets cannot be matched to containers by their \
         cgroup; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or make the host's visible in this container"
    )]
    NotMounted,
}

/// Bounds of [`CgroupPaths`].
#[derive(Clone, Copy, Debug)]
pub struct CgroupLimits {
    /// Cgroups remembered, removed ones included. When it is reached, the half that was not asked
    /// for or seen for the longest time is forgotten. A walk visits at most half as many.
    pub cgroups: usize,
    /// The shortest time between two walks of the tree, and until an id that was not found is looked
    /// up again.
    pub retry_interval: Duration,
}

impl Default for CgroupLimits {
    /// 65,536 cgroups; 5 s.
    fn default() -> Self {
        Self { cgroups: 65_536, retry_interval: Duration::from_secs(5) }
    }
}

/// What [`CgroupPaths`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupCounts {
    /// Cgroups whose path is known now, removed ones included.
    pub known: usize,
    /// Cgroups forgotten because the limit was reached.
    pub evicted: u64,
    /// Walks over the whole tree.
    pub walks: u64,
    /// Walks that stopped early because the tree has more cgroups than the limit allows.
    pub truncated_walks: u64,
    /// Ids resolved by a file handle, without a walk.
    pub by_handle: u64,
    /// Questions that got no answer.
    pub unresolved: u64,
}

/// A cgroup, and what its path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The path within the hierarchy, `/` for its root; bytes that are not UTF-8 are U+FFFD.
    pub path: String,
    /// Container, pod and unit.
    pub owner: CgroupOwner,
}

/// Resolves cgroup ids, and remembers them beyond the cgroup's end: a connection's last event often
/// comes after its container is gone.
///
/// A miss costs one `open_by_handle_at` with `CAP_DAC_READ_SEARCH` in the initial user namespace, else
/// a walk of the tree, at most one in [`CgroupLimits::retry_interval`].
#[derive(Debug)]
pub struct CgroupPaths {
    hierarchy: OwnedFd,
    point: PathBuf,
    /// The part of the hierarchy above the mount, without a `/` at its end.
    prefix: String,
    limits: CgroupLimits,
    by_id: HashMap<u64, Entry, foldhash::fast::RandomState>,
    /// Orders the entries by their last use.
    uses: u64,
    handles: bool,
    last_walk: Duration,
    counts: CgroupCounts,
}

#[derive(Debug)]
struct Entry {
    /// None: looked for and not found.
    cgroup: Option<Arc<Cgroup>>,
    checked: Duration,
    used: u64,
}

enum Known {
    /// None: it was looked for a moment ago and not found.
    Answer(Option<Arc<Cgroup>>),
    /// It has to be looked up.
    Nothing,
}

impl CgroupPaths {
    /// Finds the hierarchy and walks it once. `now` is any clock that does not go back, the same for
    /// all calls.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] when there is no cgroup v2 hierarchy to be seen.
    pub fn new(limits: CgroupLimits, now: Duration) -> Result<Self, CgroupError> {
        let mut mounts = mountinfo::own_mounts().map_err(CgroupError::Mounts)?;
        mounts.retain(|mount| mount.file_system == b"cgroup2");
        // One that shows the whole hierarchy serves better than a part bound elsewhere.
        mounts.sort_by_key(|mount| mount.root != b"/");
        let (hierarchy, mount) = mounts
            .into_iter()
            .find_map(|mount| Some((open_hierarchy(&mount.point)?, mount)))
            .ok_or(CgroupError::NotMounted)?;
        let prefix = prefix(&mount);
        Ok(Self::walked(hierarchy, mount.point, prefix, limits, true, now))
    }

    fn walked(
        hierarchy: OwnedFd,
        point: PathBuf,
        prefix: String,
        limits: CgroupLimits,
        handles: bool,
        now: Duration,
    ) -> Self {
        let mut paths = Self {
            hierarchy,
            point,
            prefix,
            limits: CgroupLimits { cgroups: limits.cgroups.max(2), ..limits },
            by_id: HashMap::default(),
            uses: 0,
            handles,
            last_walk: now,
            counts: CgroupCounts::default(),
        };
        paths.walk(now);
        paths
    }

    /// Does without file handles from now on, for a process that gave up `CAP_DAC_READ_SEARCH`. Nothing
    /// breaks without this call: the first refusal has the same effect.
    pub fn disable_handles(&mut self) {
        self.handles = false;
    }

    /// The cgroup with this id, or `None` when there is none, or none that was found yet.
    pub fn resolve(&mut self, id: u64, now: Duration) -> Option<Arc<Cgroup>> {
        let found = match self.known(id, now) {
            Known::Answer(cgroup) => cgroup,
            Known::Nothing => self.look_up(id, now),
        };
        if found.is_none() {
            self.counts.unresolved += 1;
        }
        found
    }

    /// What was done so far.
    pub fn counts(&self) -> CgroupCounts {
        let known = self.by_id.values().filter(|entry| entry.cgroup.is_some()).count();
        CgroupCounts { known, ..self.counts }
    }

    /// What the cache says.
    fn known(&mut self, id: u64, now: Duration) -> Known {
        let Some(entry) = self.by_id.get_mut(&id) else {
            return Known::Nothing;
        };
        self.uses += 1;
        entry.used = self.uses;
        let age = now.saturating_sub(entry.checked);
        if entry.cgroup.is_none() && age >= self.limits.retry_interval {
            return Known::Nothing;
        }
        Known::Answer(entry.cgroup.clone())
    }

    fn look_up(&mut self, id: u64, now: Duration) -> Option<Arc<Cgroup>> {
        if self.handles {
            match handle::directory_of(&self.hierarchy, id) {
                Ok(directory) => {
                    // Outside of the mount when that shows a part of the hierarchy only.
                    let path = directory.strip_prefix(&self.point).ok().map(|path| self.path_of(path));
                    self.counts.by_handle += u64::from(path.is_some());
                    return self.remember(id, path, now);
                }
                Err(HandleError::Gone) => return self.remember(id, None, now),
                Err(HandleError::Unavailable) => self.handles = false,
            }
        }
        if now.saturating_sub(self.last_walk) < self.limits.retry_interval {
            return None;
        }
        self.walk(now);
        self.by_id.get(&id)?.cgroup.clone()
    }

    /// Takes in the whole tree as it is now.
    fn walk(&mut self, now: Duration) {
        self.last_walk = now;
        self.counts.walks += 1;
        let Ok(root) = self.point.metadata() else {
            return;
        };
        let limit = self.limits.cgroups / 2;
        let mut open = vec![(root.ino(), PathBuf::new())];
        let mut visited = 0;
        while let Some((id, below)) = open.pop() {
            let directory = self.point.join(&below);
            self.see(id, &below, now);
            visited += 1;
            // Removed meanwhile, or not for our eyes.
            let Ok(entries) = directory.read_dir() else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if visited + open.len() >= limit {
                    self.counts.truncated_walks += 1;
                    // What is in `open` already still fits.
                    return open.into_iter().for_each(|(id, below)| self.see(id, &below, now));
                }
                open.push((entry.ino(), below.join(entry.file_name())));
            }
        }
    }

    /// A walk found `id` at `below`, a path relative to the mount point.
    fn see(&mut self, id: u64, below: &Path, now: Duration) {
        self.uses += 1;
        match self.by_id.get_mut(&id) {
            Some(entry) if entry.cgroup.is_some() => entry.used = self.uses,
            _ => {
                let path = self.path_of(below);
                self.remember(id, Some(path), now);
            }
        }
    }

    fn path_of(&self, below: &Path) -> String {
        if below.as_os_str().is_empty() && !self.prefix.is_empty() {
            return self.prefix.clone();
        }
        format!("{}/{}", self.prefix, below.to_string_lossy())
    }

    fn remember(&mut self, id: u64, path: Option<String>, now: Duration) -> Option<Arc<Cgroup>> {
        if self.by_id.len() >= self.limits.cgroups {
            self.forget_half();
        }
        let cgroup = path.map(|path| Arc::new(Cgroup { owner: CgroupOwner::from_path(&path), path }));
        self.uses += 1;
        self.by_id.insert(id, Entry { cgroup: cgroup.clone(), checked: now, used: self.uses });
        cgroup
    }

    fn forget_half(&mut self) {
        let mut uses: Vec<u64> = self.by_id.values().map(|entry| entry.used).collect();
        let middle = uses.len() / 2;
        let (_, &mut oldest_kept, _) = uses.select_nth_unstable(middle);
        self.by_id.retain(|_, entry| {
            let keep = entry.used >= oldest_kept;
            self.counts.evicted += u64::from(!keep && entry.cgroup.is_some());
            keep
        });
    }
}

/// The mount's directory, if it is cgroup v2 and nothing is mounted over it.
fn open_hierarchy(point: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(point, flags, Mode::empty()).ok()?;
    let kind = rustix::fs::fstatfs(&directory).ok()?.f_type;
    (kind == CGROUP2_SUPER_MAGIC).then_some(directory)
}

/// What to put before the paths below a mount. A root above this process's cgroup namespace
/// (`/../..`) has no name here.
fn prefix(mount: &Mount) -> String {
    let root = Path::new(OsStr::from_bytes(&mount.root));
    if root == Path::new("/") || root.components().any(|part| part.as_os_str() == "..") {
        return String::new();
    }
    root.to_string_lossy().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
