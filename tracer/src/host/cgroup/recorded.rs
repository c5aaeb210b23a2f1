//! The cgroups of a recorded host, as read from the recording so far.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracer_core::event::CgroupId;

use crate::host::Cgroup;

/// Most ids, and most processes. A full map is cleared, and later rows fill it again.
const MAX_ENTRIES: usize = 65_536;

/// The cgroups that a recording has named so far. The reader writes them, and [`CgroupResolver`](super::CgroupResolver)
/// reads them.
#[derive(Clone, Debug, Default)]
pub struct RecordedCgroups(Arc<Mutex<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<CgroupId, Arc<Cgroup>>,
    by_process: HashMap<u32, Arc<Cgroup>>,
}

impl RecordedCgroups {
    /// Sets the cgroup of an id.
    pub fn insert_id(&self, id: CgroupId, cgroup: Arc<Cgroup>) {
        insert(&mut self.maps().by_id, id, cgroup);
    }

    /// Sets the cgroup of a process; `None` removes it.
    pub fn set_process(&self, pid: u32, cgroup: Option<Arc<Cgroup>>) {
        let by_process = &mut self.maps().by_process;
        match cgroup {
            Some(cgroup) => insert(by_process, pid, cgroup),
            None => {
                by_process.remove(&pid);
            }
        }
    }

    pub(super) fn of_id(&self, id: CgroupId) -> Option<Arc<Cgroup>> {
        self.maps().by_id.get(&id).cloned()
    }

    pub(super) fn of_process(&self, pid: u32) -> Option<Arc<Cgroup>> {
        self.maps().by_process.get(&pid).cloned()
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Arc<Cgroup>>, key: K, cgroup: Arc<Cgroup>) {
    if map.len() >= MAX_ENTRIES && !map.contains_key(&key) {
        map.clear();
    }
    map.insert(key, cgroup);
}
