//! Finds the names of containers and pods in files that kubelets and container runtimes keep on the host.
//!
//! | who | where | what |
//! |---|---|---|
//! | kubelet | `/var/log/pods` | namespace, name and uid of each pod, in names of folders |
//! | kubelet | `/var/log/containers` | pod, namespace, name and id of each container, in names of links |
//! | Docker | `/var/lib/docker/containers/ID/config.v2.json` | the name of a container |
//! | Podman | `/var/lib/containers/storage/DRIVER-containers/*.json` | id and name of each container |
//! | Podman | the command line of `conmon` | the name of a container whose files are not readable |
//! | nerdctl | `/var/lib/nerdctl/HASH/names/NAMESPACE` | the name of each container, as a file that contains its id |
//!
//! All of them except those of Docker and `conmon` are folders that are read as a whole, again only when their modification time changes. No
//! daemon is asked. A kubelet creates the folder of a pod before its containers start, the link of a container right after
//! it starts; the runtimes write theirs before.

mod host_root;
mod monitor;
mod runtimes;
mod watched_folder;

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use rustix::io::Errno;

use crate::host::{
    Cgroup, CgroupCounters, Container, Runtime,
    container_names::{
        host_root::HostRoot,
        monitor::name_by_monitor,
        runtimes::{DockerStore, docker_data_root, podman_graph_root},
        watched_folder::{FolderKind, WatchedFolder},
    },
    kubernetes::{ContainerLog, PodFolder, PodNames},
};

/// Most containers, and most pods. A full map is cleared, and the folders are read again; a cgroup keeps its names.
const MAX_ENTRIES: usize = 16_384;
/// Most folders.
const MAX_FOLDERS: usize = 256;
/// Most users whose home is searched for containers.
const MAX_USERS: usize = 1_024;
/// Shortest time between two checks of the folders for changes.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);
/// Shortest time between two searches for the name of one container in Docker's folder or in the command line of Podman's
/// monitor.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// The 32 bytes of a container id.
type ContainerId = [u8; 32];
/// The 16 bytes of a pod's uid.
type PodUid = u128;

/// What the folders name.
#[derive(Debug, Default)]
struct Names {
    pods: HashMap<PodUid, Arc<PodNames>, foldhash::fast::RandomState>,
    containers: HashMap<ContainerId, NamedContainer, foldhash::fast::RandomState>,
    /// The name of this node.
    node: String,
    /// Entries that a full map had no space for.
    omitted: u64,
}

/// The name of a container and of its pod.
#[derive(Clone, Debug)]
struct NamedContainer {
    name: Arc<str>,
    pod: Option<Arc<PodNames>>,
}

impl Names {
    /// Adds the pod of a folder in `/var/log/pods`.
    fn add_pod_folder(&mut self, name: &str) {
        let Some(PodFolder { namespace, pod, uid }) = PodFolder::parse(name) else { return };
        let Some(key) = pod_uid(uid) else { return };
        if self.pods.contains_key(&key) {
            return;
        }
        if self.pods.len() >= MAX_ENTRIES {
            self.omitted += 1;
        } else if let Some(names) = PodNames::new(namespace, pod, Some(uid), &self.node) {
            self.pods.insert(key, Arc::new(names));
        }
    }

    /// Adds the container of a link in `/var/log/containers`.
    fn add_container_log(&mut self, name: &str) {
        let Some(ContainerLog { pod, namespace, container, id }) = ContainerLog::parse(name) else { return };
        if self.knows(id) {
            return;
        }
        let names = PodNames::new(namespace, pod, None, &self.node).map(Arc::new);
        self.add_container(id, container, names);
    }

    fn knows(&self, id: &str) -> bool {
        container_id(id).is_some_and(|id| self.containers.contains_key(&id))
    }

    /// Adds a container.
    fn add_container(&mut self, id: &str, name: &str, pod: Option<Arc<PodNames>>) {
        let Some(id) = container_id(id) else { return };
        let entry = NamedContainer { name: name.into(), pod };
        if self.containers.contains_key(&id) || self.containers.len() < MAX_ENTRIES {
            self.containers.insert(id, entry);
        } else {
            self.omitted += 1;
        }
    }

    /// Sets the names of a cgroup, as far as they are known. Returns whether it then has all of them.
    fn fill(&self, cgroup: &Cgroup) -> bool {
        if let Some(pod) =
            cgroup.owner.pod_uid.as_deref().and_then(pod_uid).and_then(|uid| self.pods.get(&uid))
        {
            cgroup.names.set_pod(Arc::clone(pod));
        }
        let container = cgroup.owner.container.as_ref().and_then(|container| container_id(&container.id));
        if let Some(named) = container.and_then(|id| self.containers.get(&id)) {
            cgroup.names.set_container(Arc::clone(&named.name));
            if let Some(pod) = &named.pod {
                cgroup.names.set_pod(Arc::clone(pod));
            }
        }
        !cgroup.lacks_names()
    }
}

/// Finds the names of containers and pods, and caches them.
#[derive(Debug)]
pub(super) struct ContainerNames {
    root: HostRoot,
    folders: Vec<WatchedFolder>,
    names: Names,
    docker: Vec<DockerStore>,
    /// The containers of Docker and Podman without a name, and when each was last searched. A full map is cleared.
    unnamed: HashMap<ContainerId, Duration, foldhash::fast::RandomState>,
    checked: Duration,
    counters: Arc<CgroupCounters>,
}

impl ContainerNames {
    /// Opens the folders below `root` and reads them. Call it before the privileges are dropped. `counters` counts what
    /// cannot be read.
    pub(super) fn new(root: &Path, counters: Arc<CgroupCounters>, now: Duration) -> Self {
        let root = HostRoot::open(root);
        let users = homes_with_data(&root);
        let mut folders = vec![
            WatchedFolder::new(FolderKind::PodLogs, "var/log/pods".into()),
            WatchedFolder::new(FolderKind::ContainerLogs, "var/log/containers".into()),
            WatchedFolder::new(FolderKind::NerdctlRoot, "var/lib/nerdctl".into()),
            // Podman keeps its list there in transient mode.
            WatchedFolder::new(FolderKind::PodmanStore, "run/containers/storage/overlay-containers".into()),
        ];
        let graph_root = podman_graph_root(&root);
        let mut docker = vec![DockerStore::new(docker_data_root(&root).join("containers"))];
        for driver in ["overlay", "vfs", "btrfs", "zfs"] {
            let store = |storage: &Path| storage.join(format!("{driver}-containers"));
            // The usual driver's folder may be created later.
            let path = store(&graph_root);
            if driver == "overlay" || root.exists(&path) {
                folders.push(WatchedFolder::new(FolderKind::PodmanStore, path));
            }
            for home in &users {
                let path = store(&home.join(".local/share/containers/storage"));
                if root.exists(&path) {
                    folders.push(WatchedFolder::new(FolderKind::PodmanStore, path));
                }
            }
        }
        for home in &users {
            let path = home.join(".local/share/docker/containers");
            if root.exists(&path) {
                docker.push(DockerStore::new(path));
            }
            let path = home.join(".local/share/nerdctl");
            if root.exists(&path) {
                folders.push(WatchedFolder::new(FolderKind::NerdctlRoot, path));
            }
        }
        if folders.len() > MAX_FOLDERS {
            counters.count_omitted_names(folders.len() - MAX_FOLDERS);
            folders.truncate(MAX_FOLDERS);
        }
        let node = root.node_name();
        let mut names = Self {
            root,
            folders,
            names: Names { node, ..Names::default() },
            docker,
            unnamed: HashMap::default(),
            checked: now,
            counters,
        };
        names.read_changed(now);
        for store in &mut names.docker {
            store.read_all(&names.root, now, &mut names.names, &names.counters);
        }
        names
    }

    /// Sets the names of a cgroup that lacks some. Reads changed folders, at most once a millisecond.
    pub(super) fn fill(&mut self, cgroup: &Cgroup, now: Duration) {
        if !cgroup.lacks_names() || self.names.fill(cgroup) {
            return;
        }
        if now.saturating_sub(self.checked) >= CHECK_INTERVAL {
            self.checked = now;
            if self.read_changed(now) && self.names.fill(cgroup) {
                return;
            }
        }
        self.fill_from_docker(cgroup, now);
    }

    /// Reads the folders that have changed. Returns whether there were any.
    fn read_changed(&mut self, now: Duration) -> bool {
        if self.names.pods.len() >= MAX_ENTRIES || self.names.containers.len() >= MAX_ENTRIES {
            self.counters.count_evicted(self.names.pods.len() + self.names.containers.len());
            self.names.pods.clear();
            self.names.containers.clear();
            self.folders.iter_mut().for_each(WatchedFolder::forget);
        }
        let mut changed = false;
        let mut at = 0;
        while let Some(folder) = self.folders.get_mut(at) {
            at += 1;
            let mut found = Vec::new();
            match folder.read_if_changed(&self.root, now, &mut self.names, &mut found) {
                Ok(read) => changed |= read,
                Err(_) => self.counters.count_unreadable_names(1),
            }
            self.watch(found);
        }
        if self.names.omitted > 0 {
            self.counters.count_omitted_names(usize::try_from(self.names.omitted).unwrap_or(usize::MAX));
            self.names.omitted = 0;
        }
        changed
    }

    /// Watches further folders.
    fn watch(&mut self, mut found: Vec<(FolderKind, PathBuf)>) {
        found.retain(|(_, path)| self.folders.iter().all(|folder| folder.path() != path));
        let room = MAX_FOLDERS.saturating_sub(self.folders.len());
        if found.len() > room {
            self.counters.count_omitted_names(found.len() - room);
            found.truncate(room);
        }
        self.folders.extend(found.into_iter().map(|(kind, path)| WatchedFolder::new(kind, path)));
    }

    /// Searches Docker's folders for a container without a name.
    fn fill_from_docker(&mut self, cgroup: &Cgroup, now: Duration) {
        let Some(container) = &cgroup.owner.container else { return };
        let may_be_docker = matches!(container.runtime, Runtime::Docker | Runtime::Unnamed);
        if !may_be_docker || cgroup.owner.pod_uid.is_some() || cgroup.names.container().is_some() {
            return;
        }
        let Some(key) = container_id(&container.id) else { return };
        let is_first = !self.unnamed.contains_key(&key);
        if !self.begin_search(key, now) {
            return;
        }
        let mut refused = false;
        for store in &mut self.docker {
            match store.read(&self.root, &container.id, now) {
                Ok(Some(name)) => {
                    self.unnamed.remove(&key);
                    self.names.add_container(&container.id, &name, None);
                    cgroup.names.set_container(name.into());
                    return;
                }
                Ok(None) => {}
                Err(error) => refused |= error != Errno::NOENT,
            }
        }
        if refused && is_first {
            self.counters.count_unreadable_names(1);
        }
    }

    /// Searches the command line of Podman's monitor for the name of a container in which process `pid` runs.
    pub(super) fn fill_from_process(&mut self, cgroup: &Cgroup, pid: u32, now: Duration) {
        let Some(Container { id, runtime: Runtime::Podman }) = &cgroup.owner.container else { return };
        if cgroup.names.container().is_some() {
            return;
        }
        let Some(key) = container_id(id).filter(|&key| self.begin_search(key, now)) else { return };
        if let Some(name) = name_by_monitor(Path::new("/proc"), pid, id) {
            self.unnamed.remove(&key);
            self.names.add_container(id, &name, None);
            cgroup.names.set_container(name.into());
        }
    }

    /// Returns whether to search for the name of a container now, and not again for a while.
    fn begin_search(&mut self, container: ContainerId, now: Duration) -> bool {
        let is_recent = |searched: &Duration| now.saturating_sub(*searched) < SEARCH_INTERVAL;
        if self.unnamed.get(&container).is_some_and(is_recent) {
            return false;
        }
        if self.unnamed.len() >= MAX_ENTRIES {
            self.unnamed.clear();
        }
        self.unnamed.insert(container, now);
        true
    }
}

/// Returns the homes in `/etc/passwd` that have data of programs, relative to the root.
fn homes_with_data(root: &HostRoot) -> Vec<PathBuf> {
    let passwd = root.read(Path::new("etc/passwd"), 1 << 20).unwrap_or_default();
    let mut homes: Vec<PathBuf> = passwd
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b':').nth(5))
        .filter_map(|home| home.strip_prefix(b"/"))
        .filter(|home| !home.is_empty())
        .map(|home| PathBuf::from(std::ffi::OsStr::from_bytes(home)))
        .collect();
    homes.sort_unstable();
    homes.dedup();
    homes.truncate(MAX_USERS);
    homes.retain(|home| root.exists(&home.join(".local/share")));
    homes
}

/// Parses the 64 hexadecimal digits of a container id.
fn container_id(text: &str) -> Option<ContainerId> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut id = ContainerId::default();
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(id)
}

/// Parses the 32 hexadecimal digits of a pod's uid, with or without dashes.
fn pod_uid(text: &str) -> Option<PodUid> {
    let mut uid = 0;
    for byte in text.bytes().filter(|&byte| byte != b'-') {
        uid = (uid << 4) | PodUid::from(digit(byte)?);
    }
    Some(uid)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests;
