//! Resolves cgroup ids to paths.
//!
//! The cgroup id of a socket (`cgroup->kn->id`) is the inode number of the cgroup's directory in the cgroup v2
//! hierarchy (5.5+, on 64-bit hosts). Ids are not reused, because kernfs stores a generation in their upper half. A
//! cgroup v2 directory cannot be renamed, so a cached path stays valid.

use std::{
    ffi::OsStr,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FsWord, Mode, OFlags},
    io::Errno,
};
use tracer_core::event::CgroupId;

use crate::host::{
    cgroup::handle::{self, HandleError},
    container::{CgroupOwner, Container, Runtime},
    kubernetes::PodNames,
    mountinfo::{self, Mount},
    owner_names::OwnerNames,
};

/// `CGROUP2_SUPER_MAGIC` of `include/uapi/linux/magic.h`.
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// Why cgroup ids cannot be resolved on this host.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The mount table cannot be read.
    #[error("cannot read /proc/self/mountinfo: {0}; mount procfs at /proc to see cgroups and containers")]
    Mounts(#[source] std::io::Error),
    /// No cgroup v2 hierarchy is visible to this process.
    #[error(
        "sockets cannot be matched to containers because no cgroup v2 hierarchy is mounted here; mount one with `mount -t \
         cgroup2 none /sys/fs/cgroup/unified`, or make the host's visible in this container"
    )]
    NotMounted,
}

/// Limits of [`CgroupPaths`].
#[derive(Clone, Copy, Debug)]
pub struct CgroupLimits {
    /// Size of the cache in cgroups, including removed ones. A full cache evicts the least recently used half. A walk
    /// visits at most half as many cgroups.
    pub cgroups: usize,
    /// Minimum time between two walks of the tree, and between two lookups of an id without a path.
    pub retry_interval: Duration,
}

impl Default for CgroupLimits {
    /// 65,536 cgroups; 5 s.
    fn default() -> Self {
        Self { cgroups: 65_536, retry_interval: Duration::from_secs(5) }
    }
}

/// Counts of [`CgroupPaths`] since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupCounts {
    /// Cache entries dropped because the cache was full.
    pub evicted: u64,
    /// Walks over the whole tree.
    pub walks: u64,
    /// Walks that stopped at the limit on cgroups.
    pub truncated_walks: u64,
    /// Ids resolved by a file handle, without a walk.
    pub by_handle: u64,
    /// Lookups of an id that found no path.
    pub unresolved: u64,
    /// Files and folders with names of containers that could not be read.
    pub unreadable_names: u64,
    /// Names of containers and pods beyond a limit.
    pub omitted_names: u64,
}

/// The counters behind [`CgroupCounts`]. The tracing source reads them while a consumer owns the resolver.
#[derive(Debug, Default)]
pub struct CgroupCounters {
    evicted: AtomicU64,
    walks: AtomicU64,
    truncated_walks: AtomicU64,
    by_handle: AtomicU64,
    unresolved: AtomicU64,
    unreadable_names: AtomicU64,
    omitted_names: AtomicU64,
}

impl CgroupCounters {
    /// Returns the current counts.
    pub fn counts(&self) -> CgroupCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CgroupCounts {
            evicted: load(&self.evicted),
            walks: load(&self.walks),
            truncated_walks: load(&self.truncated_walks),
            by_handle: load(&self.by_handle),
            unresolved: load(&self.unresolved),
            unreadable_names: load(&self.unreadable_names),
            omitted_names: load(&self.omitted_names),
        }
    }

    /// Counts cache entries that were dropped because a cache was full.
    pub(in crate::host) fn count_evicted(&self, entries: usize) {
        self.evicted.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// Counts files and folders with names of containers that could not be read.
    pub(in crate::host) fn count_unreadable_names(&self, files: usize) {
        self.unreadable_names.fetch_add(files as u64, Ordering::Relaxed);
    }

    /// Counts names of containers and pods beyond a limit.
    pub(in crate::host) fn count_omitted_names(&self, names: usize) {
        self.omitted_names.fetch_add(names as u64, Ordering::Relaxed);
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A cgroup and the owner that its path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The path within the hierarchy, `/` for its root. Bytes that are not UTF-8 become U+FFFD.
    pub path: String,
    /// The container, pod and unit.
    pub owner: CgroupOwner,
    /// The names of the container and the pod, as far as they are known.
    pub names: OwnerNames,
}

impl Cgroup {
    /// Creates a cgroup without names of its container and its pod.
    pub fn new(path: String) -> Self {
        Self { owner: CgroupOwner::from_path(&path), path, names: OwnerNames::default() }
    }

    /// Returns the name of the container. For LXC and nspawn this is the id.
    pub fn container_name(&self) -> Option<&str> {
        match &self.owner.container {
            Some(Container { id, runtime: Runtime::Lxc | Runtime::Nspawn }) => Some(id.as_str()),
            _ => self.names.container(),
        }
    }

    /// Returns the names of the pod.
    pub fn pod(&self) -> Option<&PodNames> {
        self.names.pod()
    }

    /// Returns the name of the container in its pod.
    pub fn container_in_pod(&self) -> Option<&str> {
        let is_in_pod = self.owner.pod_uid.is_some() || self.names.pod().is_some();
        self.names.container().filter(|_| is_in_pod)
    }

    /// Returns whether the container or the pod has an id without a name.
    pub(crate) fn lacks_names(&self) -> bool {
        let lacks_container = || match &self.owner.container {
            None | Some(Container { runtime: Runtime::Lxc | Runtime::Nspawn, .. }) => false,
            Some(_) => self.names.container().is_none(),
        };
        lacks_container() || (self.owner.pod_uid.is_some() && self.names.pod().is_none())
    }
}

/// Resolves cgroup ids and caches them, including removed cgroups: the last event of a connection often follows the end
/// of its container.
///
/// A cache miss costs one `open_by_handle_at` with `CAP_DAC_READ_SEARCH` in the initial user namespace. Otherwise it
/// costs a walk of the tree, at most one per [`CgroupLimits::retry_interval`].
#[derive(Debug)]
pub struct CgroupPaths {
    hierarchy: OwnedFd,
    point: PathBuf,
    /// The path of the mounted directory within the hierarchy, without a trailing `/`.
    prefix: String,
    limits: CgroupLimits,
    by_id: HashMap<CgroupId, Entry, foldhash::fast::RandomState>,
    /// A counter that orders the entries by their last use.
    uses: u64,
    handles: bool,
    last_walk: Duration,
    counters: Arc<CgroupCounters>,
}

#[derive(Debug)]
struct Entry {
    /// `None` if the lookup found no path.
    cgroup: Option<Arc<Cgroup>>,
    checked: Duration,
    used: u64,
}

/// The result of a cache lookup.
enum Cached {
    /// `None` if a recent lookup found no path.
    Hit(Option<Arc<Cgroup>>),
    /// The id must be looked up.
    Miss,
}

impl CgroupPaths {
    /// Finds the hierarchy and walks it once. `now` is the time of a monotonic clock, the same one for all calls.
    ///
    /// # Errors
    ///
    /// [`CgroupError`] when no cgroup v2 hierarchy is visible.
    pub fn new(limits: CgroupLimits, now: Duration) -> Result<Self, CgroupError> {
        let OpenHierarchy { directory, mount, .. } =
            largest_hierarchy().map_err(CgroupError::Mounts)?.ok_or(CgroupError::NotMounted)?;
        let prefix = prefix(&mount);
        Ok(Self::walked(directory, mount.point, prefix, limits, true, now))
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
            counters: Arc::default(),
        };
        paths.walk(now);
        paths
    }

    /// Stops using file handles, for a process that dropped `CAP_DAC_READ_SEARCH`. Optional: the first refused call has
    /// the same effect.
    pub fn disable_handles(&mut self) {
        self.handles = false;
    }

    /// Returns the cgroup with this id, or `None` if it has not been found.
    pub fn resolve(&mut self, id: CgroupId, now: Duration) -> Option<Arc<Cgroup>> {
        let found = match self.cached(id, now) {
            Cached::Hit(cgroup) => cgroup,
            Cached::Miss => self.look_up(id, now),
        };
        if found.is_none() {
            increment(&self.counters.unresolved);
        }
        found
    }

    /// Returns the current counts.
    pub fn counts(&self) -> CgroupCounts {
        self.counters.counts()
    }

    /// Returns the counters, to read them from elsewhere.
    pub(super) fn counters(&self) -> Arc<CgroupCounters> {
        Arc::clone(&self.counters)
    }

    /// Returns the cgroups in the cache.
    pub(super) fn known(&self) -> impl Iterator<Item = &Cgroup> {
        self.by_id.values().filter_map(|entry| entry.cgroup.as_deref())
    }

    fn cached(&mut self, id: CgroupId, now: Duration) -> Cached {
        let Some(entry) = self.by_id.get_mut(&id) else {
            return Cached::Miss;
        };
        self.uses += 1;
        entry.used = self.uses;
        let age = now.saturating_sub(entry.checked);
        if entry.cgroup.is_none() && age >= self.limits.retry_interval {
            return Cached::Miss;
        }
        Cached::Hit(entry.cgroup.clone())
    }

    fn look_up(&mut self, id: CgroupId, now: Duration) -> Option<Arc<Cgroup>> {
        if self.handles {
            match handle::directory_of(&self.hierarchy, id) {
                Ok(directory) => {
                    // A mount of a part of the hierarchy does not contain every directory.
                    let path = directory.strip_prefix(&self.point).ok().map(|path| self.path_of(path));
                    if path.is_some() {
                        increment(&self.counters.by_handle);
                    }
                    return self.insert(id, path, now);
                }
                Err(HandleError::NotFound) => return self.insert(id, None, now),
                Err(HandleError::Unavailable) => self.handles = false,
            }
        }
        if now.saturating_sub(self.last_walk) < self.limits.retry_interval {
            return None;
        }
        self.walk(now);
        self.by_id.get(&id)?.cgroup.clone()
    }

    /// Adds all cgroups of the current tree to the cache.
    fn walk(&mut self, now: Duration) {
        self.last_walk = now;
        increment(&self.counters.walks);
        let Ok(root) = self.point.metadata() else {
            return;
        };
        let limit = self.limits.cgroups / 2;
        let mut open = vec![(CgroupId(root.ino()), PathBuf::new())];
        let mut visited = 0;
        while let Some((id, below)) = open.pop() {
            let directory = self.point.join(&below);
            self.insert_walked(id, &below, now);
            visited += 1;
            // The directory was removed meanwhile or is not readable.
            let Ok(entries) = directory.read_dir() else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if visited + open.len() >= limit {
                    increment(&self.counters.truncated_walks);
                    // The directories in `open` are within the limit.
                    return open.into_iter().for_each(|(id, below)| self.insert_walked(id, &below, now));
                }
                open.push((CgroupId(entry.ino()), below.join(entry.file_name())));
            }
        }
    }

    /// Adds a cgroup that a walk found at `below`, a path relative to the mount point.
    fn insert_walked(&mut self, id: CgroupId, below: &Path, now: Duration) {
        self.uses += 1;
        match self.by_id.get_mut(&id) {
            Some(entry) if entry.cgroup.is_some() => entry.used = self.uses,
            _ => {
                let path = self.path_of(below);
                self.insert(id, Some(path), now);
            }
        }
    }

    fn path_of(&self, below: &Path) -> String {
        if below.as_os_str().is_empty() && !self.prefix.is_empty() {
            return self.prefix.clone();
        }
        format!("{}/{}", self.prefix, below.to_string_lossy())
    }

    fn insert(&mut self, id: CgroupId, path: Option<String>, now: Duration) -> Option<Arc<Cgroup>> {
        if self.by_id.len() >= self.limits.cgroups {
            self.evict_half();
        }
        let cgroup = path.map(|path| Arc::new(Cgroup::new(path)));
        self.uses += 1;
        self.by_id.insert(id, Entry { cgroup: cgroup.clone(), checked: now, used: self.uses });
        cgroup
    }

    fn evict_half(&mut self) {
        let mut uses: Vec<u64> = self.by_id.values().map(|entry| entry.used).collect();
        let middle = uses.len() / 2;
        let (_, &mut oldest_kept, _) = uses.select_nth_unstable(middle);
        let mut evicted = 0;
        self.by_id.retain(|_, entry| {
            let keep = entry.used >= oldest_kept;
            evicted += usize::from(!keep && entry.cgroup.is_some());
            keep
        });
        self.counters.count_evicted(evicted);
    }
}

/// How much of the cgroup v2 hierarchy is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// All of it.
    Whole,
    /// A subtree, such as that of a container.
    Part,
    /// Nothing.
    Absent,
}

/// Returns how much of the cgroup v2 hierarchy is mounted.
pub(in crate::host) fn mounted_hierarchy() -> Hierarchy {
    match largest_hierarchy() {
        Ok(Some(OpenHierarchy { whole: true, .. })) => Hierarchy::Whole,
        Ok(Some(_)) => Hierarchy::Part,
        Ok(None) | Err(_) => Hierarchy::Absent,
    }
}

/// An open mount of the cgroup v2 hierarchy.
struct OpenHierarchy {
    directory: OwnedFd,
    mount: Mount,
    /// The mount has the root of the hierarchy. In a cgroup namespace, `/` of the mount table may be a subtree.
    whole: bool,
}

/// Opens the mount with the largest part of the cgroup v2 hierarchy: a bind mount may have only a part.
fn largest_hierarchy() -> std::io::Result<Option<OpenHierarchy>> {
    let mounts = mountinfo::own_mounts()?;
    let open = mounts.into_iter().filter(|mount| mount.file_system == b"cgroup2").filter_map(|mount| {
        let directory = open_hierarchy(&mount.point)?;
        let whole = is_root(&directory);
        Some(OpenHierarchy { directory, mount, whole })
    });
    // Of equal ones, the first.
    Ok(open.min_by_key(|it| (!it.whole, it.mount.root != b"/")))
}

/// Returns whether a cgroup is the root of the hierarchy: only the others have a type.
fn is_root(cgroup: &OwnedFd) -> bool {
    rustix::fs::statat(cgroup, "cgroup.type", AtFlags::empty()).is_err_and(|error| error == Errno::NOENT)
}

/// Opens the mount's directory; `None` if it is not cgroup v2 or is hidden by another mount.
fn open_hierarchy(point: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(point, flags, Mode::empty()).ok()?;
    let kind = rustix::fs::fstatfs(&directory).ok()?.f_type;
    (kind == CGROUP2_SUPER_MAGIC).then_some(directory)
}

/// Returns the prefix of the paths below a mount: empty for the root of the hierarchy, and for a root outside this
/// process's cgroup namespace (`/../..`), which has no name here.
fn prefix(mount: &Mount) -> String {
    let root = Path::new(OsStr::from_bytes(&mount.root));
    if root == Path::new("/") || root.components().any(|part| part.as_os_str() == "..") {
        return String::new();
    }
    root.to_string_lossy().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
