//! Selects the owner among several processes that hold a socket.

use std::{cmp::Reverse, collections::HashMap, ffi::CString};

use rustix::fd::BorrowedFd;

use super::{
    files::{self, Stat},
    info::ProcessInfo,
};

/// Most ancestors that are followed. Real process trees are much shallower.
const ANCESTRY_LIMIT: usize = 64;

/// Returns the index of the owner. [`SocketOwners::owner_of`](super::SocketOwners::owner_of) documents the rule.
pub(super) fn choose(holders: &[ProcessInfo], ancestry: &mut Ancestry<'_>) -> usize {
    let only_managers = holders.iter().all(ProcessInfo::is_service_manager);
    let eligible = |process: &ProcessInfo| only_managers || !process.is_service_manager();
    let pids: Vec<u32> =
        holders.iter().filter(|process| eligible(process)).map(|process| process.pid).collect();
    holders
        .iter()
        .enumerate()
        .filter(|(_, process)| eligible(process))
        .min_by_key(|(_, process)| {
            let inherited = ancestry.descends_from_any(process.pid, &pids);
            (inherited, Reverse(process.start_time_ticks), process.pid)
        })
        .map_or(0, |(at, _)| at)
}

/// The parents of processes, read on demand.
pub(super) struct Ancestry<'a> {
    root: BorrowedFd<'a>,
    parents: HashMap<u32, u32>,
    text: &'a mut Vec<u8>,
}

impl<'a> Ancestry<'a> {
    /// `root` is the procfs. The parents of `processes` are already known.
    pub(super) fn new(root: BorrowedFd<'a>, processes: &[ProcessInfo], text: &'a mut Vec<u8>) -> Self {
        let parents = processes.iter().map(|process| (process.pid, process.parent)).collect();
        Self { root, parents, text }
    }

    fn parent(&mut self, pid: u32) -> u32 {
        if let Some(&parent) = self.parents.get(&pid) {
            return parent;
        }
        let parent = self.read_parent(pid).unwrap_or(0);
        self.parents.insert(pid, parent);
        parent
    }

    fn read_parent(&mut self, pid: u32) -> Option<u32> {
        let path = CString::new(format!("{pid}/stat")).ok()?;
        files::read(self.root, &path, self.text).ok()?;
        Some(Stat::parse(self.text)?.parent)
    }

    /// Returns whether an ancestor of `pid` is among `others`.
    fn descends_from_any(&mut self, pid: u32, others: &[u32]) -> bool {
        let mut at = pid;
        // The limit also ends a cycle, which reads at different times can produce.
        for _ in 0..ANCESTRY_LIMIT {
            at = self.parent(at);
            if at == 0 {
                return false;
            }
            if at != pid && others.contains(&at) {
                return true;
            }
        }
        false
    }
}
