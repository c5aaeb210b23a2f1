//! Resolves the cgroup of a connection, and caches it beyond the end of the connection and the cgroup.

use std::{path::Path, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tracer_core::event::{CgroupId, Process};

use crate::host::{
    Cgroup, CgroupCounters, CgroupLimits, CgroupPaths, RecordedCgroups, cgroup::of_process::uses_v1,
    cgroup_of_process, container_names::ContainerNames, namespaces::proc_has_host_pids,
};

/// Most processes in the cache, which is used where the cgroup id has no useful path. A full cache is cleared.
const MAX_PROCESSES: usize = 16_384;

/// How long the cgroup of a process is cached at least. A process id is not reused faster. A read for each connection
/// of a busy client would dominate the cost of tracing.
const PROCESS_TTL: Duration = Duration::from_secs(1);

/// Resolves cgroups by their id, or by a process if the id has no useful path.
///
/// Each cgroup that it returns has the names of its container and pod that are known by then.
///
/// On hosts with cgroup v1, every socket is in the root of the v2 hierarchy, and only `/proc/PID/cgroup` has the v1
/// path. It is read when the connection starts, because the process may exit before the connection closes.
#[derive(Debug)]
pub struct CgroupResolver(Lookups);

#[derive(Debug)]
enum Lookups {
    /// The cgroups of this host.
    Live {
        paths: Option<Box<CgroupPaths>>,
        names: Box<ContainerNames>,
        by_process: HashMap<u32, ProcessCgroup, foldhash::fast::FixedState>,
        counters: Arc<CgroupCounters>,
        /// Processes are in v1 hierarchies, and sockets in the root of v2.
        uses_v1: bool,
        /// `/proc` has the process ids of events. Those of a container's `/proc` may mean other processes.
        has_host_pids: bool,
    },
    /// The cgroups of a recording.
    Recorded(RecordedCgroups),
}

/// The cgroup of a process and the time when it was read.
#[derive(Debug)]
struct ProcessCgroup {
    cgroup: Option<Arc<Cgroup>>,
    read_at: Duration,
}

impl CgroupResolver {
    /// Walks the cgroup hierarchy once, and reads the names of containers and pods below `host_root`. `now` is the time of a
    /// monotonic clock.
    pub fn new(host_root: &Path, now: Duration) -> Self {
        let proc_root = Path::new("/proc");
        let has_host_pids = proc_has_host_pids(proc_root).unwrap_or(true);
        let paths = CgroupPaths::new(CgroupLimits::default(), now).ok();
        Self::live(paths, uses_v1(proc_root), has_host_pids, host_root, now)
    }

    fn live(
        paths: Option<CgroupPaths>,
        uses_v1: bool,
        has_host_pids: bool,
        host_root: &Path,
        now: Duration,
    ) -> Self {
        let counters = paths.as_ref().map_or_else(Arc::default, CgroupPaths::counters);
        let mut names = ContainerNames::new(host_root, Arc::clone(&counters), now);
        // While the privileges last, and before a container of an existing connection is removed.
        for cgroup in paths.iter().flat_map(CgroupPaths::known) {
            names.fill(cgroup, now);
        }
        Self(Lookups::Live {
            counters,
            paths: paths.map(Box::new),
            names: Box::new(names),
            by_process: HashMap::default(),
            uses_v1,
            has_host_pids,
        })
    }

    /// Resolves cgroups from a recording, as far as it has been read. Reads nothing from this host.
    pub fn recorded(cgroups: RecordedCgroups) -> Self {
        Self(Lookups::Recorded(cgroups))
    }

    /// Returns the counters of the lookups; all 0 for a recording.
    pub fn counters(&self) -> Arc<CgroupCounters> {
        match &self.0 {
            Lookups::Live { counters, .. } => Arc::clone(counters),
            Lookups::Recorded(_) => Arc::default(),
        }
    }

    /// Caches the cgroup of a connection that starts, while the cgroup certainly exists.
    pub fn note(&mut self, cgroup_id: Option<CgroupId>, process: Option<&Process>, now: Duration) {
        if let Lookups::Recorded(_) = self.0 {
            return;
        }
        if let Some(process) = process {
            // The process id may have belonged to another process before.
            self.expire_process(process.pid, now);
        }
        let _ = self.cgroup(cgroup_id, process, now);
    }

    /// Returns the cgroup of a connection; `None` if neither its id nor its process has one.
    pub fn cgroup(
        &mut self,
        cgroup_id: Option<CgroupId>,
        process: Option<&Process>,
        now: Duration,
    ) -> Option<Arc<Cgroup>> {
        let by_id = cgroup_id.and_then(|id| self.of_id(id, now));
        let uses_v1 = matches!(self.0, Lookups::Live { uses_v1: true, .. });
        let cgroup = choose(by_id, || process.and_then(|process| self.of_process(process.pid, now)), uses_v1);
        if let (Some(cgroup), Some(process), Lookups::Live { names, has_host_pids: true, .. }) =
            (&cgroup, process, &mut self.0)
        {
            names.fill_from_process(cgroup, process.pid, now);
        }
        cgroup
    }

    /// Returns the cgroup with this id.
    pub fn of_id(&mut self, id: CgroupId, now: Duration) -> Option<Arc<Cgroup>> {
        match &mut self.0 {
            Lookups::Live { paths, names, .. } => {
                let cgroup = paths.as_mut()?.resolve(id, now)?;
                names.fill(&cgroup, now);
                Some(cgroup)
            }
            Lookups::Recorded(cgroups) => cgroups.of_id(id),
        }
    }

    /// Returns the cgroup of a process, cached from the first call on; none where `/proc` has other process ids than events.
    pub fn of_process(&mut self, pid: u32, now: Duration) -> Option<Arc<Cgroup>> {
        let (by_process, names, counters) = match &mut self.0 {
            Lookups::Live { has_host_pids: false, .. } => return None,
            Lookups::Live { by_process, names, counters, .. } => (by_process, names, counters),
            Lookups::Recorded(cgroups) => return cgroups.of_process(pid),
        };
        if let Some(cached) = by_process.get(&pid) {
            if let Some(cgroup) = &cached.cgroup {
                names.fill(cgroup, now);
                names.fill_from_process(cgroup, pid, now);
            }
            return cached.cgroup.clone();
        }
        if by_process.len() >= MAX_PROCESSES {
            counters.count_evicted(by_process.len());
            by_process.clear();
        }
        let cgroup = cgroup_of_process(Path::new("/proc"), pid).map(|path| Arc::new(Cgroup::new(path)));
        if let Some(cgroup) = &cgroup {
            names.fill(cgroup, now);
            names.fill_from_process(cgroup, pid, now);
        }
        by_process.insert(pid, ProcessCgroup { cgroup: cgroup.clone(), read_at: now });
        cgroup
    }

    /// Drops the cached cgroup of a process id that may have been reused: one read more than [`PROCESS_TTL`] ago.
    pub fn expire_process(&mut self, pid: u32, now: Duration) {
        if let Lookups::Live { by_process, .. } = &mut self.0
            && by_process.get(&pid).is_some_and(|cached| now.saturating_sub(cached.read_at) >= PROCESS_TTL)
        {
            by_process.remove(&pid);
        }
    }
}

/// Chooses between the cgroup of a socket's id and that of its process. The root is the last resort, and with v1 none.
fn choose(
    by_id: Option<Arc<Cgroup>>,
    by_process: impl FnOnce() -> Option<Arc<Cgroup>>,
    uses_v1: bool,
) -> Option<Arc<Cgroup>> {
    match by_id {
        Some(cgroup) if cgroup.path != "/" => Some(cgroup),
        by_id => by_process().or(by_id.filter(|_| !uses_v1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_process_is_read_and_that_of_an_exited_one_is_cached() {
        let root = tempfile::tempdir().unwrap();
        let mut resolver = CgroupResolver::live(None, false, true, root.path(), Duration::ZERO);
        let own = Process { pid: std::process::id(), uid: 0, comm: [0; 16] };
        let now = Duration::ZERO;
        let found = resolver.cgroup(None, Some(&own), now).unwrap();
        assert_eq!(Some(found.path.clone()), cgroup_of_process(Path::new("/proc"), own.pid));

        let gone = Process { pid: u32::MAX, ..own };
        assert_eq!(resolver.cgroup(None, Some(&gone), now), None);
        let Lookups::Live { by_process, .. } = &mut resolver.0 else { unreachable!() };
        by_process.insert(u32::MAX, ProcessCgroup { cgroup: Some(Arc::clone(&found)), read_at: now });
        assert_eq!(resolver.cgroup(None, Some(&gone), now), Some(Arc::clone(&found)));
        resolver.note(None, Some(&gone), now + PROCESS_TTL / 2);
        assert_eq!(resolver.cgroup(None, Some(&gone), now), Some(found), "the same process connects again");
        resolver.note(None, Some(&gone), now + PROCESS_TTL);
        assert_eq!(resolver.cgroup(None, Some(&gone), now), None, "a new process with a reused id");
    }

    #[test]
    fn a_process_id_of_the_host_is_not_looked_up_in_the_proc_of_a_container() {
        let root = tempfile::tempdir().unwrap();
        let mut resolver = CgroupResolver::live(None, false, false, root.path(), Duration::ZERO);
        assert_eq!(resolver.of_process(std::process::id(), Duration::ZERO), None);
    }

    #[test]
    fn the_root_of_v2_is_a_cgroup_only_where_no_process_is_in_v1() {
        let cgroup = |path: &str| Some(Arc::new(Cgroup::new(path.to_owned())));
        let path = |by_id, by_process, uses_v1| {
            choose(cgroup(by_id), || by_process, uses_v1).map(|cgroup| cgroup.path.clone())
        };
        assert_eq!(path("/", None, false).as_deref(), Some("/"));
        assert_eq!(path("/", None, true), None);
        for uses_v1 in [false, true] {
            assert_eq!(path("/", cgroup("/a"), uses_v1).as_deref(), Some("/a"));
            assert_eq!(path("/b", cgroup("/a"), uses_v1).as_deref(), Some("/b"));
        }
    }
}
