//! Owners on the real kernel: cgroups, network namespaces, and processes of other users.
//!
//! Everything here needs root and fails without. Each test makes what it looks for under a name of its
//! own, and takes it away again, also when it fails.

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
    time::{Duration, Instant},
};

use tcptrace_bpf::host::{
    CgroupLimits, CgroupPaths, NetNs, NetnsLimits, Runtime, ScanLimits, SocketOwners, cgroup_of_process,
    enumerate_netns, parse_spec, scan,
};

const PROC: &str = "/proc";
const START: Duration = Duration::ZERO;

fn unique(name: &str) -> String {
    format!("tcptrace-{name}-{}", std::process::id())
}

/// Asks until the answer is yes; the limit is generous, for slow machines.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A child that is ended and reaped also when the test fails.
struct Held(Child);

impl Held {
    /// Starts a command that writes a line when it is ready, and waits for that.
    fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut held = Self(child);
        let output = held.0.stdout.take().expect("its output is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("its output can be read");
        assert_eq!(line, "ready\n");
        held
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup in the v2 hierarchy, with whatever was made below it.
struct TestCgroup {
    mount: PathBuf,
    name: String,
}

impl TestCgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup2 hierarchy is mounted");
        let cgroup = Self { mount, name: unique(name) };
        fs::create_dir(cgroup.directory()).expect("root may make cgroups");
        cgroup
    }

    fn directory(&self) -> PathBuf {
        self.mount.join(&self.name)
    }

    /// Makes a cgroup below and gives its id.
    fn make(&self, below: &str) -> u64 {
        let directory = self.directory().join(below);
        fs::create_dir_all(&directory).expect("root may make cgroups");
        fs::metadata(directory).expect("it was just made").ino()
    }

    fn id(&self) -> u64 {
        fs::metadata(self.directory()).expect("it was made").ino()
    }
}

/// A removed process takes a moment to leave its cgroup, so removing may have to be tried again.
fn remove_tree(directory: &Path) {
    if let Ok(entries) = fs::read_dir(directory) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    for _ in 0..200 {
        if fs::remove_dir(directory).is_ok() || !directory.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        remove_tree(&self.directory());
    }
}

#[test]
fn a_new_cgroup_resolves_at_once_and_is_remembered() {
    let mut paths = CgroupPaths::new(CgroupLimits::default(), START).expect("cgroup2 is mounted");
    let cgroup = TestCgroup::new("handle");
    let id = "4f".repeat(32);
    let inner = cgroup.make(&format!("docker-{id}.scope"));
    let path = format!("/{}/docker-{id}.scope", cgroup.name);

    let found = paths.resolve(inner, START).expect("its handle opens");
    assert_eq!(found.path, path);
    let container = found.owner.container.as_ref().expect("the path names a container");
    assert_eq!((container.runtime, &container.id), (Runtime::Docker, &id));
    assert_eq!(paths.counts().by_handle, 1);
    assert_eq!(paths.counts().walks, 1);

    drop(cgroup);
    let later = Duration::from_secs(3600);
    assert_eq!(paths.resolve(inner, later).map(|found| found.path.clone()), Some(path));
    let mut fresh = CgroupPaths::new(CgroupLimits::default(), START).expect("cgroup2 is mounted");
    assert_eq!(fresh.resolve(inner, later), None);
}

#[test]
fn the_root_cgroup_is_a_slash() {
    let mut paths = CgroupPaths::new(CgroupLimits::default(), START).expect("cgroup2 is mounted");
    assert_eq!(paths.resolve(1, START).map(|found| found.path.clone()).as_deref(), Some("/"));
}

#[test]
fn without_handles_a_new_cgroup_waits_for_the_next_walk() {
    let limits = CgroupLimits::default();
    let mut paths = CgroupPaths::new(limits, START).expect("cgroup2 is mounted");
    paths.disable_handles();
    let cgroup = TestCgroup::new("walk");
    let path = format!("/{}", cgroup.name);
    assert_eq!(paths.resolve(cgroup.id(), START), None);
    let found = paths.resolve(cgroup.id(), limits.retry_interval);
    assert_eq!(found.map(|found| found.path.clone()), Some(path));
    assert_eq!((paths.counts().walks, paths.counts().by_handle), (2, 0));
}

#[test]
fn a_process_shows_the_cgroup_it_was_put_in() {
    let cgroup = TestCgroup::new("process");
    let child = Held::start(Command::new("sh").args(["-c", "echo ready; exec sleep 60"]));
    fs::write(cgroup.directory().join("cgroup.procs"), child.pid().to_string())
        .expect("root may move processes");
    let path = cgroup_of_process(Path::new(PROC), child.pid());
    assert_eq!(path, Some(format!("/{}", cgroup.name)));
    drop(child);
}

/// A network namespace made by `ip netns`.
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

fn find_netns(inode: u32) -> Option<NetNs> {
    let found = enumerate_netns(Path::new(PROC), NetnsLimits::default()).expect("/proc is mounted");
    found.namespaces.into_iter().find(|namespace| namespace.inode == inode)
}

fn netns_of(path: impl AsRef<Path>) -> u32 {
    let inode = fs::metadata(path).expect("the namespace is there").ino();
    u32::try_from(inode).expect("namespace inodes have 32 bits")
}

#[test]
fn a_named_namespace_is_found_without_a_process() {
    let netns = TestNetns::new("named");
    let inode = netns_of(netns.path());
    let found = find_netns(inode).expect("it is mounted");
    assert_eq!(found.name.as_deref(), Some(netns.0.as_str()));
    assert_eq!((found.path.clone(), found.pid), (netns.path(), None));
    let spec = parse_spec(netns.path().to_str().expect("the name is ASCII"));
    assert_eq!(spec.inode().expect("it is a namespace"), inode);

    // The descriptor is what setns takes; on a thread of its own, which ends with it.
    let descriptor = found.open().expect("it still exists");
    let inside = thread::spawn(move || {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&descriptor), kind).expect("root may enter");
        netns_of("/proc/thread-self/ns/net")
    });
    assert_eq!(inside.join().expect("the thread ends well"), inode);

    drop(netns);
    assert!(found.open().is_err());
    // Its number may belong to another test's namespace by now.
    assert_ne!(find_netns(inode), Some(found));
}

#[test]
fn a_nameless_namespace_is_found_by_its_process() {
    let script = "echo ready; exec sleep 60";
    let child = Held::start(Command::new("unshare").args(["--net", "sh", "-c", script]));
    let path = PathBuf::from(format!("/proc/{}/ns/net", child.pid()));
    let inode = netns_of(&path);
    assert_ne!(inode, netns_of("/proc/self/ns/net"));
    let found = find_netns(inode).expect("a process is inside");
    assert_eq!(found, NetNs { inode, path, name: None, pid: Some(child.pid()) });
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
fn a_process_of_another_user_is_named() {
    const OTHER_USER: u32 = 65_533;
    let (listener, inode) = listener();
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; exec sleep 60"]).uid(OTHER_USER).stdin(OwnedFd::from(listener));
    let child = Held::start(&mut command);
    // The command keeps its copy of the descriptor.
    drop(command);
    wait_until("the child to hold the socket alone", || {
        let owners = scan_all();
        let mut holders = owners.holders_of(inode);
        holders.len() == 1
            && holders.all(|process| {
                (process.pid, process.uid) == (child.pid(), OTHER_USER)
                    && process.comm.starts_with(b"sleep\0")
            })
    });
}

#[test]
fn a_process_in_a_pid_namespace_has_two_pids() {
    let (listener, inode) = listener();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 60"])
        .stdin(OwnedFd::from(listener));
    let child = Held::start(&mut command);
    drop(command);
    wait_until("unshare and its child to hold the socket", || {
        let owners = scan_all();
        let mut holders = owners.holders_of(inode).map(|process| (process.pid, process.namespaced_pid));
        holders.len() == 2
            && holders.next() == Some((child.pid(), None))
            && holders.next().is_some_and(|(pid, inside)| pid != child.pid() && inside == Some(1))
    });
}
