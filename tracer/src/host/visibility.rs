//! Decides what of the host this process does not see because of its namespaces, and what shows it. Pure.
//!
//! The programs see every connection of the kernel, whatever the namespaces of this process. What they do not see comes from
//! elsewhere: existing sockets from socket dumps, which need the network namespaces that `/proc` lists; their processes from
//! `/proc`; the paths of cgroups from cgroupfs.

use crate::host::{
    cgroup::Hierarchy,
    namespaces::{NamespaceFacts, OwnNamespace},
};

/// What a namespace hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Nothing. The text says why.
    Whole(String),
    /// What [`NamespaceSight::cost`] names. The text has the reason and the remedy.
    Part(String),
    /// Whether it hides anything is unknown. The text says why.
    Unknown(String),
}

/// What one of the namespaces of this process hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceSight {
    /// `pid`, `network`, `user` or `cgroup`.
    pub(crate) kind: &'static str,
    /// The name of the check in `doctor`.
    pub(crate) check: &'static str,
    /// What it hides.
    pub(crate) sight: Sight,
    /// The effect of a namespace that hides something.
    pub(crate) cost: &'static str,
}

/// What this process sees of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visibility {
    pid: NamespaceSight,
    network: NamespaceSight,
    user: NamespaceSight,
    cgroup: NamespaceSight,
    notice: Option<String>,
}

const PID_REMEDY: &str = "--pid=host (Kubernetes: hostPID: true)";
const CGROUP_NAMESPACE_REMEDY: &str = "--cgroupns=host (Kubernetes: a hostPath mount of /sys/fs/cgroup)";
const CGROUP_MOUNT_REMEDY: &str =
    "-v /sys/fs/cgroup:/sys/fs/cgroup:ro (Kubernetes: a hostPath mount of /sys/fs/cgroup)";

impl Visibility {
    /// Decides from the facts.
    pub(crate) fn of(facts: &NamespaceFacts) -> Self {
        let mut visibility = Self {
            pid: NamespaceSight {
                kind: "pid",
                check: "pid namespace",
                sight: pid(facts),
                cost: "existing connections in other network namespaces, and the processes of other pid namespaces, are \
                       missing; process ids of existing connections are those of this pid namespace",
            },
            network: NamespaceSight {
                kind: "network",
                check: "network namespace",
                sight: network(facts),
                cost: "existing connections in the host's network namespace are missing",
            },
            user: NamespaceSight {
                kind: "user",
                check: "user namespace",
                sight: user(facts.user),
                cost: "nothing can be traced",
            },
            cgroup: NamespaceSight {
                kind: "cgroup",
                check: "cgroup namespace",
                sight: cgroup(facts),
                cost: "cgroups and containers of other sockets are missing or incomplete",
            },
            notice: None,
        };
        visibility.notice = visibility.notice_of(facts);
        visibility
    }

    /// Returns what each namespace hides, in the order of `doctor`.
    pub(crate) fn namespaces(&self) -> [&NamespaceSight; 4] {
        [&self.pid, &self.network, &self.user, &self.cgroup]
    }

    /// Returns whether nothing is hidden by the pid, network and cgroup namespace, by kind, without the unknown ones.
    pub(crate) fn seen(&self) -> Vec<(&'static str, bool)> {
        [&self.pid, &self.network, &self.cgroup]
            .into_iter()
            .filter_map(|it| match it.sight {
                Sight::Whole(_) => Some((it.kind, true)),
                Sight::Part(_) => Some((it.kind, false)),
                Sight::Unknown(_) => None,
            })
            .collect()
    }

    /// Returns one line that names what is hidden and the remedy; none if nothing is known to be hidden.
    pub(crate) fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Returns whether sockets of other network namespaces and their processes are hidden.
    pub(crate) fn hides_sockets(&self) -> bool {
        self.pid.hides()
    }

    /// Returns the reason why the kernel refuses eBPF programs of this process; none if its user namespace is the host's.
    pub(crate) fn user_problem(&self) -> Option<&str> {
        match &self.user.sight {
            Sight::Part(reason) => Some(reason),
            Sight::Whole(_) | Sight::Unknown(_) => None,
        }
    }

    fn notice_of(&self, facts: &NamespaceFacts) -> Option<String> {
        let mut foreign = Vec::new();
        let (mut losses, mut flags, mut fields) = (Vec::new(), Vec::new(), Vec::new());
        if self.pid.hides() {
            for (namespace, name) in [(facts.pid, "pid"), (facts.network, "network")] {
                if namespace.is_initial == Some(false) {
                    foreign.push(name);
                }
            }
            losses.push(
                "existing connections in other network namespaces and processes in other pid namespaces",
            );
            flags.push("--pid=host");
            fields.push("hostPID: true");
        }
        if self.cgroup.hides() {
            if facts.cgroup.is_initial == Some(false) {
                foreign.push("cgroup");
                flags.push("--cgroupns=host");
            } else {
                flags.push("-v /sys/fs/cgroup:/sys/fs/cgroup:ro");
            }
            losses.push("cgroups and containers of other sockets");
            fields.push("a hostPath mount of /sys/fs/cgroup");
        }
        let [.., last] = &losses[..] else { return None };
        let place = match &foreign[..] {
            [] => "this process sees only a part of the host".to_owned(),
            [one] => format!("this process is not in the host's {one} namespace"),
            [first @ .., last] => {
                format!("this process is not in the host's {} and {last} namespaces", first.join(", "))
            }
        };
        let losses = if losses.len() > 1 { losses.join(", and ") } else { (*last).to_owned() };
        Some(format!(
            "{place}: {losses} are not seen; start the container with {} (Kubernetes: {})",
            flags.join(" "),
            fields.join(" and ")
        ))
    }
}

impl NamespaceSight {
    fn hides(&self) -> bool {
        matches!(self.sight, Sight::Part(_))
    }
}

/// Returns ` 4026532247`, or nothing if the inode is unknown.
fn number(namespace: OwnNamespace) -> String {
    namespace.inode.map(|inode| format!(" {inode}")).unwrap_or_default()
}

fn pid(facts: &NamespaceFacts) -> Sight {
    match (facts.proc_is_hosts, facts.pid.is_initial) {
        (Some(true), Some(false)) => {
            Sight::Whole("not the host's, but /proc lists the host's processes".to_owned())
        }
        (Some(true), _) => Sight::Whole("the host's".to_owned()),
        (Some(false), _) => Sight::Part(format!(
            "/proc lists only the processes of pid namespace{}, which is not the host's; start the container with {PID_REMEDY}",
            number(facts.pid)
        )),
        (None, _) => Sight::Unknown("/proc does not show whether it lists the host's processes".to_owned()),
    }
}

fn network(facts: &NamespaceFacts) -> Sight {
    match (facts.network.is_initial, facts.proc_is_hosts) {
        (Some(true), _) => Sight::Whole("the host's".to_owned()),
        (_, Some(true)) => Sight::Whole("not the host's, but the others are found through /proc".to_owned()),
        (Some(false), Some(false)) => Sight::Part(format!(
            "network namespace{} is not the host's, and /proc shows no other; start the container with {PID_REMEDY}",
            number(facts.network)
        )),
        (Some(false), None) => Sight::Unknown("not the host's".to_owned()),
        (None, _) => Sight::Unknown("/proc/sys/net does not show whether it is the host's".to_owned()),
    }
}

fn user(namespace: OwnNamespace) -> Sight {
    match namespace.is_initial {
        Some(true) => Sight::Whole("the host's".to_owned()),
        Some(false) => Sight::Part(format!(
            "user namespace{} is not the host's, and its capabilities do not permit eBPF; run a container of the host's root \
             without user namespaces (Docker: --userns=host; Podman: sudo podman; Kubernetes: hostUsers: true)",
            number(namespace)
        )),
        None => Sight::Unknown("/proc/self/ns/user cannot be read".to_owned()),
    }
}

fn cgroup(facts: &NamespaceFacts) -> Sight {
    let is_initial = facts.cgroup.is_initial;
    match facts.hierarchy {
        _ if facts.uses_cgroup_v1 && is_initial == Some(false) => Sight::Part(format!(
            "cgroup namespace{} is not the host's, and the paths of cgroup v1 are relative to it; start the container with \
             --cgroupns=host",
            number(facts.cgroup)
        )),
        Hierarchy::Whole if is_initial == Some(false) => {
            Sight::Whole("not the host's, but the whole cgroup v2 hierarchy is mounted".to_owned())
        }
        Hierarchy::Whole => Sight::Whole("the host's".to_owned()),
        // `cgroups` says that there is no v2 hierarchy.
        Hierarchy::Absent if facts.uses_cgroup_v1 => Sight::Whole("the host's, with cgroup v1".to_owned()),
        Hierarchy::Part if is_initial == Some(false) => Sight::Part(format!(
            "cgroup namespace{} is not the host's, and only its part of the hierarchy is mounted; start the container with \
             {CGROUP_NAMESPACE_REMEDY}",
            number(facts.cgroup)
        )),
        Hierarchy::Part => Sight::Part(format!(
            "only a part of the cgroup v2 hierarchy is mounted; start the container with {CGROUP_MOUNT_REMEDY}"
        )),
        Hierarchy::Absent => Sight::Part(format!(
            "no cgroup v2 hierarchy is mounted; start the container with {CGROUP_MOUNT_REMEDY}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: OwnNamespace = OwnNamespace { inode: Some(1), is_initial: Some(true) };
    const OTHER: OwnNamespace = OwnNamespace { inode: Some(4711), is_initial: Some(false) };
    const UNKNOWN: OwnNamespace = OwnNamespace { inode: None, is_initial: None };

    const ON_HOST: NamespaceFacts = NamespaceFacts {
        pid: HOSTS,
        network: HOSTS,
        user: HOSTS,
        cgroup: HOSTS,
        proc_is_hosts: Some(true),
        hierarchy: Hierarchy::Whole,
        uses_cgroup_v1: false,
    };
    /// `docker run` without options.
    const IN_CONTAINER: NamespaceFacts = NamespaceFacts {
        pid: OTHER,
        network: OTHER,
        cgroup: OTHER,
        proc_is_hosts: Some(false),
        hierarchy: Hierarchy::Part,
        ..ON_HOST
    };

    /// Returns `w` (whole), `p` (part) or `u` (unknown) for pid, network, user and cgroup.
    fn letters(facts: NamespaceFacts) -> String {
        let letter = |it: &NamespaceSight| match it.sight {
            Sight::Whole(_) => 'w',
            Sight::Part(_) => 'p',
            Sight::Unknown(_) => 'u',
        };
        Visibility::of(&facts).namespaces().map(letter).iter().collect()
    }

    #[test]
    fn every_combination_has_its_sight() {
        let rows = [
            ("on the host", ON_HOST, "wwww"),
            ("docker run", IN_CONTAINER, "ppwp"),
            ("--network=host", NamespaceFacts { network: HOSTS, ..IN_CONTAINER }, "pwwp"),
            (
                "--pid=host: /proc leads to every network namespace",
                NamespaceFacts { pid: HOSTS, proc_is_hosts: Some(true), ..IN_CONTAINER },
                "wwwp",
            ),
            (
                "--cgroupns=host",
                NamespaceFacts { cgroup: HOSTS, hierarchy: Hierarchy::Whole, ..IN_CONTAINER },
                "ppww",
            ),
            (
                "the host's cgroupfs as a volume",
                NamespaceFacts { hierarchy: Hierarchy::Whole, ..IN_CONTAINER },
                "ppww",
            ),
            ("a pid namespace with the host's procfs", NamespaceFacts { pid: OTHER, ..ON_HOST }, "wwww"),
            (
                "a procfs of a container on the host",
                NamespaceFacts { proc_is_hosts: Some(false), ..ON_HOST },
                "pwww",
            ),
            ("a user namespace", NamespaceFacts { user: OTHER, ..ON_HOST }, "wwpw"),
            ("a part of cgroupfs", NamespaceFacts { hierarchy: Hierarchy::Part, ..ON_HOST }, "wwwp"),
            ("no cgroupfs", NamespaceFacts { hierarchy: Hierarchy::Absent, ..ON_HOST }, "wwwp"),
            (
                "cgroup v1",
                NamespaceFacts { hierarchy: Hierarchy::Absent, uses_cgroup_v1: true, ..ON_HOST },
                "wwww",
            ),
            (
                "cgroup v1 and v2 in a cgroup namespace",
                NamespaceFacts { cgroup: OTHER, uses_cgroup_v1: true, ..ON_HOST },
                "wwwp",
            ),
            (
                "nothing is known",
                NamespaceFacts {
                    pid: UNKNOWN,
                    network: UNKNOWN,
                    user: UNKNOWN,
                    cgroup: UNKNOWN,
                    proc_is_hosts: None,
                    ..ON_HOST
                },
                "uuuw",
            ),
            (
                "an outer procfs, whose processes are hidden",
                NamespaceFacts { proc_is_hosts: None, ..IN_CONTAINER },
                "uuwp",
            ),
        ];
        for (name, facts, expected) in rows {
            assert_eq!(letters(facts), expected, "{name}");
        }
    }

    fn notice(facts: NamespaceFacts) -> Option<String> {
        Visibility::of(&facts).notice().map(str::to_owned)
    }

    #[test]
    fn the_notice_names_the_namespaces_the_loss_and_the_remedy() {
        let sockets =
            "existing connections in other network namespaces and processes in other pid namespaces";
        let cgroups = "cgroups and containers of other sockets";
        let rows = [
            (ON_HOST, None),
            (NamespaceFacts { network: OTHER, ..ON_HOST }, None),
            (NamespaceFacts { user: OTHER, ..ON_HOST }, None),
            (NamespaceFacts { proc_is_hosts: None, ..ON_HOST }, None),
            (
                NamespaceFacts { cgroup: HOSTS, hierarchy: Hierarchy::Whole, ..IN_CONTAINER },
                Some(format!(
                    "this process is not in the host's pid and network namespaces: {sockets} are not seen; start the \
                     container with --pid=host (Kubernetes: hostPID: true)"
                )),
            ),
            (
                NamespaceFacts { pid: OTHER, proc_is_hosts: Some(false), ..ON_HOST },
                Some(format!(
                    "this process is not in the host's pid namespace: {sockets} are not seen; start the container with \
                     --pid=host (Kubernetes: hostPID: true)"
                )),
            ),
            (
                IN_CONTAINER,
                Some(format!(
                    "this process is not in the host's pid, network and cgroup namespaces: {sockets}, and {cgroups} are \
                     not seen; start the container with --pid=host --cgroupns=host (Kubernetes: hostPID: true and a \
                     hostPath mount of /sys/fs/cgroup)"
                )),
            ),
            (
                NamespaceFacts { hierarchy: Hierarchy::Absent, ..ON_HOST },
                Some(format!(
                    "this process sees only a part of the host: {cgroups} are not seen; start the container with -v \
                     /sys/fs/cgroup:/sys/fs/cgroup:ro (Kubernetes: a hostPath mount of /sys/fs/cgroup)"
                )),
            ),
        ];
        for (facts, expected) in rows {
            assert_eq!(notice(facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn what_hides_something_says_so_with_its_remedy() {
        let visibility = Visibility::of(&NamespaceFacts { user: OTHER, ..IN_CONTAINER });
        for namespace in visibility.namespaces() {
            let Sight::Part(reason) = &namespace.sight else { panic!("{namespace:?}") };
            assert!(reason.contains("namespace 4711") && reason.contains("Kubernetes: "), "{reason}");
            assert!(!namespace.cost.is_empty());
        }
        assert!(visibility.hides_sockets() && visibility.user_problem().is_some());
        assert_eq!(visibility.seen(), [("pid", false), ("network", false), ("cgroup", false)]);
        let on_host = Visibility::of(&ON_HOST);
        assert!(!on_host.hides_sockets() && on_host.user_problem().is_none());
        let unknown = Visibility::of(&NamespaceFacts { network: UNKNOWN, proc_is_hosts: None, ..ON_HOST });
        assert_eq!(unknown.seen(), [("cgroup", true)]);
    }
}
