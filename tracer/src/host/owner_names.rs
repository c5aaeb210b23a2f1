//! The names of a cgroup's container and pod.

use std::sync::{Arc, OnceLock};

use crate::host::{container::is_name, kubernetes::PodNames};

/// The names of a cgroup's container and pod. Each is set at most once, because it may become known later than the cgroup;
/// it then stays for as long as something refers to the cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerNames {
    container: OnceLock<Arc<str>>,
    pod: OnceLock<Arc<PodNames>>,
}

impl OwnerNames {
    /// Returns the name of the container: 1 to 255 of `A-Z a-z 0-9 . _ -`.
    pub fn container(&self) -> Option<&str> {
        self.container.get().map(|name| &**name)
    }

    /// Returns the names of the pod.
    pub fn pod(&self) -> Option<&PodNames> {
        self.pod.get().map(|names| &**names)
    }

    /// Sets the name of the container, if it has none and this is a valid one.
    pub fn set_container(&self, name: Arc<str>) {
        if is_name(&name) {
            // An earlier name stays.
            let _ = self.container.set(name);
        }
    }

    /// Sets the names of the pod, if it has none.
    pub fn set_pod(&self, names: Arc<PodNames>) {
        let _ = self.pod.set(names);
    }
}
