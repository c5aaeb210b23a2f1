//! The network namespaces of the host.
//!
//! The kernel has no list of them. They show as `/proc/PID/ns/net` of the processes inside, and as
//! bind mounts of nsfs that keep them alive without any. A namespace held open only by a descriptor,
//! by a thread unlike its process, or by a mount in another mount namespace is not found.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{AtFlags, CWD, FsWord, Mode, OFlags},
    io::{self, Errno},
};

use crate::host::{
    mountinfo::{self, Mount, netns_inode},
    process::scan::process_ids,
};

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// Bounds of [`enumerate_netns`].
#[derive(Clone, Copy, Debug)]
pub struct NetnsLimits {
    /// Namespaces listed.
    pub namespaces: usize,
    /// Processes looked at.
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
pub struct NetNs {
    /// Its inode: the number that events carry and `readlink /proc/PID/ns/net` shows.
    /// The kernel gives it to another namespace once this one has ended.
    pub inode: u32,
    /// A file that stands for it: a mount if there is one, since that outlives processes. Use
    /// [`Self::open`], which makes sure that it still does.
    pub path: PathBuf,
    /// The name that `ip netns` gave it; bytes that are not UTF-8 are U+FFFD.
    pub name: Option<String>,
    /// The lowest pid inside, if any process is.
    pub pid: Option<u32>,
}

impl NetNs {
    /// Opens the namespace for `setns`.
    ///
    /// # Errors
    ///
    /// What `open` says, or `ENOENT` when the path stands for something else by now.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let (descriptor, inode) = open_namespace(&self.path)?;
        if inode == self.inode { Ok(descriptor) } else { Err(Errno::NOENT) }
    }
}

/// The network namespaces found by [`enumerate_netns`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetNamespaces {
    /// In the order of their inodes, each once.
    pub namespaces: Vec<NetNs>,
    /// Processes whose namespace may not be seen: those of other users need `CAP_SYS_PTRACE`.
    pub unreadable_processes: usize,
    /// Processes and mounts that were gone when they were looked at.
    pub vanished: usize,
    /// A limit was reached, and the rest was left out.
    pub truncated: bool,
}

/// Lists the network namespaces of the processes below `proc_root`, a mounted procfs, and those
/// mounted where this process can see them (`/run/netns`, `/run/docker/netns`, …).
///
/// # Errors
///
/// When `proc_root` cannot be read. Everything that vanishes meanwhile is counted.
pub fn enumerate_netns(proc_root: &Path, limits: NetnsLimits) -> io::Result<NetNamespaces> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, proc_root, flags, Mode::empty())?;
    let mut found = Found { limit: limits.namespaces, ..Found::default() };
    // Without the mounts the processes' namespaces are still worth having.
    for mount in mountinfo::own_mounts().unwrap_or_default() {
        found.add_mount(&mount);
    }
    let mut pids = process_ids(&root, limits.processes, &mut found.result.truncated)?;
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
    /// By inode. All namespaces live in one nsfs, so the device adds nothing.
    by_id: BTreeMap<u32, NetNs>,
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
            // Unmounted meanwhile, or hidden below another mount.
            self.result.vanished += 1;
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
        self.add(NetNs { inode, path: mount.point.clone(), name, pid: None });
    }

    fn add_process(&mut self, root: &OwnedFd, proc_root: &Path, pid: u32) {
        let inode = match rustix::fs::statat(root, format!("{pid}/ns/net"), AtFlags::empty()) {
            Ok(stat) => u32::try_from(stat.st_ino),
            Err(Errno::ACCESS | Errno::PERM) => {
                self.result.unreadable_processes += 1;
                return;
            }
            Err(_) => {
                self.result.vanished += 1;
                return;
            }
        };
        let Ok(inode) = inode else { return };
        match self.by_id.get_mut(&inode) {
            Some(known) => known.pid = known.pid.or(Some(pid)),
            None => self.add(NetNs {
                inode,
                path: proc_root.join(format!("{pid}/ns/net")),
                name: None,
                pid: Some(pid),
            }),
        }
    }

    fn add(&mut self, namespace: NetNs) {
        if self.by_id.len() >= self.limit {
            self.result.truncated = true;
            return;
        }
        self.by_id.insert(namespace.inode, namespace);
    }
}

/// The file name, for mounts where `ip netns add` makes them.
fn ip_netns_name(point: &Path) -> Option<String> {
    let parent = point.parent()?;
    if parent != Path::new("/run/netns") && parent != Path::new("/var/run/netns") {
        return None;
    }
    Some(point.file_name()?.to_string_lossy().into_owned())
}

/// Opens a file for `setns` and gives its inode; `EINVAL` if it is no network namespace.
pub(super) fn open_namespace(path: &Path) -> io::Result<(OwnedFd, u32)> {
    // First without opening what it stands for: a path from outside may name a device or a pipe.
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
    Ok((file, inode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn lists_the_namespace_it_runs_in() {
        let own = u32::try_from(std::fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
        let found = enumerate_netns(Path::new("/proc"), NetnsLimits::default()).unwrap();
        let namespace = found.namespaces.iter().find(|namespace| namespace.inode == own).unwrap();
        assert!(namespace.pid.is_some_and(|pid| pid <= std::process::id()));
        assert!(namespace.open().is_ok());
        assert!(found.namespaces.is_sorted_by(|a, b| a.inode < b.inode));
        assert!(!found.truncated);
    }

    #[test]
    fn limits_hold_and_show() {
        let limits = NetnsLimits { namespaces: 0, ..NetnsLimits::default() };
        let found = enumerate_netns(Path::new("/proc"), limits).unwrap();
        assert_eq!((found.namespaces.len(), found.truncated), (0, true));
        assert!(enumerate_netns(Path::new("/nonexistent"), limits).is_err());
    }

    #[test]
    fn a_path_that_changed_its_meaning_does_not_open() {
        let path = PathBuf::from("/proc/self/ns/net");
        let namespace = NetNs { inode: 1, path, name: None, pid: None };
        assert_eq!(namespace.open().unwrap_err(), Errno::NOENT);
        for path in ["/proc/self/ns/mnt", "/dev/null", "/"] {
            assert_eq!(open_namespace(Path::new(path)).unwrap_err(), Errno::INVAL, "{path}");
        }
    }

    #[test]
    fn vanished_and_hidden_mounts_are_left_out() {
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
        assert_eq!((found.by_id.len(), found.result.vanished), (0, 2));
    }

    #[test]
    fn names_come_from_where_ip_netns_puts_them() {
        let name = |path: &str| ip_netns_name(Path::new(path));
        assert_eq!(name("/run/netns/blue").as_deref(), Some("blue"));
        assert_eq!(name("/var/run/netns/a b").as_deref(), Some("a b"));
        assert_eq!(name("/run/docker/netns/4d5e"), None);
        assert_eq!(name("/"), None);
    }
}
