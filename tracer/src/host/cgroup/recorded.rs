//! The cgroups of a recorded host, as far as its recording has told them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::host::Cgroup;

/// Most ids remembered, and most processes; beyond it all are forgotten and told again by later rows.
const MAX_KNOWN: usize = 65_536;

/// What a recording has told of cgroups so far: written by the reader, asked by
/// [`CgroupResolver`](super::CgroupResolver).
#[derive(Clone, Debug, Default)]
pub struct RecordedCgroups(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<u64, Arc<Cgroup>>,
    by_process: HashMap<u32, Arc<Cgroup>>,
}

impl RecordedCgroups {
    /// A row names the path of a socket's cgroup.
    pub fn tell_id(&self, id: u64, cgroup: Arc<Cgroup>) {
        insert(&mut self.known().by_id, id, cgroup);
    }

    /// A row names the path of a process's cgroup, or that it has none.
    pub fn tell_process(&self, pid: u32, cgroup: Option<Arc<Cgroup>>) {
        let known = &mut self.known().by_process;
        match cgroup {
            Some(cgroup) => insert(known, pid, cgroup),
            None => {
                known.remove(&pid);
            }
        }
    }

    pub(super) fn of_id(&self, id: u64) -> Option<Arc<Cgroup>> {
        self.known().by_id.get(&id).cloned()
    }

    pub(super) fn of_process(&self, pid: u32) -> Option<Arc<Cgroup>> {
        self.known().by_process.get(&pid).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert<K: Eq + std::hash::Hash>(known: &mut HashMap<K, Arc<Cgroup>>, key: K, cgroup: Arc<Cgroup>) {
    if known.len() >= MAX_KNOWN && !known.contains_key(&key) {
        known.clear();
    }
    known.insert(key, cgroup);
}
