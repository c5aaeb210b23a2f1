//! The ownership rule on fake `/proc` trees, and scans of the real `/proc`.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::*;

/// A directory with the layout of procfs.
struct FakeProc(PathBuf);

impl FakeProc {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-proc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("uptime"), "1 1").unwrap();
        Self(path)
    }

    fn process(&self, pid: u32, parent: u32, start: u64, comm: &[u8], links: &[&str]) {
        let directory = self.0.join(pid.to_string());
        std::fs::create_dir_all(directory.join("fd")).unwrap();
        let mut stat = format!("{pid} (").into_bytes();
        stat.extend(comm);
        stat.extend(format!(") S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n").bytes());
        std::fs::write(directory.join("stat"), stat).unwrap();
        let status = format!("Name:\tx\nUid:\t{}\t0\t0\t0\nNSpid:\t{pid}\t7\n", 1000 + pid);
        std::fs::write(directory.join("status"), status).unwrap();
        std::fs::write(directory.join("comm"), [comm, b"\n"].concat()).unwrap();
        for (at, link) in links.iter().enumerate() {
            std::os::unix::fs::symlink(link, directory.join("fd").join(at.to_string())).unwrap();
        }
    }

    fn scan(&self) -> SocketOwners {
        scan(&self.0, ScanLimits::default()).unwrap()
    }
}

impl Drop for FakeProc {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pids(owners: &SocketOwners, inode: u64) -> Vec<u32> {
    owners.holders_of(inode).map(|process| process.pid).collect()
}

#[test]
fn a_process_has_all_its_fields() {
    let proc = FakeProc::new("full");
    let name = b"a) R\n\x1b\xff";
    proc.process(40, 1, 4_000, name, &["/dev/null", "socket:[77]", "socket:[77]", "pipe:[78]", "socket:[x]"]);
    let owners = proc.scan();
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    let process = ProcessInfo { pid: 40, uid: 1040, comm, start_time_ticks: 4_000, parent: 1 };
    assert_eq!(owners.owner_of(77), Some(&process));
    assert_eq!(owners.holders_of(77).len(), 1);
    assert_eq!(owners.owner_of(78), None);
    assert_eq!(process.process().name(), name);
    assert_eq!(owners.counts(), ScanCounts::default());
}

#[test]
fn the_master_owns_what_its_workers_inherit() {
    let proc = FakeProc::new("prefork");
    proc.process(30, 900, 3, b"worker", &["socket:[5]", "socket:[31]"]);
    proc.process(40, 900, 4, b"worker", &["socket:[5]"]);
    proc.process(900, 1, 1, b"master", &["socket:[5]"]);
    let owners = proc.scan();
    assert_eq!(pids(&owners, 5), [900, 30, 40]);
    assert_eq!(pids(&owners, 31), [30]);
}

#[test]
fn ancestry_includes_processes_without_the_socket() {
    let proc = FakeProc::new("shell");
    proc.process(10, 1, 1, b"app", &["socket:[5]"]);
    proc.process(11, 10, 2, b"sh", &[]);
    proc.process(12, 11, 3, b"helper", &["socket:[5]"]);
    assert_eq!(pids(&proc.scan(), 5), [10, 12]);
}

#[test]
fn service_managers_come_last() {
    let proc = FakeProc::new("activation");
    proc.process(1, 0, 0, b"init", &["socket:[5]", "socket:[6]", "socket:[7]"]);
    proc.process(20, 1, 1, b"systemd", &["socket:[6]", "socket:[7]"]);
    proc.process(30, 1, 2, b"dockerd", &["socket:[5]", "socket:[6]"]);
    let owners = proc.scan();
    assert_eq!(pids(&owners, 5), [30, 1]);
    assert_eq!(pids(&owners, 6), [30, 1, 20]);
    assert_eq!(pids(&owners, 7), [1, 20]);
}

#[test]
fn the_younger_of_unrelated_holders_is_the_owner() {
    let proc = FakeProc::new("handover");
    proc.process(50, 1, 10, b"old", &["socket:[5]", "socket:[6]"]);
    proc.process(40, 1, 20, b"new", &["socket:[5]"]);
    proc.process(60, 1, 10, b"twin", &["socket:[6]"]);
    let owners = proc.scan();
    assert_eq!(pids(&owners, 5), [40, 50]);
    assert_eq!(pids(&owners, 6), [50, 60]);
}

#[test]
fn a_cycle_of_parents_ends() {
    let proc = FakeProc::new("circle");
    proc.process(50, 60, 1, b"a", &["socket:[5]"]);
    proc.process(60, 50, 2, b"b", &["socket:[5]"]);
    assert_eq!(pids(&proc.scan(), 5), [60, 50]);
}

#[test]
fn invalid_processes_are_skipped() {
    let proc = FakeProc::new("broken");
    proc.process(10, 1, 1, b"ok", &["socket:[5]"]);
    proc.process(20, 1, 1, b"gone", &["socket:[6]"]);
    std::fs::remove_file(proc.0.join("20/status")).unwrap();
    std::fs::create_dir(proc.0.join("30")).unwrap();
    proc.process(40, 1, 1, b"odd", &["socket:[7]"]);
    std::fs::write(proc.0.join("40/stat"), b"\xff\0garbage").unwrap();
    let owners = proc.scan();
    assert_eq!(pids(&owners, 5), [10]);
    assert_eq!((owners.owner_of(6), owners.owner_of(7)), (None, None));
    assert_eq!(owners.counts(), ScanCounts::default());
    assert!(scan(&proc.0.join("none"), ScanLimits::default()).is_err());
}

#[test]
fn limits_hold_and_are_counted() {
    let proc = FakeProc::new("limits");
    proc.process(10, 1, 1, b"a", &["socket:[1]", "socket:[2]"]);
    proc.process(20, 1, 1, b"b", &["socket:[3]", "socket:[4]"]);
    let cases = [
        (ScanLimits { processes: 1, ..ScanLimits::default() }, 2),
        (ScanLimits { descriptors: 3, ..ScanLimits::default() }, 3),
        (ScanLimits { sockets: 1, ..ScanLimits::default() }, 1),
    ];
    for (limits, sockets) in cases {
        let owners = scan(&proc.0, limits).unwrap();
        assert_eq!(owners.counts().omitted_processes, 1 + usize::from(limits.sockets == 1), "{limits:?}");
        assert_eq!((1..=4).filter(|&inode| owners.owner_of(inode).is_some()).count(), sockets, "{limits:?}");
    }
    assert_eq!(proc.scan().counts(), ScanCounts::default());
}

fn inode(listener: &TcpListener) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap().ino()
}

#[test]
fn finds_the_sockets_of_this_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let owners = scan(Path::new("/proc"), ScanLimits::default()).unwrap();
    let owner = owners.owner_of(inode(&listener)).unwrap();
    assert_eq!(owner.pid, std::process::id());
    assert_eq!(owner.uid, rustix::process::getuid().as_raw());
    assert_eq!(owner.parent, std::os::unix::process::parent_id());
    let comm = std::fs::read("/proc/self/comm").unwrap();
    assert_eq!(owner.process().name(), comm.strip_suffix(b"\n").unwrap());
    assert_eq!(owners.owner_of(u64::MAX), None);
}

/// Kills and reaps the child, also when the test fails.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Scans until the holders are as expected. A process that another test spawns inherits all descriptors of this process
/// until `exec`.
fn assert_held_by(inode: u64, expected: &[u32]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let owners = scan(Path::new("/proc"), ScanLimits::default()).unwrap();
        let holders = pids(&owners, inode);
        if holders == expected {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{holders:?} is not {expected:?}");
    }
}

#[test]
fn the_parent_owns_a_socket_that_a_child_inherits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The child inherits its standard input, also if the original has close-on-exec set.
    let child = Command::new("sh")
        .args(["-c", "echo ready; exec sleep 60"])
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Held(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let inode = inode(&listener);
    assert_held_by(inode, &[std::process::id(), child.0.id()]);
    drop(listener);
    assert_held_by(inode, &[child.0.id()]);
}

#[test]
fn an_exited_process_is_no_error() {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    // A zombie has a directory, but no descriptors.
    let ended = WaitId::Pid(Pid::from_child(&child));
    waitid(ended, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let owners = scan(Path::new("/proc"), ScanLimits::default()).unwrap();
    child.wait().unwrap();
    assert!(owners.processes.iter().all(|process| process.pid != pid));
}
