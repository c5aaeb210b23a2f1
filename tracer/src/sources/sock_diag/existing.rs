//! Dumps the existing sockets of every network namespace, with their processes.

use std::path::Path;

use hashbrown::HashSet;
use rustix::io::Errno;
use tracer_core::{
    counted::{counted, counted_as},
    event::{ExistingSocket, ExistingTimewait, Nanos, Netns, SocketCookie, TcpState, Timestamp},
};

use crate::{
    host::{NetnsLimits, ProcessInfo, ScanLimits, SocketOwners, enumerate_netns, scan, take_and_free},
    sources::{
        Coverage,
        sock_diag::{Channel, DumpReport, SockDiagError, SocketSnapshot, StateSet},
    },
};

/// How many times a namespace is dumped when the kernel reports an interrupted dump.
const ATTEMPTS: usize = 3;

/// Most channels that are kept: each is a file descriptor, and a process has 1,024 by default.
const MAX_CHANNELS: usize = 256;

/// Most problems that are kept.
const MAX_PROBLEMS: usize = 8;

/// The existing sockets of the host.
#[derive(Debug, Default)]
pub(crate) struct Existing {
    /// The full sockets, including listeners, each once.
    pub sockets: Vec<ExistingSocket>,
    /// The full sockets that wait for `accept()`.
    pub unaccepted: HashSet<SocketCookie>,
    /// The request sockets and timewait sockets (`net/ipv4/tcp_minisocks.c`).
    pub minisocks: Vec<SocketSnapshot>,
    /// The timewait sockets among them, with the times of their ends.
    pub timewait: Vec<ExistingTimewait>,
    /// The start of the dump.
    pub started: Timestamp,
    /// How many network namespaces were dumped.
    pub namespaces: usize,
    /// Sentences about missing sockets and owners, at most eight.
    pub problems: Vec<String>,
    /// Counts of missing items. The counts of cgroups are 0.
    pub coverage: Coverage,
    /// Channels into the first 256 of the namespaces, for later dumps without privileges.
    pub channels: Vec<Channel>,
}

/// Dumps the sockets of every network namespace that can be found and entered.
///
/// Never fails: [`Existing::problems`] and [`Existing::coverage`] report missing sockets and owners.
pub(crate) fn existing() -> Existing {
    let mut found = Existing { started: crate::host::now(), ..Existing::default() };
    let mut sockets = Vec::new();
    found.add_namespace(&mut sockets, "this network namespace", Channel::here());
    let own = own_namespace();
    match enumerate_netns(Path::new("/proc"), NetnsLimits::default()) {
        Err(error) => found.problem(format!("the network namespaces cannot be listed: {error}")),
        Ok(list) => {
            found.coverage.unreadable_processes = list.unreadable_processes as u64;
            found.coverage.omitted_namespaces = list.omitted as u64;
            for namespace in list.namespaces.iter().filter(|namespace| own != Some(namespace.netns)) {
                let name = namespace
                    .name
                    .clone()
                    .unwrap_or_else(|| format!("network namespace {}", namespace.netns));
                match namespace.open() {
                    Ok(fd) => found.add_namespace(&mut sockets, &name, Channel::into_namespace(&fd)),
                    // The namespace has been removed, and its sockets with it.
                    Err(Errno::NOENT | Errno::SRCH | Errno::INVAL) => {}
                    Err(error) => found.unreadable_namespace(&name, &error),
                }
            }
        }
    }
    // After the dumps, so that every dumped socket already has its descriptor.
    let owners = scan(Path::new("/proc"), ScanLimits::default());
    match &owners {
        Err(error) => found.problem(format!("the processes cannot be searched for their sockets: {error}")),
        Ok(owners) => {
            let counts = owners.counts();
            let unreadable = &mut found.coverage.unreadable_processes;
            *unreadable = (*unreadable).max(counts.unreadable_processes as u64);
            found.coverage.omitted_processes = counts.omitted_processes as u64;
        }
    }
    for problem in limit_problems(&found.coverage, may_read_all_processes()) {
        found.problem(problem);
    }
    let owners = owners.ok();
    for socket in take_and_free(sockets) {
        if socket.is_full() {
            if waits_for_accept(&socket) {
                found.unaccepted.insert(socket.cookie);
            }
            found.sockets.push(describe(&socket, owners.as_ref(), found.started));
        } else {
            found.minisocks.push(socket);
        }
    }
    found
}

/// Returns whether no process has accepted the connection: it has no inode. A connection that its application closes loses
/// its inode too, but enters FIN_WAIT1 or LAST_ACK.
fn waits_for_accept(socket: &SocketSnapshot) -> bool {
    socket.inode.is_none()
        && matches!(socket.state, TcpState::SynReceived | TcpState::Established | TcpState::CloseWait)
}

impl Existing {
    fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }

    fn unreadable_namespace(&mut self, name: &str, error: &dyn std::fmt::Display) {
        self.coverage.unreadable_namespaces += 1;
        self.problem(format!("{name}: {error}"));
    }

    /// Adds the sockets of a namespace to `sockets`, and keeps its channel.
    fn add_namespace(
        &mut self,
        sockets: &mut Vec<SocketSnapshot>,
        name: &str,
        channel: Result<Channel, SockDiagError>,
    ) {
        let (before, time) = (sockets.len(), crate::host::now());
        match channel.and_then(|channel| Ok((dump(&channel, sockets)?, channel))) {
            Err(error) => self.unreadable_namespace(name, &error),
            Ok((report, channel)) => {
                self.namespaces += 1;
                self.timewait.extend(existing_timewait(&sockets[before..], self.started, time));
                self.coverage.undecoded_sockets += report.malformed;
                if report.interrupted {
                    let cause = "sockets may be missing because the socket dump was interrupted; try again";
                    self.unreadable_namespace(name, &cause);
                }
                if self.channels.len() < MAX_CHANNELS {
                    self.channels.push(channel);
                } else {
                    self.coverage.namespaces_without_resync += 1;
                }
            }
        }
    }
}

/// Returns a sentence for each limit that was reached. Some hosts hide a few processes even from a privileged reader,
/// which is not reported.
fn limit_problems(coverage: &Coverage, reads_all_processes: bool) -> Vec<String> {
    let Coverage { unreadable_processes, omitted_processes, omitted_namespaces, undecoded_sockets, .. } =
        *coverage;
    let mut problems = Vec::new();
    if unreadable_processes > 0 && !reads_all_processes {
        problems.push(format!(
            "the network namespaces and sockets of {} cannot be read without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; run \
             as root or grant them",
            counted(unreadable_processes, "process")
        ));
    }
    if omitted_processes > 0 {
        problems.push(format!(
            "{} not searched for sockets because the scan limit was reached",
            counted_as(omitted_processes, "process was", "processes were")
        ));
    }
    if omitted_namespaces > 0 {
        problems.push(format!(
            "the network namespaces of {} were not dumped because the scan limit was reached",
            counted_as(omitted_namespaces, "process or mount", "processes and mounts")
        ));
    }
    if undecoded_sockets > 0 {
        problems.push(format!(
            "{} could not be decoded; report this with the kernel version",
            counted(undecoded_sockets, "socket")
        ));
    }
    problems
}

/// Adds the sockets of a namespace to `sockets`. Repeats an interrupted dump, and returns the last report.
fn dump(channel: &Channel, sockets: &mut Vec<SocketSnapshot>) -> Result<DumpReport, SockDiagError> {
    let before = sockets.len();
    let mut report = DumpReport { interrupted: true, ..DumpReport::default() };
    for _ in 0..ATTEMPTS {
        sockets.truncate(before);
        report = channel.dump(StateSet::ALL, &mut |socket| sockets.push(socket))?;
        if !report.interrupted {
            break;
        }
    }
    Ok(report)
}

/// The result of a socket dump through channels: the sockets of their namespaces, without processes.
#[derive(Debug, Default)]
pub(crate) struct ResyncDump {
    /// The full sockets, each once.
    pub sockets: Vec<ExistingSocket>,
    /// The timewait sockets.
    pub timewait: Vec<ExistingTimewait>,
    /// The namespaces whose dump is complete.
    pub namespaces: Vec<Netns>,
    /// The start of the dump.
    pub started: Timestamp,
    /// The channels that can be used again.
    pub channels: Vec<Channel>,
}

/// Dumps the sockets of the namespaces behind `channels`, without privileges.
///
/// Never fails. A namespace whose dump stays interrupted is left out. A channel is closed on an error, and if its
/// namespace is unknown.
pub(crate) fn resync_dump(channels: Vec<Channel>) -> ResyncDump {
    let mut found = ResyncDump { started: crate::host::now(), ..ResyncDump::default() };
    for channel in channels {
        let mut sockets = Vec::new();
        let time = crate::host::now();
        let (Ok(report), Some(netns)) = (dump(&channel, &mut sockets), channel.netns()) else { continue };
        if !report.interrupted {
            let full = sockets.iter().filter(|socket| socket.is_full());
            found.sockets.extend(full.map(|socket| describe(socket, None, found.started)));
            found.timewait.extend(existing_timewait(&sockets, found.started, time));
            found.namespaces.push(netns);
        }
        found.channels.push(channel);
    }
    found
}

/// Returns the timewait sockets among the sockets of a namespace, which was dumped at `time`. The whole dump began at
/// `started`.
fn existing_timewait(
    sockets: &[SocketSnapshot],
    started: Timestamp,
    time: Timestamp,
) -> Vec<ExistingTimewait> {
    let timewait = |socket: &SocketSnapshot| {
        let remaining = Nanos::from(socket.timer?.expires);
        let SocketSnapshot { state, local, remote, netns, .. } = *socket;
        let timer_due = time.saturating_add(remaining);
        Some(ExistingTimewait { time: started, state, timer_due, local, remote, netns })
    };
    sockets.iter().filter(|socket| socket.timewait).filter_map(timewait).collect()
}

fn describe(socket: &SocketSnapshot, owners: Option<&SocketOwners>, time: Timestamp) -> ExistingSocket {
    let process = socket.inode.and_then(|inode| owners?.owner_of(inode)).map(ProcessInfo::process);
    ExistingSocket {
        time,
        cookie: socket.cookie,
        state: socket.state,
        state_age: socket.state_age_at_least(),
        local: socket.local,
        remote: socket.remote,
        process,
        netns: socket.netns,
        cgroup_id: socket.cgroup_id,
        info: socket.info,
        interface: socket.interface,
    }
}

fn may_read_all_processes() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_PTRACE).unwrap_or(false)
}

/// Returns the network namespace of this process.
pub(crate) fn own_namespace() -> Option<Netns> {
    use std::os::linux::fs::MetadataExt as _;
    u32::try_from(std::fs::metadata("/proc/self/ns/net").ok()?.st_ino()).ok().map(Netns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_cannot_be_dumped_is_counted() {
        let mut found = Existing::default();
        let mut sockets = Vec::new();
        for _ in 0..MAX_PROBLEMS + 2 {
            found.add_namespace(&mut sockets, "blue", Err(SockDiagError::EnterForbidden));
        }
        assert_eq!(found.coverage.unreadable_namespaces, 10);
        assert_eq!((found.namespaces, found.problems.len()), (0, MAX_PROBLEMS));
        assert!(found.problems[0].starts_with("blue: cannot enter"), "{:?}", found.problems);
    }

    #[test]
    fn namespaces_beyond_the_limit_on_channels_are_counted() {
        let channels = (0..MAX_CHANNELS).map(|_| Channel::here().unwrap()).collect();
        let mut found = Existing { channels, ..Existing::default() };
        found.add_namespace(&mut Vec::new(), "here", Channel::here());
        assert_eq!(found.channels.len(), MAX_CHANNELS);
        assert_eq!(found.coverage, Coverage { namespaces_without_resync: 1, ..Coverage::default() });
    }

    #[test]
    fn every_limit_has_a_sentence() {
        let coverage = Coverage {
            unreadable_processes: 3,
            omitted_processes: 4,
            omitted_namespaces: 5,
            undecoded_sockets: 6,
            ..Coverage::default()
        };
        let problems = limit_problems(&coverage, false);
        assert_eq!(problems.len(), 4);
        assert!(
            problems[0].contains("3 processes") && problems[0].contains("CAP_SYS_PTRACE"),
            "{problems:?}"
        );
        assert_eq!(limit_problems(&coverage, true).len(), 3);
        assert_eq!(limit_problems(&Coverage::default(), false), [""; 0]);
    }

    #[test]
    fn the_sockets_of_this_process_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = existing();
        let socket = found.sockets.iter().find(|socket| socket.local.port == port).unwrap();
        assert_eq!(socket.process.map(|process| process.pid), Some(std::process::id()));
        assert!(found.namespaces > 0 && !found.channels.is_empty());
    }
}
