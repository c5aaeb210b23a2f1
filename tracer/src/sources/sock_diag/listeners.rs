//! Dumps the listening sockets and the half-open handshakes again and again, without privileges.

use std::path::Path;

use rustix::{fd::AsFd as _, io::Errno};
use tracer_core::{
    analysis::{AddressCounts, ListenerDump, ListenerSnapshot},
    counted::counted,
    event::{Netns, TcpState},
};

use crate::{
    host::{ListenDrops, NetnsLimits, NetstatFile, enumerate_netns},
    sources::sock_diag::{Channel, DumpReport, SockDiagError, SocketSnapshot, StateSet, dump::in_namespace},
};

/// Most namespaces that are watched. Each takes two file descriptors, and a process has 1,024 by default.
const MAX_NAMESPACES: usize = 256;
/// Most local endpoints of half-open handshakes that are counted in one namespace. Beyond them the counts are unknown.
const MAX_HALF_OPEN_ENDPOINTS: usize = 65_536;
/// How many times a dump that the kernel reports as interrupted is taken.
const ATTEMPTS: usize = 3;
/// Most problems that are kept.
const MAX_PROBLEMS: usize = 8;

/// A watched network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    pub(super) channel: Channel,
    netstat: Option<NetstatFile>,
}

/// Open channels into the network namespaces, for dumps of the listeners and of the open connections.
#[derive(Debug, Default)]
pub(crate) struct ListenerWatch {
    pub(super) namespaces: Vec<Namespace>,
    /// Sentences about missing listeners, at most eight.
    problems: Vec<String>,
}

/// The result of a dump.
#[derive(Debug, Default)]
pub(crate) struct WatchedListeners {
    /// The listeners and the half-open handshakes.
    pub(crate) dump: ListenerDump,
    /// The drop counters of each watched namespace; none where they cannot be read.
    pub(crate) drops: Vec<(Option<Netns>, Option<ListenDrops>)>,
    /// Sentences about namespaces whose dump failed. They are not watched any more.
    pub(crate) problems: Vec<String>,
}

impl ListenerWatch {
    /// Opens channels into every network namespace that can be found and entered, or only into `only`. Entering another
    /// namespace requires privileges, so call this before they are dropped. Never fails: [`Self::problems`] has the rest.
    pub(crate) fn open(only: Option<Netns>) -> Self {
        let mut watch = Self::default();
        let own = Channel::here();
        let own_netns = own.as_ref().ok().and_then(Channel::netns);
        if only.is_none() || only == own_netns {
            watch.add("this network namespace", own.map(|channel| (channel, NetstatFile::here().ok())));
        }
        match enumerate_netns(Path::new("/proc"), NetnsLimits::default()) {
            Err(error) => watch.problem(format!("the network namespaces cannot be listed: {error}")),
            Ok(list) => {
                let is_wanted =
                    |netns: Netns| own_netns != Some(netns) && only.is_none_or(|only| only == netns);
                for namespace in list.namespaces.iter().filter(|namespace| is_wanted(namespace.netns)) {
                    let name = namespace
                        .name
                        .clone()
                        .unwrap_or_else(|| format!("network namespace {}", namespace.netns));
                    match namespace.open() {
                        Ok(file) => {
                            let channel = Channel::into_namespace(&file);
                            let netstat = in_namespace(file.as_fd(), || Ok(NetstatFile::here().ok()));
                            watch.add(&name, channel.and_then(|channel| Ok((channel, netstat?))));
                        }
                        // The namespace has been removed, and its sockets with it.
                        Err(Errno::NOENT | Errno::SRCH | Errno::INVAL) => {}
                        Err(error) => watch.problem(format!("{name}: {error}")),
                    }
                }
                if list.unreadable_processes > 0 && only.is_none() {
                    watch.problem(format!(
                        "the network namespaces of {} cannot be read without CAP_SYS_PTRACE; run as root or grant it",
                        counted(list.unreadable_processes, "process")
                    ));
                }
            }
        }
        if let Some(only) = only
            && watch.namespaces.is_empty()
            && watch.problems.is_empty()
        {
            watch.problem(format!(
                "no process or mount with the network namespace {only} was found; run a process in it or mount it with \
                 `ip netns attach`"
            ));
        }
        watch
    }

    /// Returns sentences about missing listeners.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }

    fn add(&mut self, name: &str, opened: Result<(Channel, Option<NetstatFile>), SockDiagError>) {
        match opened {
            Err(error) => self.problem(format!("{name}: {error}")),
            Ok(_) if self.namespaces.len() >= MAX_NAMESPACES => self.problem(format!(
                "{name}: only {MAX_NAMESPACES} network namespaces are watched; select one with --netns"
            )),
            Ok((channel, netstat)) => {
                self.namespaces.push(Namespace { name: name.to_owned(), channel, netstat });
            }
        }
    }

    /// Dumps the listeners of every watched namespace, and the half-open handshakes of those that have a listener. Stops
    /// watching a namespace whose dump fails.
    pub(crate) fn dump(&mut self) -> WatchedListeners {
        let mut found = WatchedListeners::default();
        for namespace in std::mem::take(&mut self.namespaces) {
            match found.add(&namespace) {
                Ok(()) => self.namespaces.push(namespace),
                // The channel may still hold the rest of the response.
                Err(error) => found.problems.push(format!("{}: {error}", namespace.name)),
            }
        }
        found
    }
}

impl WatchedListeners {
    fn add(&mut self, namespace: &Namespace) -> Result<(), SockDiagError> {
        let netns = namespace.channel.netns();
        self.drops.push((netns, namespace.netstat.as_ref().and_then(|netstat| netstat.read().ok())));
        let mut listeners = Vec::new();
        let report = repeated(&mut listeners, |listeners| {
            let mut each = |socket: SocketSnapshot| listeners.push(snapshot(&socket));
            namespace.channel.dump(StateSet::NONE.with(TcpState::Listen), &mut each)
        })?;
        if report == DumpReport::default() {
            self.dump.complete.insert(netns);
        }
        if listeners.is_empty() {
            return Ok(());
        }
        let mut half_open = AddressCounts::default();
        let mut is_full = false;
        let report = repeated(&mut half_open, |half_open: &mut AddressCounts| {
            let mut each = |socket: SocketSnapshot| {
                let address = (socket.netns, socket.local);
                if !socket.request {
                } else if half_open.len() < MAX_HALF_OPEN_ENDPOINTS || half_open.contains_key(&address) {
                    *half_open.entry(address).or_default() += 1;
                } else {
                    is_full = true;
                }
            };
            namespace.channel.dump(StateSet::NONE.with(TcpState::SynReceived), &mut each)
        })?;
        if report == DumpReport::default() && !is_full {
            self.dump.half_open_complete.insert(netns);
        }
        self.dump.listeners.extend(listeners);
        self.dump.half_open.extend(half_open);
        Ok(())
    }
}

fn snapshot(socket: &SocketSnapshot) -> ListenerSnapshot {
    let SocketSnapshot { cookie, netns, local, accept_queue, drops, cgroup_id, .. } = *socket;
    ListenerSnapshot { cookie, netns, local, accept_queue, drops, cgroup_id }
}

/// Fills `found` with a dump. Repeats an interrupted dump, and returns the last report.
fn repeated<T: Default>(
    found: &mut T,
    mut dump: impl FnMut(&mut T) -> Result<DumpReport, SockDiagError>,
) -> Result<DumpReport, SockDiagError> {
    let mut report = DumpReport::default();
    for _ in 0..ATTEMPTS {
        *found = T::default();
        report = dump(found)?;
        if !report.interrupted {
            break;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = Channel::here().unwrap().netns();
        let mut watch = ListenerWatch::open(own);
        for waiting in [0, 1] {
            let _client = (waiting > 0).then(|| {
                let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                // The server's socket is in the queue once its first data is.
                std::io::Write::write_all(&mut &client, b"x").unwrap();
                client
            });
            let find = |found: &WatchedListeners| {
                found.dump.listeners.iter().find(|it| it.local.port == port).copied().unwrap()
            };
            let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
            let (mut found, mut queue);
            loop {
                found = watch.dump();
                queue = find(&found).accept_queue.unwrap();
                if queue.length == waiting {
                    break;
                }
                assert!(std::time::Instant::now() < end, "{queue:?}");
            }
            assert_eq!((find(&found).drops, find(&found).netns), (Some(0), own));
            assert!(queue.limit > 0);
            let [(netns, drops)] = &found.drops[..] else { panic!("{:?}", found.drops) };
            assert_eq!(*netns, own);
            assert!(drops.unwrap().listen_overflows.is_some());
        }
        assert_eq!(watch.problems(), [""; 0]);
    }

    #[test]
    fn a_namespace_that_does_not_exist_has_no_listeners() {
        let mut watch = ListenerWatch::open(Some(Netns(1)));
        assert!(watch.namespaces.is_empty());
        assert!(watch.problems()[0].contains("the network namespace 1 was found"), "{:?}", watch.problems());
        assert!(watch.dump().dump.listeners.is_empty());
    }

    #[test]
    fn namespaces_beyond_the_limit_are_a_problem() {
        let mut watch = ListenerWatch::default();
        for _ in 0..MAX_NAMESPACES {
            watch.add("here", Channel::here().map(|channel| (channel, None)));
        }
        watch.add("blue", Channel::here().map(|channel| (channel, None)));
        watch.add("green", Err(SockDiagError::EnterForbidden));
        assert_eq!((watch.namespaces.len(), watch.problems().len()), (MAX_NAMESPACES, 2));
        assert!(watch.problems()[0].contains("--netns") && watch.problems()[1].starts_with("green: cannot"));
    }
}
