//! The cgroup, and with it the container, of a connection; kept beyond the end of either.

use std::{path::Path, sync::Arc, time::Duration};

use hashbrown::HashMap;
use tracer_core::event::Process;

use crate::host::{Cgroup, CgroupLimits, CgroupOwner, CgroupPaths, RecordedCgroups, cgroup_of_process};

/// Most processes whose cgroup is remembered, on hosts where it has to be asked of the process.
const MAX_PROCESSES: usize = 16_384;

/// How long what was asked of a process is believed. Process ids come round no faster, and asking again for
/// each connection of a busy client would cost more than all else.
const BELIEVED: Duration = Duration::from_secs(1);

/// Finds cgroups by their id, or by a process where the id says nothing.
///
/// On hosts with cgroup v1 every socket is in the root of the v2 hierarchy, and only its process knows
/// the v1 path. That is asked when the connection begins, because later the process may be gone.
#[derive(Debug)]
pub struct CgroupResolver(Lookups);

#[derive(Debug)]
enum Lookups {
    /// This host's.
    Live { paths: Option<Box<CgroupPaths>>, by_process: HashMap<u32, Asked, foldhash::fast::FixedState> },
    /// A recording's.
    Recorded(RecordedCgroups),
}

/// What a process answered, and when.
#[derive(Debug)]
struct Asked {
    cgroup: Option<Arc<Cgroup>>,
    at: Duration,
}

impl CgroupResolver {
    /// Walks the cgroup hierarchy once. `now` is the time of a clock that does not go back.
    pub fn new(now: Duration) -> Self {
        Self(Lookups::Live {
            paths: CgroupPaths::new(CgroupLimits::default(), now).ok().map(Box::new),
            by_process: HashMap::default(),
        })
    }

    /// What a recording tells as it goes on; nothing of this host is looked at.
    pub fn recorded(cgroups: RecordedCgroups) -> Self {
        Self(Lookups::Recorded(cgroups))
    }

    /// A connection has begun: looks its cgroup up while it certainly exists.
    pub fn note(&mut self, cgroup_id: Option<u64>, process: Option<&Process>, now: Duration) {
        if let Lookups::Recorded(_) = self.0 {
            return;
        }
        if let Some(process) = process {
            // The number may have belonged to another process before.
            self.forget_process(process.pid, now);
        }
        let _ = self.cgroup(cgroup_id, process, now);
    }

    /// The cgroup of a connection; none when neither its id nor its process leads to one.
    pub fn cgroup(
        &mut self,
        cgroup_id: Option<u64>,
        process: Option<&Process>,
        now: Duration,
    ) -> Option<Arc<Cgroup>> {
        let by_id = cgroup_id.and_then(|id| self.of_id(id, now));
        if by_id.as_ref().is_some_and(|cgroup| cgroup.path != "/") {
            return by_id;
        }
        process.and_then(|process| self.of_process(process.pid, now)).or(by_id)
    }

    /// The cgroup with this id.
    pub fn of_id(&mut self, id: u64, now: Duration) -> Option<Arc<Cgroup>> {
        match &mut self.0 {
            Lookups::Live { paths, .. } => paths.as_mut()?.resolve(id, now),
            Lookups::Recorded(cgroups) => cgroups.of_id(id),
        }
    }

    /// The cgroup of a process, remembered from the first question on.
    pub fn of_process(&mut self, pid: u32, now: Duration) -> Option<Arc<Cgroup>> {
        let by_process = match &mut self.0 {
            Lookups::Live { by_process, .. } => by_process,
            Lookups::Recorded(cgroups) => return cgroups.of_process(pid),
        };
        if let Some(known) = by_process.get(&pid) {
            return known.cgroup.clone();
        }
        if by_process.len() >= MAX_PROCESSES {
            by_process.clear();
        }
        let cgroup = cgroup_of_process(Path::new("/proc"), pid)
            .map(|path| Arc::new(Cgroup { owner: CgroupOwner::from_path(&path), path }));
        by_process.insert(pid, Asked { cgroup: cgroup.clone(), at: now });
        cgroup
    }

    /// The number may belong to another process now, unless it was asked a moment ago.
    pub fn forget_process(&mut self, pid: u32, now: Duration) {
        if let Lookups::Live { by_process, .. } = &mut self.0
            && by_process.get(&pid).is_some_and(|asked| now.saturating_sub(asked.at) >= BELIEVED)
        {
            by_process.remove(&pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_leads_to_its_cgroup_and_a_vanished_one_to_what_was_noted() {
        let mut resolver = CgroupResolver(Lookups::Live { paths: None, by_process: HashMap::default() });
        let own = Process { pid: std::process::id(), uid: 0, comm: [0; 16] };
        let now = Duration::ZERO;
        let found = resolver.cgroup(None, Some(&own), now).unwrap();
        assert_eq!(Some(found.path.clone()), cgroup_of_process(Path::new("/proc"), own.pid));

        let gone = Process { pid: u32::MAX, ..own };
        assert_eq!(resolver.cgroup(None, Some(&gone), now), None);
        let Lookups::Live { by_process, .. } = &mut resolver.0 else { unreachable!() };
        by_process.insert(u32::MAX, Asked { cgroup: Some(Arc::clone(&found)), at: now });
        assert_eq!(resolver.cgroup(None, Some(&gone), now), Some(Arc::clone(&found)));
        resolver.note(None, Some(&gone), now + BELIEVED / 2);
        assert_eq!(resolver.cgroup(None, Some(&gone), now), Some(found), "the same process connects again");
        resolver.note(None, Some(&gone), now + BELIEVED);
        assert_eq!(resolver.cgroup(None, Some(&gone), now), None, "a new process with an old number");
    }
}
