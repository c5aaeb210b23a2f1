//! Reads the namespaces of this process, and how much of the host `/proc` and cgroupfs show it.

use std::{io::ErrorKind, os::linux::fs::MetadataExt as _, path::Path};

use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags},
    io,
};

use crate::host::{
    cgroup::{self, Hierarchy},
    process::files::{self, Stat},
};

/// The inodes of the initial namespaces (`enum init_ns_ino`, include/uapi/linux/nsfs.h). The kernel gives other
/// namespaces numbers from 0xF0000000 on.
const INITIAL_USER: u32 = 0xEFFF_FFFD;
const INITIAL_PID: u32 = 0xEFFF_FFFC;
const INITIAL_CGROUP: u32 = 0xEFFF_FFFB;
/// From 6.18 on. Before, the initial network namespace has a number like any other.
const INITIAL_NETWORK: u32 = 0xEFFF_FFF9;

/// A namespace of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnNamespace {
    /// The inode; `None` if it cannot be read.
    pub(crate) inode: Option<u32>,
    /// Whether it is the initial namespace, which is the host's; `None` if unknown.
    pub(crate) is_initial: Option<bool>,
}

impl OwnNamespace {
    /// Reads a namespace. `is_initial` decides from its inode.
    fn read(proc_root: &Path, kind: &str, is_initial: impl FnOnce(u32) -> Option<bool>) -> Self {
        let folder = proc_root.join("self/ns");
        match std::fs::metadata(folder.join(kind)) {
            Ok(file) => {
                let inode = u32::try_from(file.st_ino()).ok();
                Self { inode, is_initial: inode.and_then(is_initial) }
            }
            // A kernel without namespaces of this kind has only the initial one.
            Err(error) if error.kind() == ErrorKind::NotFound && folder.exists() => {
                Self { inode: None, is_initial: Some(true) }
            }
            Err(_) => Self::default(),
        }
    }

    /// Reads a namespace whose initial one has this inode.
    fn fixed(proc_root: &Path, kind: &str, initial: u32) -> Self {
        Self::read(proc_root, kind, |inode| Some(inode == initial))
    }
}

/// The namespaces of this process, and its views of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceFacts {
    /// The pid namespace.
    pub(crate) pid: OwnNamespace,
    /// The network namespace.
    pub(crate) network: OwnNamespace,
    /// The user namespace.
    pub(crate) user: OwnNamespace,
    /// The cgroup namespace.
    pub(crate) cgroup: OwnNamespace,
    /// Whether `/proc` lists the processes of the host; `None` if unknown.
    pub(crate) proc_is_hosts: Option<bool>,
    /// How much of the cgroup v2 hierarchy is mounted.
    pub(crate) hierarchy: Hierarchy,
    /// Processes are in cgroup v1 hierarchies, so their paths come from `/proc/PID/cgroup`.
    pub(crate) uses_cgroup_v1: bool,
}

impl NamespaceFacts {
    /// Reads the facts. `proc_root` is a mounted procfs.
    pub(crate) fn read(proc_root: &Path) -> Self {
        let pid = OwnNamespace::fixed(proc_root, "pid", INITIAL_PID);
        Self {
            pid,
            network: OwnNamespace::read(proc_root, "net", |inode| is_initial_network(proc_root, inode)),
            user: OwnNamespace::fixed(proc_root, "user", INITIAL_USER),
            cgroup: OwnNamespace::fixed(proc_root, "cgroup", INITIAL_CGROUP),
            proc_is_hosts: proc_is_hosts(proc_root, pid),
            hierarchy: cgroup::mounted_hierarchy(),
            uses_cgroup_v1: cgroup::uses_v1(proc_root),
        }
    }
}

/// Returns whether a process id in an event means the same process in `/proc`: events have those of the initial pid
/// namespace. `None` if unknown.
pub(super) fn proc_has_host_pids(proc_root: &Path) -> Option<bool> {
    proc_is_hosts(proc_root, OwnNamespace::fixed(proc_root, "pid", INITIAL_PID))
}

/// Returns whether the network namespace of this process, which has this inode, is the initial one. `/proc/sys/net` shows the reader's
/// namespace: `net_core_table`, with `dev_weight`, belongs to the initial one, `netns_core_table`, with `somaxconn`, to
/// each (net/core/sysctl_net_core.c).
fn is_initial_network(proc_root: &Path, inode: u32) -> Option<bool> {
    if inode == INITIAL_NETWORK {
        return Some(true);
    }
    let core = proc_root.join("sys/net/core");
    core.join("somaxconn").exists().then(|| core.join("dev_weight").exists())
}

/// Returns whether a procfs lists the processes of the initial pid namespace, `own` being that of this process. It may
/// list those of an outer one, as after `unshare --pid` without a new mount.
fn proc_is_hosts(proc_root: &Path, own: OwnNamespace) -> Option<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, proc_root, flags, Mode::empty()).ok()?;
    // Kernel threads exist only in the initial pid namespace, and the first of them, kthreadd, has the id 2.
    if let Some(stat) = read(&root, c"2/stat").ok().and_then(|text| Stat::parse(&text)) {
        return Some(stat.kernel_thread);
    }
    // No process has that id, or hidepid= hides it. With a single id this process is in the procfs's own namespace.
    let status = read(&root, c"self/status").ok()?;
    if files::pid_levels(&status) == Some(1) { own.is_initial } else { None }
}

fn read(root: &OwnedFd, path: &std::ffi::CStr) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    files::read(root, path, &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KERNEL_THREAD: &str = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0\n";
    const PROCESS: &str = "2 (sh) S 1 1 1 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 3 0 98765 1000 20 0\n";

    /// Returns whether a procfs with these files is the host's.
    fn is_hosts(second: Option<&str>, status: Option<&str>, own: Option<bool>) -> Option<bool> {
        let folder = tempfile::tempdir().unwrap();
        for (directory, file, text) in [("2", "stat", second), ("self", "status", status)] {
            fs::create_dir(folder.path().join(directory)).unwrap();
            if let Some(text) = text {
                fs::write(folder.path().join(directory).join(file), text).unwrap();
            }
        }
        proc_is_hosts(folder.path(), OwnNamespace { inode: None, is_initial: own })
    }

    #[test]
    fn the_procfs_of_the_host_has_kernel_threads() {
        for own in [None, Some(false), Some(true)] {
            assert_eq!(is_hosts(Some(KERNEL_THREAD), None, own), Some(true));
            assert_eq!(is_hosts(Some(PROCESS), None, own), Some(false));
        }
    }

    #[test]
    fn without_a_second_process_the_own_namespace_decides_if_it_is_that_of_the_procfs() {
        let same = Some("Name:\tx\nNSpid:\t1\n");
        assert_eq!(is_hosts(None, same, Some(false)), Some(false));
        assert_eq!(is_hosts(None, same, Some(true)), Some(true), "hidepid hides kthreadd");
        assert_eq!(is_hosts(None, same, None), None);
        assert_eq!(
            is_hosts(None, Some("NSpid:\t4711\t1\n"), Some(false)),
            None,
            "the procfs of an outer namespace"
        );
        assert_eq!(is_hosts(None, None, Some(true)), None);
        assert_eq!(proc_is_hosts(Path::new("/nonexistent"), OwnNamespace::default()), None);
    }

    #[test]
    fn the_initial_network_namespace_has_its_number_or_its_sysctls() {
        let folder = tempfile::tempdir().unwrap();
        let core = folder.path().join("sys/net/core");
        assert_eq!(is_initial_network(folder.path(), INITIAL_NETWORK), Some(true));
        assert_eq!(is_initial_network(folder.path(), 4_026_532_008), None, "no sysctls");
        fs::create_dir_all(&core).unwrap();
        fs::write(core.join("somaxconn"), "4096\n").unwrap();
        assert_eq!(is_initial_network(folder.path(), 4_026_532_008), Some(false));
        fs::write(core.join("dev_weight"), "64\n").unwrap();
        assert_eq!(is_initial_network(folder.path(), 4_026_531_992), Some(true), "before 6.18");
    }

    #[test]
    fn the_facts_of_this_process_are_read() {
        let facts = NamespaceFacts::read(Path::new("/proc"));
        for namespace in [facts.pid, facts.network, facts.user, facts.cgroup] {
            assert!(namespace.is_initial.is_some(), "{facts:?}");
        }
        assert!(facts.proc_is_hosts.is_some());
        assert_eq!(proc_has_host_pids(Path::new("/proc")), facts.proc_is_hosts);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("self/ns")).unwrap();
        let without = NamespaceFacts::read(folder.path()).user;
        assert_eq!(without, OwnNamespace { inode: None, is_initial: Some(true) }, "a kernel without them");
        let nothing = NamespaceFacts::read(Path::new("/nonexistent"));
        assert_eq!((nothing.pid, nothing.network), (OwnNamespace::default(), OwnNamespace::default()));
    }
}
