//! Finds the processes that hold sockets, in one pass over `/proc/*/fd`.
//!
//! The pass costs one `readlink` per open file of the host, plus a few reads per process with a socket.

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

/// Limits of a [`scan`].
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Most processes; limits the time.
    pub processes: usize,
    /// Most descriptors of all processes; limits the time.
    pub descriptors: usize,
    /// Most pairs of socket and holder, 16 bytes each; limits the memory.
    pub sockets: usize,
}

impl Default for ScanLimits {
    /// 131,072 processes, 8,388,608 descriptors, 2,097,152 sockets (32 MiB).
    fn default() -> Self {
        Self { processes: 1 << 17, descriptors: 1 << 23, sockets: 1 << 21 }
    }
}

/// The processes whose sockets a [`scan`] misses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Processes whose descriptors could not be read. Those of other users require `CAP_SYS_PTRACE` and
    /// `CAP_DAC_READ_SEARCH`.
    pub unreadable_processes: usize,
    /// Processes left out, or read only in part, because a limit was reached.
    pub omitted_processes: usize,
}

/// The sockets of a host and the processes that hold them, as found by a [`scan`].
#[derive(Debug, Default)]
pub struct SocketOwners {
    processes: Vec<ProcessInfo>,
    /// Sorted by inode. The owner of a socket comes before its other holders.
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
    /// Returns the most plausible owner of the socket with this inode, the number in `sock_diag` and in `stat` of a
    /// descriptor; `None` when no readable process holds it.
    ///
    /// Several processes hold a socket after `fork`, or when the socket was passed on. The owner is then, in this
    /// order:
    ///
    /// 1. any process except a service manager (pid 1, `systemd --user`): with socket activation the manager keeps a
    ///    descriptor, but the service uses the socket;
    /// 2. a process without an ancestor that holds the socket, which is the process that created it. So the master owns
    ///    the listener of a pre-forking server, and a descriptor that leaks into a helper does not change the owner;
    /// 3. the process that started last: of two unrelated holders, the younger one received the socket, for example in
    ///    an upgrade without downtime;
    /// 4. the process with the lowest pid.
    ///
    /// The result is wrong for a server that forks per connection if the parent keeps its copy open: the child uses the
    /// socket, and the parent is returned. An event of the connection (a read, a close) is more reliable than a scan.
    pub fn owner_of(&self, inode: u64) -> Option<&ProcessInfo> {
        self.holders_of(inode).next()
    }

    /// Returns all processes that hold the socket: the owner first, then the others by pid.
    pub fn holders_of(&self, inode: u64) -> impl ExactSizeIterator<Item = &ProcessInfo> {
        let start = self.holders.partition_point(|holder| holder.inode < inode);
        let count = self.holders[start..].partition_point(|holder| holder.inode == inode);
        self.holders[start..start + count].iter().map(|holder| &self.processes[holder.process as usize])
    }

    /// Returns the counts of missing processes.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }
}

/// Reads the descriptors of every process in `proc_root`, a mounted procfs. Processes that cannot be read are counted.
///
/// If the threads of a process do not share their descriptors (no `CLONE_FILES`), only those of its first thread are
/// found.
///
/// # Errors
///
/// When `proc_root` itself cannot be read.
pub fn scan(proc_root: &Path, limits: ScanLimits) -> io::Result<SocketOwners> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, proc_root, flags, Mode::empty())?;
    let mut scan = Scan { limits, owners: SocketOwners::default(), descriptors: 0, text: Vec::new() };
    let mut pids = process_ids(&root, limits.processes, &mut scan.owners.counts.omitted_processes)?;
    pids.sort_unstable();
    for pid in pids {
        if scan.is_full() {
            scan.owners.counts.omitted_processes += 1;
        } else {
            scan.process(root.as_fd(), pid);
        }
    }
    let Scan { mut owners, mut text, .. } = scan;
    let mut ancestry = Ancestry::new(root.as_fd(), &owners.processes, &mut text);
    sort_holders(&mut owners, &mut ancestry);
    Ok(owners)
}

/// Returns the process ids in `/proc`, at most `limit`, and adds the number of the others to `omitted`.
pub(in crate::host) fn process_ids(
    root: &OwnedFd,
    limit: usize,
    omitted: &mut usize,
) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8 << 10];
    let mut entries = RawDir::new(root, &mut buffer);
    while let Some(entry) = entries.next() {
        if let Some(pid) = number(entry?.file_name().to_bytes()) {
            if pids.len() < limit {
                pids.push(pid);
            } else {
                *omitted += 1;
            }
        }
    }
    Ok(pids)
}

struct Scan {
    limits: ScanLimits,
    owners: SocketOwners,
    /// Descriptors read so far.
    descriptors: usize,
    text: Vec<u8>,
}

impl Scan {
    fn is_full(&self) -> bool {
        self.owners.holders.len() >= self.limits.sockets || self.descriptors >= self.limits.descriptors
    }

    fn process(&mut self, root: BorrowedFd<'_>, pid: u32) {
        // All files are opened relative to this directory, which never refers to a later process with the same pid.
        let mut name = itoa::Buffer::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(root, name.format(pid), flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(error) => return self.count_failure(error),
        };
        let before = self.owners.holders.len();
        let outcome = self.sockets(&directory).and_then(|()| {
            if self.owners.holders.len() == before {
                return Ok(());
            }
            let process = self.identify(&directory, pid)?;
            self.owners.processes.push(process);
            Ok(())
        });
        let Err(error) = outcome else { return };
        self.owners.holders.truncate(before);
        // A kernel thread has no descriptors.
        if !self.is_kernel_thread(&directory) {
            self.count_failure(error);
        }
    }

    fn count_failure(&mut self, error: Errno) {
        // The process has exited when the error is NOENT or SRCH.
        if !matches!(error, Errno::NOENT | Errno::SRCH) {
            self.owners.counts.unreadable_processes += 1;
        }
    }

    /// Adds the sockets of a process, with the next index of `processes`.
    fn sockets(&mut self, directory: &OwnedFd) -> io::Result<()> {
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
                self.owners.counts.omitted_processes += 1;
                break;
            }
            self.descriptors += 1;
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

/// Returns the inode in `socket:[INODE]`, if the descriptor is a socket. Fails only if the links of all descriptors are
/// unreadable.
fn socket_inode(directory: &OwnedFd, name: &CStr) -> io::Result<Option<u64>> {
    // A longer target is truncated, but that of a socket always fits.
    let mut buffer = [0; 40];
    let length = match rustix::fs::readlinkat_raw(directory, name, &mut buffer) {
        Ok(length) => length,
        // With CAP_DAC_READ_SEARCH but without CAP_SYS_PTRACE, the directory is readable and its links are not.
        Err(error @ (Errno::ACCESS | Errno::PERM)) => return Err(error),
        // It was closed meanwhile.
        Err(_) => return Ok(None),
    };
    let digits = buffer[..length].strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
    Ok(digits.and_then(number))
}

/// Sorts the holders by inode, and moves the owner of each socket before its other holders.
fn sort_holders(owners: &mut SocketOwners, ancestry: &mut Ancestry<'_>) {
    owners.holders.sort_unstable();
    // A process may have several descriptors of a socket.
    owners.holders.dedup();
    let SocketOwners { holders, processes, .. } = owners;
    // Workers share all their listeners, so the same group of holders occurs many times.
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
