//! The files of Docker and Podman.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{fd::OwnedFd, fs::OFlags, io::Errno};
use serde::Deserialize;

use crate::host::{
    CgroupCounters,
    container::is_name,
    container_names::{
        Names,
        host_root::{HostRoot, entries, read_in},
    },
};

/// Largest configuration of a daemon, bytes.
const MAX_SETTINGS: u64 = 1 << 16;
/// Largest file of a container of Docker, bytes.
const MAX_CONTAINER: u64 = 1 << 20;
/// Largest list of containers of Podman, bytes. An entry takes about 400.
const MAX_LIST: u64 = 16 << 20;
/// Most containers of Docker that are read at the start.
const MAX_AT_START: usize = 4096;
/// Time until a folder that cannot be opened is tried again.
const OPEN_INTERVAL: Duration = Duration::from_secs(5);

/// Returns Docker's folder, relative to the root: `data-root` of `/etc/docker/daemon.json`.
pub(super) fn docker_data_root(root: &HostRoot) -> PathBuf {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(rename = "data-root")]
        data_root: Option<PathBuf>,
    }
    let text = root.read(Path::new("etc/docker/daemon.json"), MAX_SETTINGS).unwrap_or_default();
    let settings: Option<Settings> = serde_json::from_slice(&text).ok();
    relative(settings.and_then(|settings| settings.data_root)).unwrap_or_else(|| "var/lib/docker".into())
}

/// Returns root's container storage, relative to the root: `graphroot` of `storage.conf`.
pub(super) fn podman_graph_root(root: &HostRoot) -> PathBuf {
    #[derive(Deserialize)]
    struct Settings {
        storage: Option<Storage>,
    }
    #[derive(Deserialize)]
    struct Storage {
        graphroot: Option<PathBuf>,
    }
    ["etc/containers/storage.conf", "usr/share/containers/storage.conf"]
        .into_iter()
        .filter_map(|path| String::from_utf8(root.read(Path::new(path), MAX_SETTINGS).ok()?).ok())
        .find_map(|text| relative(toml::from_str::<Settings>(&text).ok()?.storage?.graphroot))
        .unwrap_or_else(|| "var/lib/containers/storage".into())
}

fn relative(path: Option<PathBuf>) -> Option<PathBuf> {
    let path = path?.strip_prefix("/").ok()?.to_owned();
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Docker's folder of containers.
#[derive(Debug)]
pub(super) struct DockerStore {
    path: PathBuf,
    directory: Option<OwnedFd>,
    /// Why the folder could not be opened, and when it is tried again.
    failed: Option<(Errno, Duration)>,
}

impl DockerStore {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, directory: None, failed: None }
    }

    fn directory(&mut self, root: &HostRoot, now: Duration) -> Result<&OwnedFd, Errno> {
        if self.directory.is_none() {
            if let Some((error, next)) = self.failed
                && now < next
            {
                return Err(error);
            }
            match root.open_below(&self.path, OFlags::DIRECTORY) {
                Ok(directory) => self.directory = Some(directory),
                Err(error) => self.failed = Some((error, now + OPEN_INTERVAL)),
            }
        }
        self.directory.as_ref().ok_or(self.failed.map_or(Errno::NOENT, |(error, _)| error))
    }

    /// Returns the name of a container; `None` if its file has none.
    pub(super) fn read(&mut self, root: &HostRoot, id: &str, now: Duration) -> Result<Option<String>, Errno> {
        name_in(self.directory(root, now)?, id)
    }

    /// Adds the name of every container, while the process has the privileges to read them.
    pub(super) fn read_all(
        &mut self,
        root: &HostRoot,
        now: Duration,
        names: &mut Names,
        counters: &CgroupCounters,
    ) {
        let directory = match self.directory(root, now) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return,
            Err(_) => return counters.count_unreadable_names(1),
        };
        let Ok(entries) = entries(directory) else { return counters.count_unreadable_names(1) };
        for (count, entry) in entries.flatten().enumerate() {
            if count >= MAX_AT_START {
                return;
            }
            let Ok(id) = entry.file_name().to_str() else { continue };
            match name_in(directory, id) {
                Ok(Some(name)) => names.add_container(id, &name, None),
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(_) => counters.count_unreadable_names(1),
            }
        }
    }
}

fn name_in(directory: &OwnedFd, id: &str) -> Result<Option<String>, Errno> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Container {
        name: String,
    }
    let text = read_in(directory, &Path::new(id).join("config.v2.json"), MAX_CONTAINER)?;
    let container: Option<Container> = serde_json::from_slice(&text).ok();
    Ok(container
        .map(|container| container.name.trim_start_matches('/').to_owned())
        .filter(|name| is_name(name)))
}

/// Adds the containers of a storage: of `podman create`, and of those with `--rm`.
pub(super) fn read_podman_store(directory: &OwnedFd, names: &mut Names) -> Result<(), Errno> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        names: Option<Vec<String>>,
    }
    for list in ["containers.json", "volatile-containers.json"] {
        let text = match read_in(directory, Path::new(list), MAX_LIST) {
            Ok(text) => text,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        // Replaced as a whole, so never half of it.
        let containers: Vec<Container> = serde_json::from_slice(&text).unwrap_or_default();
        for Container { id, names: given } in containers {
            if let Some(name) = given.iter().flatten().find(|name| is_name(name)) {
                names.add_container(&id, name, None);
            }
        }
    }
    Ok(())
}
