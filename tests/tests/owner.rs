//! Resolves owners on the real kernel: cgroups, network namespaces, and processes of other users.
//!
//! All tests require root and fail without it. Each test creates its objects under a unique name, and removes
//! them even if it fails.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tcptrace_bpf::host::{
    CgroupLimits, CgroupPaths, HostNetns, NetnsLimits, Runtime, ScanLimits, SocketOwners, cgroup_of_process,
    enumerate_netns, parse_spec, scan,
};
use tcptrace_tests::{cgroup::TestCgroup, wait};
use tracer_core::event::{CgroupId, Netns};

const PROC: &str = "/proc";
const START: Duration = Duration::ZERO;

fn unique(name: &str) -> String {
    format!("tcptrace-{name}-{}", std::process::id())
}

/// A child that is killed and reaped even if the test fails.
struct ReadyChild(Child);

impl ReadyChild {
    /// Starts a command and waits until it writes `ready`.
    fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut ready_child = Self(child);
        let output = ready_child.0.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("stdout can be read");
        assert_eq!(line, "ready\n");
        ready_child
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for ReadyChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn new_cgroup_resolves_immediately_and_is_cached() {
    let mut paths = CgroupPaths::new(CgroupLimits::default(), START).expect("cgroup2 is mounted");
    let cgroup = TestCgroup::new("handle");
    let id = "4f".repeat(32);
    let (_, inner) = cgroup.create_child(&format!("docker-{id}.scope"));
    let path = format!("{}/docker-{id}.scope", cgroup.path());

    let found = paths.resolve(CgroupId(inner), START).expect("its file handle opens");
    assert_eq!(found.path, path);
    let container = found.owner.container.as_ref().expect("the path names a container");
    assert_eq!((container.runtime, &container.id), (Runtime::Docker, &id));
    assert_eq!(paths.counts().by_handle, 1);
    assert_eq!(paths.counts().walks, 1);

    drop(cgroup);
    let later = Duration::from_secs(3600);
    assert_eq!(paths.resolve(CgroupId(inner), later).map(|found| found.path.clone()), Some(path));
    let mut fresh = CgroupPaths::new(CgroupLimits::default(), START).expect("cgroup2 is mounted");
    assert_eq!(fresh.resolve(CgroupId(inner), later), None);
}

#[test]
fn root_cgroup_has_the_path_slash() {
    let mut paths = CgroupPaths::new(CgroupLimits::default(), START).expect("cgroup2 is mounted");
    assert_eq!(paths.resolve(CgroupId(1), START).map(|found| found.path.clone()).as_deref(), Some("/"));
}

#[test]
fn new_cgroup_resolves_at_the_next_walk_without_file_handles() {
    let limits = CgroupLimits::default();
    let mut paths = CgroupPaths::new(limits, START).expect("cgroup2 is mounted");
    paths.disable_handles();
    let cgroup = TestCgroup::new("walk");
    let path = cgroup.path().to_owned();
    assert_eq!(paths.resolve(CgroupId(cgroup.id()), START), None);
    let found = paths.resolve(CgroupId(cgroup.id()), limits.retry_interval);
    assert_eq!(found.map(|found| found.path.clone()), Some(path));
    assert_eq!((paths.counts().walks, paths.counts().by_handle), (2, 0));
}

#[test]
fn process_reports_its_cgroup() {
    let cgroup = TestCgroup::new("process");
    let child = ReadyChild::start(Command::new("sh").args(["-c", "echo ready; exec sleep 60"]));
    fs::write(cgroup.directory().join("cgroup.procs"), child.pid().to_string())
        .expect("root may move processes");
    let path = cgroup_of_process(Path::new(PROC), child.pid());
    assert_eq!(path.as_deref(), Some(cgroup.path()));
    drop(child);
}

/// A network namespace created by `ip netns`.
struct TestNetns(String);

impl TestNetns {
    fn new(name: &str) -> Self {
        let netns = Self(unique(name));
        let status = Command::new("ip").args(["netns", "add", &netns.0]).status();
        assert!(status.expect("iproute2 is installed").success(), "root may add namespaces");
        netns
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn find_netns(netns: Netns) -> Option<HostNetns> {
    let found = enumerate_netns(Path::new(PROC), NetnsLimits::default()).expect("/proc is mounted");
    found.namespaces.into_iter().find(|namespace| namespace.netns == netns)
}

fn netns_of(path: impl AsRef<Path>) -> Netns {
    let inode = fs::metadata(path).expect("the namespace exists").ino();
    Netns(u32::try_from(inode).expect("namespace inodes have 32 bits"))
}

#[test]
fn named_namespace_is_found_without_a_process() {
    let netns = TestNetns::new("named");
    let inode = netns_of(netns.path());
    let found = find_netns(inode).expect("the namespace is mounted");
    assert_eq!(found.name.as_deref(), Some(netns.0.as_str()));
    assert_eq!((found.path.clone(), found.pid), (netns.path(), None));
    let spec = parse_spec(netns.path().to_str().expect("the name is ASCII"));
    assert_eq!(spec.inode().expect("the path is a namespace"), inode);

    // setns accepts the descriptor. The thread exits afterwards, so no other code runs in the namespace.
    let descriptor = found.open().expect("it still exists");
    let inside = thread::spawn(move || {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&descriptor), kind)
            .expect("root may enter a namespace");
        netns_of("/proc/thread-self/ns/net")
    });
    assert_eq!(inside.join().expect("the thread does not panic"), inode);

    drop(netns);
    assert!(found.open().is_err());
    // Another test's namespace may have the same inode by now.
    assert_ne!(find_netns(inode), Some(found));
}

#[test]
fn unnamed_namespace_is_found_by_its_process() {
    let script = "echo ready; exec sleep 60";
    let child = ReadyChild::start(Command::new("unshare").args(["--net", "sh", "-c", script]));
    let path = PathBuf::from(format!("/proc/{}/ns/net", child.pid()));
    let netns = netns_of(&path);
    assert_ne!(netns, netns_of("/proc/self/ns/net"));
    let found = find_netns(netns).expect("a process is in the namespace");
    assert_eq!(found, HostNetns { netns, path, name: None, pid: Some(child.pid()) });
    drop(child);
    assert!(found.open().is_err());
}

fn listener() -> (TcpListener, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
    let inode = fs::metadata(link).expect("the descriptor is open").ino();
    (listener, inode)
}

fn scan_all() -> SocketOwners {
    scan(Path::new(PROC), ScanLimits::default()).expect("/proc is mounted")
}

#[test]
fn process_of_another_user_is_identified() {
    const OTHER_USER: u32 = 65_533;
    let (listener, inode) = listener();
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; exec sleep 60"]).uid(OTHER_USER).stdin(OwnedFd::from(listener));
    let child = ReadyChild::start(&mut command);
    // `command` holds a copy of the descriptor.
    drop(command);
    wait::until("the child to hold the socket alone", || {
        let owners = scan_all();
        let mut holders = owners.holders_of(inode);
        let found = holders.len() == 1
            && holders.all(|process| {
                (process.pid, process.uid) == (child.pid(), OTHER_USER)
                    && process.comm.starts_with(b"sleep\0")
            });
        found.then_some(())
    });
}

#[test]
fn process_in_a_pid_namespace_has_its_host_pid() {
    let (listener, inode) = listener();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 60"])
        .stdin(OwnedFd::from(listener));
    let child = ReadyChild::start(&mut command);
    drop(command);
    wait::until("unshare and its child to hold the socket", || {
        let owners = scan_all();
        let mut pids = owners.holders_of(inode).map(|process| process.pid);
        // The child has process id 1 in its namespace.
        let found = pids.len() == 2
            && pids.next() == Some(child.pid())
            && pids.next().is_some_and(|pid| pid != child.pid() && pid != 1);
        found.then_some(())
    });
}
