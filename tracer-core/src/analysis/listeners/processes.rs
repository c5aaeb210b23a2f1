//! The processes that listen on each address.

use hashbrown::{HashMap, hash_map::Entry};

use crate::{analysis::ListenAddress, event::Process, lifecycle::Tracker};

/// The processes that listen on each address.
#[derive(Clone, Debug, Default)]
pub struct ListenerProcesses(HashMap<ListenAddress, Option<Process>, foldhash::fast::RandomState>);

impl ListenerProcesses {
    /// Returns the processes of the listeners in the tracker's table.
    pub fn of(tracker: &Tracker) -> Self {
        let mut processes = Self::default();
        for (netns, local, process) in tracker.listeners() {
            processes.add((netns, local), process);
        }
        processes
    }

    pub(super) fn add(&mut self, address: ListenAddress, process: Option<Process>) {
        match self.0.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(process);
            }
            Entry::Occupied(mut entry) => {
                let same = |known: &Process| process.is_some_and(|process| process.pid == known.pid);
                let known = entry.get_mut();
                *known = known.filter(same);
            }
        }
    }

    /// Returns the process that listens on the address; none where listeners of several processes share it.
    pub(super) fn at(&self, address: ListenAddress) -> Option<Process> {
        self.0.get(&address).copied().flatten()
    }
}
