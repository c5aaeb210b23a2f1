//! Which process holds which socket: one pass over `/proc/*/fd`.
//!
//! Costs one `readlink` for each open file of the host, and nothing else for processes without a socket.

use std::{collections::HashMap, ffi::CStr, mem::MaybeUninit, path::Path};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags, RawDir},
    io::{self, Errno},
};

use super::{
    files::{self, Stat, Status, number, parse_comm},
    holder::{Ancestry, choose},
    info::ProcessInfo,
};

/// Bounds of one [`scan`].
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Processes looked at; bounds the time.
    pub processes: usize,
    /// Descriptors looked at, of all processes together; bounds the time.
    pub descriptors: usize,
    /// Pairs of socket and holder remembered, 16 bytes each; bounds the memory.
    pub sockets: usize,
}

impl Default for ScanLimits {
    /// 131,072 processes, 8,388,608 descriptors, 2,097,152 sockets (32 MiB).
    fn default() -> Self {
        Self { processes: 1 << 17, descriptors: 1 << 23, sockets: 1 << 21 }
    }
}

/// What a [`scan`] saw and could not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Processes whose descriptors were read; to root kernel threads look like processes that have none.
    pub processes: usize,
    /// Descriptors read.
    pub descriptors: usize,
    /// Processes whose descriptors could not be read, mostly because they may not be: those of other users need `CAP_SYS_PTRACE` and
    /// `CAP_DAC_READ_SEARCH`.
    pub unreadable_processes: usize,
    /// Processes that ended while they were looked at.
    pub vanished_processes: usize,
    /// A limit was reached, and the rest was left out.
    pub truncated: bool,
}

/// The sockets of a host and who holds them, as of one [`scan`].
#[derive(Debug, Default)]
pub struct SocketOwners {
    processes: Vec<ProcessInfo>,
    /// Sorted by inode; of several holders of one socket the owner comes first.
    holders: Vec<Holder>,
    counts: ScanCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    inode: u64,
    /// Index into `processes`.
    process: u32,
}

impl SocketOwners {
    /// The most plausible owner of the socket with this inode (as `sock_diag` and `stat` of the
    /// descriptor give it); `None` when no process that could be read holds it.
    ///
    /// Several processes hold one socket when it was inherited over `fork` or passed on. Then the
    /// owner is, in this order:
    ///
    /// 1. anyone rather than a service manager (pid 1, `systemd --user`): socket activation keeps a
    ///    descriptor in the manager while the service does the work;
    /// 2. a process none of whose ancestors hold the socket: the one that made it. So the listener of
    ///    a pre-forking server belongs to the master, and a descriptor that leaked into a helper
    ///    stays with the program that opened it;
    /// 3. the one that started last: of two unrelated holders the younger is the one that was handed
    ///    the socket, as in an upgrade without downtime;
    /// 4. the lowest pid.
    ///
    /// Wrong for a server that forks for each connection and whose parent does not close its copy:
    /// the child does the work, the parent is named. [`Self::holders_of`] shows when to doubt, and
    /// an event of the connection itself (a read, a close) is better evidence than any scan.
    pub fn owner_of(&self, inode: u64) -> Option<&ProcessInfo> {
        self.holders_of(inode).next()
    }

    /// All processes that hold the socket, the owner first, the others by pid.
    pub fn holders_of(&self, inode: u64) -> impl ExactSizeIterator<Item = &ProcessInfo> {
        let start = self.holders.partition_point(|holder| holder.inode < inode);
        let count = self.holders[start..].partition_point(|holder| holder.inode == inode);
        self.holders[start..start + count].iter().map(|holder| &self.processes[holder.process as usize])
    }

    /// The processes that hold at least one socket, by pid.
    pub fn processes(&self) -> &[ProcessInfo] {
        &self.processes
    }

    /// What was seen, and what was not.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }
}

/// Reads the descriptors of every process below `proc_root`, a mounted procfs.
///
/// A process whose threads do not share their descriptors (`CLONE_FILES` off) shows only those of its
/// first thread.
///
/// # Errors
///
/// When `proc_root` itself cannot be read. Processes that cannot are counted.
pub fn scan(proc_root: &Path, limits: ScanLimits) -> io::Result<SocketOwners> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, proc_root, flags, Mode::empty())?;
    let mut scan = Scan { limits, owners: SocketOwners::default(), text: Vec::new() };
    let mut pids = process_ids(&root, limits.processes, &mut scan.owners.counts.truncated)?;
    pids.sort_unstable();
    for pid in pids {
        if scan.is_full() {
            scan.owners.counts.truncated = true;
            break;
        }
        scan.process(root.as_fd(), pid);
    }
    let Scan { mut owners, mut text, .. } = scan;
    let mut ancestry = Ancestry::new(root.as_fd(), &owners.processes, &mut text);
    sort_holders(&mut owners, &mut ancestry);
    Ok(owners)
}

/// The numbers among the names in `/proc`, at most `limit`.
pub(in crate::host) fn process_ids(
    root: &OwnedFd,
    limit: usize,
    truncated: &mut bool,
) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8 << 10];
    let mut entries = RawDir::new(root, &mut buffer);
    while let Some(entry) = entries.next() {
        if let Some(pid) = number(entry?.file_name().to_bytes()) {
            if pids.len() >= limit {
                *truncated = true;
                break;
            }
            pids.push(pid);
        }
    }
    Ok(pids)
}

struct Scan {
    limits: ScanLimits,
    owners: SocketOwners,
    text: Vec<u8>,
}

impl Scan {
    fn is_full(&self) -> bool {
        self.owners.holders.len() >= self.limits.sockets
            || self.owners.counts.descriptors >= self.limits.descriptors
    }

    fn process(&mut self, root: BorrowedFd<'_>, pid: u32) {
        // Everything is opened relative to this directory, which never stands for a later process
        // with the same pid.
        let mut name = itoa::Buffer::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(root, name.format(pid), flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(error) => return self.count_failure(error),
        };
        let before = self.owners.holders.len();
        let outcome = self.descriptors(&directory).and_then(|()| {
            if self.owners.holders.len() == before {
                return Ok(());
            }
            let process = self.identify(&directory, pid)?;
            self.owners.processes.push(process);
            Ok(())
        });
        let Err(error) = outcome else {
            self.owners.counts.processes += 1;
            return;
        };
        self.owners.holders.truncate(before);
        // A kernel thread has no descriptors that one could miss.
        if !self.is_kernel_thread(&directory) {
            self.count_failure(error);
        }
    }

    fn count_failure(&mut self, error: Errno) {
        let counts = &mut self.owners.counts;
        match error {
            Errno::NOENT | Errno::SRCH => counts.vanished_processes += 1,
            _ => counts.unreadable_processes += 1,
        }
    }

    /// Notes the sockets among the descriptors of a process, for the next index of `processes`.
    fn descriptors(&mut self, directory: &OwnedFd) -> io::Result<()> {
        let descriptors = files::open_directory(directory, c"fd")?;
        let Ok(process) = u32::try_from(self.owners.processes.len()) else {
            return Err(Errno::OVERFLOW);
        };
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        let mut entries = RawDir::new(&descriptors, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if entry.file_name().to_bytes().starts_with(b".") {
                continue;
            }
            if self.is_full() {
                self.owners.counts.truncated = true;
                break;
            }
            self.owners.counts.descriptors += 1;
            if let Some(inode) = socket_inode(&descriptors, entry.file_name())? {
                self.owners.holders.push(Holder { inode, process });
            }
        }
        Ok(())
    }

    fn identify(&mut self, directory: &OwnedFd, pid: u32) -> io::Result<ProcessInfo> {
        files::read(directory, c"stat", &mut self.text)?;
        let stat = Stat::parse(&self.text).ok_or(Errno::SRCH)?;
        files::read(directory, c"status", &mut self.text)?;
        let status = Status::parse(&self.text).ok_or(Errno::SRCH)?;
        files::read(directory, c"comm", &mut self.text)?;
        Ok(ProcessInfo {
            pid,
            namespaced_pid: status.namespaced_pid,
            uid: status.uid,
            comm: parse_comm(&self.text),
            start_time_ticks: stat.start_time_ticks,
            parent: stat.parent,
        })
    }

    fn is_kernel_thread(&mut self, directory: &OwnedFd) -> bool {
        files::read(directory, c"stat", &mut self.text).is_ok()
            && Stat::parse(&self.text).is_some_and(|stat| stat.kernel_thread)
    }
}

/// The inode in `socket:[INODE]`, if the descriptor is a socket; fails when all would.
fn socket_inode(directory: &OwnedFd, name: &CStr) -> io::Result<Option<u64>> {
    // Longer targets are cut off; no socket's is.
    let mut buffer = [0; 40];
    let length = match rustix::fs::readlinkat_raw(directory, name, &mut buffer) {
        Ok(length) => length,
        // With CAP_DAC_READ_SEARCH and without CAP_SYS_PTRACE the directory opens, its links do not.
        Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
        // Closed meanwhile.
        Err(_) => return Ok(None),
    };
    let digits = buffer[..length].strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
    Ok(digits.and_then(number))
}

/// Sorts by inode, and puts the owner in front where there are several holders.
fn sort_holders(owners: &mut SocketOwners, ancestry: &mut Ancestry<'_>) {
    owners.holders.sort_unstable();
    // A process may hold a socket under several descriptors.
    owners.holders.dedup();
    let SocketOwners { holders, processes, .. } = owners;
    // Workers share all their listeners, so the same group of holders comes again and again.
    let mut decided: HashMap<Vec<u32>, usize> = HashMap::default();
    for group in holders.chunk_by_mut(|a, b| a.inode == b.inode).filter(|group| group.len() > 1) {
        let members: Vec<u32> = group.iter().map(|holder| holder.process).collect();
        let owner = *decided.entry(members).or_insert_with_key(|members| {
            let infos: Vec<ProcessInfo> =
                members.iter().map(|&process| processes[process as usize]).collect();
            choose(&infos, ancestry)
        });
        group[..=owner].rotate_right(1);
    }
}

#[cfg(test)]
mod tests;
