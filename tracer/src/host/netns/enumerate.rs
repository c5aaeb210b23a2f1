//! Enumerates the network namespaces of the host.
//!
//! The kernel has no list of network namespaces. They are found through `/proc/PID/ns/net` and through nsfs bind
//! mounts, which keep a namespace alive without a process. A namespace is not found if only a file descriptor, a thread
//! in another namespace than its process, or a mount in another mount namespace refers to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{AtFlags, CWD, FsWord, Mode, OFlags},
    io::{self, Errno},
};
use tracer_core::event::Netns;

use crate::host::{
    mountinfo::{self, Mount, netns_inode},
    process::scan::process_ids,
};

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// Limits of [`enumerate_netns`].
#[derive(Clone, Copy, Debug)]
pub struct NetnsLimits {
    /// Most namespaces.
    pub namespaces: usize,
    /// Most processes that are read.
    pub processes: usize,
}

impl Default for NetnsLimits {
    /// 4,096 namespaces, 131,072 processes.
    fn default() -> Self {
        Self { namespaces: 4_096, processes: 1 << 17 }
    }
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetns {
    /// The inode, as in events and in `readlink /proc/PID/ns/net`. The kernel reuses it after the namespace is removed.
    pub netns: Netns,
    /// A file that refers to the namespace: a mount if there is one, because mounts outlive processes. [`Self::open`]
    /// checks that the file still refers to this namespace.
    pub path: PathBuf,
    /// The name in `ip netns`. Bytes that are not UTF-8 become U+FFFD.
    pub name: Option<String>,
    /// The lowest pid in the namespace; `None` without a process.
    pub pid: Option<u32>,
}

impl HostNetns {
    /// Opens the namespace for `setns`.
    ///
    /// # Errors
    ///
    /// The error of `open`, or `ENOENT` when the path now refers to another namespace.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let (descriptor, inode) = open_namespace(&self.path)?;
        if inode == self.netns { Ok(descriptor) } else { Err(Errno::NOENT) }
    }
}

/// The network namespaces found by [`enumerate_netns`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetNamespaces {
    /// The namespaces, ordered by inode, each once.
    pub namespaces: Vec<HostNetns>,
    /// Processes whose namespace could not be read. Those of other users require `CAP_SYS_PTRACE`.
    pub unreadable_processes: usize,
    /// Processes and mounts whose namespace is missing because a limit was reached.
    pub omitted: usize,
}

/// Lists the network namespaces of the processes in `proc_root`, a mounted procfs, and those that are mounted in this
/// process's mount namespace (`/run/netns`, `/run/docker/netns`, …). Skips processes that exit meanwhile.
///
/// # Errors
///
/// When `proc_root` cannot be read.
pub fn enumerate_netns(proc_root: &Path, limits: NetnsLimits) -> io::Result<NetNamespaces> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, proc_root, flags, Mode::empty())?;
    let mut found = Found { limit: limits.namespaces, ..Found::default() };
    // The namespaces of the processes are useful without the mounts.
    for mount in mountinfo::own_mounts().unwrap_or_default() {
        found.add_mount(&mount);
    }
    let mut pids = process_ids(&root, limits.processes, &mut found.result.omitted)?;
    pids.sort_unstable();
    for pid in pids {
        found.add_process(&root, proc_root, pid);
    }
    let Found { by_id, mut result, .. } = found;
    result.namespaces = by_id.into_values().collect();
    Ok(result)
}

#[derive(Default)]
struct Found {
    limit: usize,
    /// The namespaces by inode. There is only one nsfs, so the inode alone identifies a namespace.
    by_id: BTreeMap<Netns, HostNetns>,
    result: NetNamespaces,
}

impl Found {
    fn add_mount(&mut self, mount: &Mount) {
        if mount.file_system != b"nsfs" {
            return;
        }
        let Some(inode) = netns_inode(&mount.root) else {
            return;
        };
        if !matches!(open_namespace(&mount.point), Ok((_, found)) if found == inode) {
            // It was unmounted meanwhile, or another mount hides it.
            return;
        }
        let name = ip_netns_name(&mount.point);
        if let Some(known) = self.by_id.get_mut(&inode) {
            if known.name.is_none() && name.is_some() {
                known.name = name;
                known.path.clone_from(&mount.point);
            }
            return;
        }
        self.add(HostNetns { netns: inode, path: mount.point.clone(), name, pid: None });
    }

    fn add_process(&mut self, root: &OwnedFd, proc_root: &Path, pid: u32) {
        let inode = match rustix::fs::statat(root, format!("{pid}/ns/net"), AtFlags::empty()) {
            Ok(stat) => u32::try_from(stat.st_ino),
            Err(Errno::ACCESS | Errno::PERM) => {
                self.result.unreadable_processes += 1;
                return;
            }
            // The process has exited.
            Err(_) => return,
        };
        let Ok(inode) = inode.map(Netns) else { return };
        match self.by_id.get_mut(&inode) {
            Some(known) => known.pid = known.pid.or(Some(pid)),
            None => self.add(HostNetns {
                netns: inode,
                path: proc_root.join(format!("{pid}/ns/net")),
                name: None,
                pid: Some(pid),
            }),
        }
    }

    fn add(&mut self, namespace: HostNetns) {
        if self.by_id.len() >= self.limit {
            self.result.omitted += 1;
            return;
        }
        self.by_id.insert(namespace.netns, namespace);
    }
}

/// Returns the file name of a mount in the folder of `ip netns`.
fn ip_netns_name(point: &Path) -> Option<String> {
    let parent = point.parent()?;
    if parent != Path::new("/run/netns") && parent != Path::new("/var/run/netns") {
        return None;
    }
    Some(point.file_name()?.to_string_lossy().into_owned())
}

/// Opens a file for `setns` and returns its inode; `EINVAL` if it is not a network namespace.
pub(super) fn open_namespace(path: &Path) -> io::Result<(OwnedFd, Netns)> {
    // O_PATH first, because a user's path may be a device or a pipe, which must not be opened.
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&file)?.f_type != NSFS_MAGIC {
        return Err(Errno::INVAL);
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = rustix::fs::open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: the request takes no argument and returns a number (ioctl_nsfs(2), 4.11+).
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind != libc::CLONE_NEWNET {
        return Err(Errno::INVAL);
    }
    let inode = u32::try_from(rustix::fs::fstat(&file)?.st_ino).map_err(|_| Errno::OVERFLOW)?;
    Ok((file, Netns(inode)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_namespace_of_this_process_is_listed() {
        let own = Netns(u32::try_from(std::fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap());
        let found = enumerate_netns(Path::new("/proc"), NetnsLimits::default()).unwrap();
        let namespace = found.namespaces.iter().find(|namespace| namespace.netns == own).unwrap();
        assert!(namespace.pid.is_some_and(|pid| pid <= std::process::id()));
        assert!(namespace.open().is_ok());
        assert!(found.namespaces.is_sorted_by(|a, b| a.netns < b.netns));
        assert_eq!(found.omitted, 0);
    }

    #[test]
    fn limits_hold_and_are_counted() {
        let limits = NetnsLimits { namespaces: 0, ..NetnsLimits::default() };
        let found = enumerate_netns(Path::new("/proc"), limits).unwrap();
        assert!(found.namespaces.is_empty() && found.omitted > 0, "{found:?}");
        let limits = NetnsLimits { processes: 1, ..NetnsLimits::default() };
        assert!(enumerate_netns(Path::new("/proc"), limits).unwrap().omitted > 0);
        assert!(enumerate_netns(Path::new("/nonexistent"), limits).is_err());
    }

    #[test]
    fn a_path_to_another_namespace_does_not_open() {
        let path = PathBuf::from("/proc/self/ns/net");
        let namespace = HostNetns { netns: Netns(1), path, name: None, pid: None };
        assert_eq!(namespace.open().unwrap_err(), Errno::NOENT);
        for path in ["/proc/self/ns/mnt", "/dev/null", "/"] {
            assert_eq!(open_namespace(Path::new(path)).unwrap_err(), Errno::INVAL, "{path}");
        }
    }

    #[test]
    fn unmounted_and_hidden_mounts_are_skipped() {
        let mut found = Found { limit: 9, ..Found::default() };
        let mount = |root: &str, point: &str, kind: &str| Mount {
            root: root.as_bytes().to_vec(),
            point: point.into(),
            file_system: kind.as_bytes().to_vec(),
        };
        found.add_mount(&mount("net:[4026532000]", "/nonexistent", "nsfs"));
        found.add_mount(&mount("net:[4026532000]", "/proc/self/ns/net", "nsfs"));
        found.add_mount(&mount("mnt:[4026532000]", "/proc/self/ns/mnt", "nsfs"));
        found.add_mount(&mount("/", "/proc", "proc"));
        assert!(found.by_id.is_empty());
    }

    #[test]
    fn names_come_from_the_folder_of_ip_netns() {
        let name = |path: &str| ip_netns_name(Path::new(path));
        assert_eq!(name("/run/netns/blue").as_deref(), Some("blue"));
        assert_eq!(name("/var/run/netns/a b").as_deref(), Some("a b"));
        assert_eq!(name("/run/docker/netns/4d5e"), None);
        assert_eq!(name("/"), None);
    }
}
