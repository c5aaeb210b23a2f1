//! A network namespace that lives as long as its guard.

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

/// A network namespace of its own, with `lo` up. It has no name; the kernel removes it with the last
/// socket and descriptor, however the test ends.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u32,
    turn: Arc<Turn>,
}

impl Namespace {
    /// A namespace for a test that shares the host with others.
    pub fn new() -> Self {
        Self::with_turn(Arc::new(Turn::shared()))
    }

    /// A namespace for a test during which no other test of this program may make traffic.
    pub fn alone() -> Self {
        Self::with_turn(Arc::new(Turn::alone()))
    }

    /// A second namespace for the same test.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::with_turn(Arc::clone(&self.turn))
    }

    fn with_turn(turn: Arc<Turn>) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "the scenarios trace the kernel and make network namespaces, which takes root: run `sudo -E cargo test`"
        );
        let file = on_thread("namespace", || {
            // SAFETY: only the network namespace of this thread changes, which no descriptor table or
            // memory is shared through; the thread ends here.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("root may make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("a thread can open its own namespace")
        });
        let inode = file.metadata().expect("an open file has metadata").st_ino();
        let inode = u32::try_from(inode).expect("the kernel numbers namespaces with 32 bits");
        let namespace = Self { file, inode, turn };
        namespace.ip("link set lo up");
        namespace
    }

    /// The inode of the namespace's file, the identity that the program shows.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `work` in the namespace, on a thread of this name: the kernel's name of a process (`comm`)
    /// is its thread's.
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

    /// Starts a process in the namespace that does nothing: one without any has no name by which a
    /// program could find it.
    pub fn inhabit(&self) -> Inhabitant {
        Inhabitant(self.child(Command::new("sleep").arg("300")))
    }

    /// Runs a program in the namespace to its end and panics with its complaint if it fails.
    pub fn command(&self, program: &str, arguments: &[&str]) {
        self.run(program, || command(program, arguments)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs `ip` with arguments separated by blanks.
    pub fn ip(&self, arguments: &str) {
        self.command("ip", &arguments.split_whitespace().collect::<Vec<_>>());
    }

    /// Sets a sysctl of the namespace, such as `net.ipv4.tcp_syn_retries`.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run("sysctl", || fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Sets a sysctl of the namespace that older kernels do not have.
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

    /// Replaces the rules of the namespace's packet filter: `rules` are those of an input chain, one a
    /// line; none let everything pass.
    pub fn filter_input(&self, rules: &str) {
        let script = format!(
            "add table inet scenario\ndelete table inet scenario\ntable inet scenario {{ chain input {{ \
             type filter hook input priority 0; policy accept;\n{rules}\n}}\n}}\n"
        );
        self.run("nft", || {
            let mut nft = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("nft cannot start: {error}; install nftables"));
            let mut input = nft.stdin.take().expect("its input is piped");
            input.write_all(script.as_bytes()).expect("nft reads its input");
            drop(input);
            assert!(nft.wait().expect("nft ends").success(), "nft refuses:\n{script}");
        });
    }

    /// A counter of the namespace's network stack by its name in a file of `/proc/net` such as `snmp`, of the group
    /// `Tcp` or `TcpExt`.
    pub fn counter(&self, file: &str, group: &str, name: &str) -> u64 {
        let path = format!("/proc/thread-self/net/{file}");
        let text =
            self.run("count", || fs::read_to_string(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        // A line of names, then one of numbers.
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let value = pairs.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {group} {name} in {path}"))
    }

    /// How many TCP sockets of the namespace are in the states of this mask (`1 << state` as the kernel
    /// numbers them).
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

    /// Waits until every connection of the namespace is open or has ended: a busy kernel may come to the last segments
    /// of one later than the processes at its ends go on.
    pub fn settle(&self) {
        let staying = sockets::ESTABLISHED | sockets::TIME_WAIT | sockets::LISTEN;
        wait::until("the ends", || (self.sockets_in(!staying) == 0).then_some(()));
    }
}

/// A process in a namespace; killed when dropped.
#[derive(Debug)]
pub struct Inhabitant(Child);

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // It may have ended already.
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
