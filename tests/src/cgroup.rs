//! Temporary cgroups in the v2 hierarchy.

use std::{
    fs,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Time between two attempts to remove a cgroup.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A cgroup below the root of the v2 hierarchy. It is removed on drop, with every cgroup below it.
#[derive(Debug)]
pub struct TestCgroup {
    directory: PathBuf,
    path: String,
}

impl TestCgroup {
    /// Creates a cgroup whose name includes the process id.
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup2 hierarchy is mounted");
        let name = format!("tcptrace-{name}-{}", std::process::id());
        let cgroup = Self { directory: mount.join(&name), path: format!("/{name}") };
        fs::create_dir(&cgroup.directory).expect("root may create cgroups");
        cgroup
    }

    /// The path within the hierarchy, such as `/name`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The directory below the mount point.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cgroup's id: the inode of its directory.
    pub fn id(&self) -> u64 {
        inode(&self.directory)
    }

    /// Creates a child cgroup and returns its directory and id.
    pub fn create_child(&self, name: &str) -> (PathBuf, u64) {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).expect("root may create cgroups");
        let id = inode(&directory);
        (directory, id)
    }
}

fn inode(directory: &Path) -> u64 {
    fs::metadata(directory).expect("the cgroup exists").st_ino()
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        remove_tree(&self.directory);
    }
}

/// Removes a cgroup and its children. An exited process takes a moment to leave its cgroup, so removal is retried for
/// up to a second.
fn remove_tree(directory: &Path) {
    if let Ok(entries) = fs::read_dir(directory) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    for _ in 0..200 {
        if fs::remove_dir(directory).is_ok() || !directory.exists() {
            return;
        }
        thread::sleep(RETRY_INTERVAL);
    }
}
