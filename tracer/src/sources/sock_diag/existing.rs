//! Everything that exists on the host: the sockets of every network namespace, with their processes.

use std::{collections::HashSet, path::Path};

use tracer_core::event::{ExistingSocket, TcpInfo, Timestamp};

use crate::{
    host::{NetnsLimits, ProcessInfo, ScanLimits, SocketOwners, enumerate_netns, scan},
    sources::sock_diag::{Channel, Filter, SockDiagError, SocketSnapshot},
};

/// How many times a namespace is listed again when the kernel says that its list was disturbed.
const ATTEMPTS: usize = 3;

/// What was found, and what could not be looked into.
#[derive(Debug, Default)]
pub struct Existing {
    /// The full sockets and listeners, each once.
    pub sockets: Vec<ExistingSocket>,
    /// Mini-sockets and half-open requests, as the kernel listed them.
    pub timewait_sockets: Vec<SocketSnapshot>,
    /// When the look began.
    pub started: Timestamp,
    /// Network namespaces looked into.
    pub namespaces: usize,
    /// Why some namespaces were not, one sentence each, at most a few.
    pub problems: Vec<String>,
    /// Ways to look into the same namespaces again, without any privilege; those of the first 256.
    pub channels: Vec<Channel>,
}

/// Most channels that are kept: each is a descriptor, of which a process has 1,024 by default.
const MAX_CHANNELS: usize = 256;

/// Lists the sockets of every network namespace that can be found and entered.
///
/// It never fails: what cannot be looked into is told in [`Existing::problems`].
pub fn existing() -> Existing {
    let mut found = Existing { started: crate::host::now(), ..Existing::default() };
    let mut sockets = Vec::new();
    collect(&mut found, &mut sockets, "this network namespace", Channel::here());
    let own: HashSet<u32> = own_namespace().into_iter().collect();
    match enumerate_netns(Path::new("/proc"), NetnsLimits::default()) {
        Err(error) => found.problem(format!("the network namespaces cannot be listed: {error}")),
        Ok(list) => {
            // Some hosts hide a few even from those who may see all.
            if list.unreadable_processes > 0 && !may_see_all_processes() {
                found.problem(format!(
                    "the network namespaces of {} processes cannot be seen; CAP_SYS_PTRACE shows them",
                    list.unreadable_processes
                ));
            }
            for namespace in list.namespaces.iter().filter(|namespace| !own.contains(&namespace.inode)) {
                let name = || {
                    namespace.name.clone().unwrap_or_else(|| format!("network namespace {}", namespace.inode))
                };
                match namespace.open() {
                    // It ended meanwhile, and its sockets with it.
                    Err(_) => {}
                    Ok(fd) => collect(&mut found, &mut sockets, &name(), Channel::into_namespace(&fd)),
                }
            }
        }
    }
    // After the lists, so that every socket listed already has its descriptor.
    let owners = scan(Path::new("/proc"), ScanLimits::default());
    if let Err(error) = &owners {
        found.problem(format!("the processes cannot be searched for their sockets: {error}"));
    }
    let owners = owners.ok();
    for socket in sockets {
        if socket.is_full() {
            found.sockets.push(describe(&socket, owners.as_ref(), found.started));
        } else {
            found.timewait_sockets.push(socket);
        }
    }
    found
}

impl Existing {
    fn problem(&mut self, text: String) {
        if self.problems.len() < 8 {
            self.problems.push(text);
        }
    }
}

/// Adds what `channel` shows to `sockets`, listing it again when the list was disturbed. False when it was
/// disturbed to the end.
fn list(channel: &Channel, sockets: &mut Vec<SocketSnapshot>) -> Result<bool, SockDiagError> {
    let before = sockets.len();
    for _ in 0..ATTEMPTS {
        sockets.truncate(before);
        if !channel.dump(&mut |socket| sockets.push(socket), &Filter::default())?.interrupted {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a look through channels found: the sockets of those namespaces, without their processes.
#[derive(Debug, Default)]
pub struct ResyncDump {
    /// The full sockets, each once.
    pub sockets: Vec<ExistingSocket>,
    /// The namespaces whose list is whole.
    pub namespaces: Vec<u32>,
    /// When the look began.
    pub started: Timestamp,
    /// The channels that can be used again.
    pub channels: Vec<Channel>,
}

/// Looks again into the namespaces behind `channels`. It needs no privilege and never fails: a namespace whose list
/// is disturbed to the end is left out, and a channel that does not answer, or into an unknown namespace, is closed.
pub fn resync_dump(channels: Vec<Channel>) -> ResyncDump {
    let mut found = ResyncDump { started: crate::host::now(), ..ResyncDump::default() };
    for channel in channels {
        let mut sockets = Vec::new();
        let whole = list(&channel, &mut sockets);
        match (whole, channel.netns()) {
            (Ok(true), Some(netns)) => {
                let full = sockets.iter().filter(|socket| socket.is_full());
                found.sockets.extend(full.map(|socket| describe(socket, None, found.started)));
                found.namespaces.push(netns);
            }
            (Ok(false), Some(_)) => {}
            (Err(_), _) | (Ok(_), None) => continue,
        }
        found.channels.push(channel);
    }
    found
}

fn collect(
    found: &mut Existing,
    sockets: &mut Vec<SocketSnapshot>,
    name: &str,
    channel: Result<Channel, SockDiagError>,
) {
    let listed = channel.and_then(|channel| Ok((list(&channel, sockets)?, channel)));
    match listed {
        Err(error) => found.problem(format!("{name}: {error}")),
        Ok((whole, channel)) => {
            found.namespaces += 1;
            if !whole {
                found.problem(format!("{name}: the list of sockets was disturbed and may lack some"));
            }
            if found.channels.len() < MAX_CHANNELS {
                found.channels.push(channel);
            }
        }
    }
}

fn describe(socket: &SocketSnapshot, owners: Option<&SocketOwners>, time: Timestamp) -> ExistingSocket {
    let process = socket.inode.and_then(|inode| owners?.owner_of(inode)).map(ProcessInfo::process);
    ExistingSocket {
        time,
        cookie: socket.cookie,
        state: socket.state,
        state_age_ns: socket.state_age_at_least_ms().map(|age| u64::from(age) * 1_000_000),
        local: socket.local,
        remote: socket.remote,
        process,
        netns: socket.netns,
        cgroup_id: socket.cgroup_id,
        // The kernel counts the peer's FIN as a byte; here it is none.
        info: socket.info.map(|info| TcpInfo {
            unread_bytes: socket.unread_bytes().unwrap_or(info.unread_bytes),
            unacked_bytes: socket.unacknowledged_bytes().unwrap_or(info.unacked_bytes),
            ..info
        }),
    }
}

fn may_see_all_processes() -> bool {
    caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_PTRACE).unwrap_or(false)
}

fn own_namespace() -> Option<u32> {
    use std::os::linux::fs::MetadataExt as _;
    u32::try_from(std::fs::metadata("/proc/self/ns/net").ok()?.st_ino()).ok()
}
