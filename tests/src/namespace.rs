//! Network namespaces that last as long as their guard.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{alone::Turn, sockets, wait};

/// A new network namespace with `lo` up. It has no name; the kernel removes it with its last socket and
/// descriptor, even if the test is killed.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u32,
    turn: Arc<Turn>,
}

impl Namespace {
    /// Creates a namespace for a test that runs in parallel with others.
    pub fn new() -> Self {
        Self::with_turn(Arc::new(Turn::shared()))
    }

    /// Creates a namespace for a test that runs exclusively: no other test of this process generates traffic
    /// meanwhile.
    pub fn alone() -> Self {
        Self::with_turn(Arc::new(Turn::alone()))
    }

    /// Creates a second namespace for the same test.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::with_turn(Arc::clone(&self.turn))
    }

    fn with_turn(turn: Arc<Turn>) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the scenarios trace the kernel and create network namespaces, which requires root: run `sudo -E cargo test`"
        );
        let file = on_thread("namespace", || {
            // SAFETY: only the network namespace of this thread changes. No descriptor table or memory
            // depends on it, and the thread ends here.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("root may create a network namespace");
            File::open("/proc/thread-self/ns/net").expect("a thread can open its own namespace")
        });
        let inode = file.metadata().expect("an open file has metadata").st_ino();
        let inode = u32::try_from(inode).expect("the kernel numbers namespaces with 32 bits");
        let namespace = Self { file, inode, turn };
        namespace.ip("link set lo up");
        namespace
    }

    /// The inode of the namespace's file, by which the program identifies it.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `work` in the namespace on a thread with the given name. The kernel's process name (`comm`) is
    /// the thread's name.
    pub fn run<T: Send>(&self, comm: &str, work: impl FnOnce() -> T + Send) -> T {
        on_thread(comm, || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter a network namespace");
            work()
        })
    }

    /// Starts a process in the namespace.
    pub fn child(&self, command: &mut Command) -> Child {
        self.run("spawn", || {
            command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot start: {error}"))
        })
    }

    /// Starts an idle process in the namespace. The program finds an unnamed namespace only through a process
    /// in it.
    pub fn inhabit(&self) -> Inhabitant {
        Inhabitant(self.child(Command::new("sleep").arg("300")))
    }

    /// Runs a command in the namespace to completion and panics with its stderr if it fails.
    pub fn command(&self, program: &str, arguments: &[&str]) {
        self.run(program, || command(program, arguments)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs `ip` with space-separated arguments.
    pub fn ip(&self, arguments: &str) {
        self.command("ip", &arguments.split_whitespace().collect::<Vec<_>>());
    }

    /// Sets a sysctl of the namespace, such as `net.ipv4.tcp_syn_retries`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run("sysctl", || fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Sets a sysctl of the namespace if this kernel has it.
    pub fn sysctl_if_there(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        if self.run("sysctl", || Path::new(&path).exists()) {
            self.sysctl(name, value);
        }
    }

    /// Distributes the packets that `lo` receives among the CPUs of this mask (receive packet steering). False where the
    /// kernel cannot.
    pub fn steer_packets(&self, cpus: u32) -> bool {
        self.run("steer", || {
            // SAFETY: only the mounts of this thread change, which ends after this.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
                .expect("root may make a mount namespace");
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
                .expect("root may change a mount namespace");
            // A sysfs shows the network namespace in which it was mounted.
            mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).expect("root may mount sysfs");
            fs::write("/sys/class/net/lo/queues/rx-0/rps_cpus", format!("{cpus:x}")).is_ok()
        })
    }

    /// Replaces the rules of the namespace's input chain, one rule a line. Without rules every packet passes.
    pub fn filter_input(&self, rules: &str) {
        self.filter("input", rules);
    }

    /// Replaces the rules of the namespace by those of one chain, at the hook `input` or `output`.
    pub fn filter(&self, hook: &str, rules: &str) {
        let script = format!(
            "add table inet scenario\ndelete table inet scenario\ntable inet scenario {{ chain {hook} {{ \
             type filter hook {hook} priority 0; policy accept;\n{rules}\n}}\n}}\n"
        );
        self.run("nft", || {
            let mut nft = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("nft cannot start: {error}; install nftables"));
            let mut input = nft.stdin.take().expect("stdin is piped");
            input.write_all(script.as_bytes()).expect("nft reads its stdin");
            drop(input);
            assert!(nft.wait().expect("nft can be waited for").success(), "nft rejected:\n{script}");
        });
    }

    /// Reads a counter of the namespace's network stack from a file of `/proc/net` such as `snmp`, in the
    /// group `Tcp` or `TcpExt`.
    pub fn counter(&self, file: &str, group: &str, name: &str) -> u64 {
        let path = format!("/proc/thread-self/net/{file}");
        let text =
            self.run("count", || fs::read_to_string(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        // Each group has a line of names and a line of values.
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let value = pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {group} {name} in {path}"))
    }

    /// Counts the namespace's TCP sockets in the states of a mask (`1 << state`, numbered as in the kernel).
    pub fn sockets_in(&self, states: u32) -> usize {
        self.run("count", || {
            ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
                .iter()
                .filter_map(|path| fs::read_to_string(path).ok())
                .map(|table| {
                    let states_shown =
                        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
                    states_shown
                        .filter_map(|state| u32::from_str_radix(state, 16).ok())
                        .filter(|state| states & (1 << state) != 0)
                        .count()
                })
                .sum()
        })
    }

    /// Waits until every connection of the namespace is open or closed. A busy kernel may process a
    /// connection's last segments after the processes at both ends have continued.
    pub fn settle(&self) {
        self.settle_except(0);
    }

    /// Like [`settle`](Self::settle), and also accepts the states of a mask.
    pub fn settle_except(&self, states: u32) {
        let settled = sockets::ESTABLISHED | sockets::TIME_WAIT | sockets::LISTEN | states;
        wait::until("every connection to settle", || (self.sockets_in(!settled) == 0).then_some(()));
    }
}

/// An idle process in a namespace; killed on drop.
#[derive(Debug)]
pub struct Inhabitant(Child);

impl Inhabitant {
    /// Returns the process id, by which `ip` finds the namespace.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)
            .expect("a thread can be started")
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| {
        format!("{program} cannot start: {error}; `cargo xtask test` installs what is needed")
    })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}
