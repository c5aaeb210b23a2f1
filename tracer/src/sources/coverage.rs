//! What could not be read on the host.

use tracer_core::counted::counted;

use crate::host::CgroupCounts;

/// What could not be read on the host, by the source or by the cgroup lookups of its resolver, because of a limit, a
/// missing privilege or an error. All 0 when nothing is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Processes whose network namespace or file descriptors could not be read.
    pub unreadable_processes: u64,
    /// Processes whose file descriptors were not searched, or only in part, because a limit was reached.
    pub omitted_processes: u64,
    /// Network namespaces whose existing sockets could not be dumped, or only in part.
    pub unreadable_namespaces: u64,
    /// Processes and mounts whose network namespace was not dumped because a limit was reached.
    pub omitted_namespaces: u64,
    /// Network namespaces that a resync leaves out because a limit was reached.
    pub namespaces_without_resync: u64,
    /// Existing sockets that could not be decoded.
    pub undecoded_sockets: u64,
    /// Lookups of a cgroup id that found no path.
    pub unresolved_cgroups: u64,
    /// Cgroups, and names of containers, dropped from a full cache.
    pub evicted_cgroups: u64,
    /// Walks of the cgroup tree that stopped at a limit.
    pub truncated_cgroup_walks: u64,
    /// Files and folders with names of containers that could not be read.
    pub unreadable_names: u64,
    /// Names of containers and pods beyond a limit.
    pub omitted_names: u64,
    /// How often translations were lost, because their receive buffer was full or a dump had too many.
    pub conntrack_overruns: u64,
}

impl Coverage {
    /// The names of the counts of an agent, which reads no translations, in the order of [`counts`](Self::counts).
    pub const NAMES: [&'static str; 11] = [
        "unreadable_processes",
        "omitted_processes",
        "unreadable_namespaces",
        "omitted_namespaces",
        "namespaces_without_resync",
        "undecoded_sockets",
        "unresolved_cgroups",
        "evicted_cgroups",
        "truncated_cgroup_walks",
        "unreadable_names",
        "omitted_names",
    ];

    /// Returns the counts in the order of [`NAMES`](Self::NAMES).
    pub fn counts(&self) -> [u64; 11] {
        [
            self.unreadable_processes,
            self.omitted_processes,
            self.unreadable_namespaces,
            self.omitted_namespaces,
            self.namespaces_without_resync,
            self.undecoded_sockets,
            self.unresolved_cgroups,
            self.evicted_cgroups,
            self.truncated_cgroup_walks,
            self.unreadable_names,
            self.omitted_names,
        ]
    }

    /// Returns the line for the end of a run, which names everything that a limit or an error left out; none if nothing
    /// was.
    ///
    /// Processes that hide from every reader and cgroups that are removed before their lookup are normal, so the line
    /// does not count them.
    pub(crate) fn summary(&self) -> Option<String> {
        let parts: Vec<String> = [
            (self.omitted_processes, "process", "beyond the scan limit"),
            (self.unreadable_namespaces, "network namespace", "that could not be dumped"),
            (self.omitted_namespaces, "network namespace", "beyond the scan limit"),
            (self.namespaces_without_resync, "network namespace", "beyond the resync limit"),
            (self.undecoded_sockets, "socket", "that could not be decoded"),
            (self.evicted_cgroups, "cgroup", "dropped from a full cache"),
            (self.truncated_cgroup_walks, "walk", "of the cgroup tree that stopped at a limit"),
            (self.conntrack_overruns, "loss", "of translations beyond a limit"),
            (self.unreadable_names, "file", "with names of containers that could not be read"),
            (self.omitted_names, "name", "of containers beyond a limit"),
        ]
        .into_iter()
        .filter(|&(count, ..)| count != 0)
        .map(|(count, noun, more)| format!("{} {more}", counted(count, noun)))
        .collect();
        (!parts.is_empty()).then(|| format!("incomplete on this host: {}", parts.join(", ")))
    }

    /// Returns this coverage with the counts of cgroup lookups.
    #[must_use]
    pub(crate) fn with_cgroups(self, counts: CgroupCounts) -> Self {
        let CgroupCounts { evicted, truncated_walks, unresolved, unreadable_names, omitted_names, .. } =
            counts;
        Self {
            unresolved_cgroups: unresolved,
            evicted_cgroups: evicted,
            truncated_cgroup_walks: truncated_walks,
            unreadable_names,
            omitted_names,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_a_limit_left_out() {
        let coverage = Coverage {
            unreadable_processes: 5,
            omitted_processes: 3,
            truncated_cgroup_walks: 2,
            ..Coverage::default()
        };
        assert_eq!(
            coverage.summary().unwrap(),
            "incomplete on this host: 3 processes beyond the scan limit, 2 walks of the cgroup tree that stopped at a limit"
        );
        let overrun = Coverage { conntrack_overruns: 2, ..Coverage::default() };
        assert_eq!(
            overrun.summary().unwrap(),
            "incomplete on this host: 2 losses of translations beyond a limit"
        );
        assert_eq!(Coverage { unresolved_cgroups: 1, ..Coverage::default() }.summary(), None);
    }
}
