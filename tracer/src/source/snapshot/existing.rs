//! Everything that exists on the host: the sockets of every network namespace, with their processes.

use std::{collections::HashSet, path::Path};

use super::{Filter, SnapshotError, SocketSnapshot, dump, dump_namespace};
use crate::{
    event::{ExistingSocket, TcpInfo, Timestamp},
    owner::{NetnsLimits, ProcessInfo, ScanLimits, SocketOwners, enumerate_netns, scan},
};

/// How many times a namespace is listed again when the kernel says that its list was disturbed.
const ATTEMPTS: usize = 3;

/// What was found, and what could not be looked into.
#[derive(Debug, Default)]
pub struct Existing {
    /// The full sockets and listeners, each once.
    pub sockets: Vec<ExistingSocket>,
    /// Mini-sockets and half-open requests, as the kernel listed them.
    pub remains: Vec<SocketSnapshot>,
    /// When the look began.
    pub started: Timestamp,
    /// Network namespaces looked into.
    pub namespaces: usize,
    /// Why some namespaces were not, one sentence each, at most a few.
    pub problems: Vec<String>,
}

/// Lists the sockets of every network namespace that can be found and entered.
///
/// It never fails: what cannot be looked into is told in [`Existing::problems`].
pub fn existing() -> Existing {
    let mut found = Existing { started: Timestamp::now(), ..Existing::default() };
    let mut sockets = Vec::new();
    collect(&mut found, &mut sockets, "this network namespace", |handler| dump(handler, &Filter::default()));
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
                    Ok(fd) => collect(&mut found, &mut sockets, &name(), |handler| {
                        dump_namespace(&fd, handler, &Filter::default())
                    }),
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
            found.remains.push(socket);
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

fn collect(
    found: &mut Existing,
    sockets: &mut Vec<SocketSnapshot>,
    name: &str,
    mut list: impl FnMut(&mut dyn FnMut(SocketSnapshot)) -> Result<super::DumpReport, SnapshotError>,
) {
    let before = sockets.len();
    for attempt in 1..=ATTEMPTS {
        sockets.truncate(before);
        match list(&mut |socket| sockets.push(socket)) {
            Err(error) => return found.problem(format!("{name}: {error}")),
            Ok(report) if report.interrupted && attempt < ATTEMPTS => {}
            Ok(report) => {
                found.namespaces += 1;
                if report.interrupted {
                    found.problem(format!("{name}: the list of sockets was disturbed and may lack some"));
                }
                return;
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
