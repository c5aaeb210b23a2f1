//! Determines the owner of a socket (process, cgroup, container, network namespace) and how certain it is.
//!
//! In a transition event, `current` is the owner only if the process itself caused the transition. Otherwise it is the
//! task that the softirq interrupted; on loopback this is often the peer. So the owner comes from several sources, and
//! each owner carries its source (`tracer_core::owner::OwnerSource`), from most to least certain:
//!
//! | source | meaning | possible error |
//! |---|---|---|
//! | `connect` | the process at `CLOSE→SYN_SENT` | MPTCP, NFS: a kernel worker connects |
//! | `accept` | the process to which `accept()` returned the socket, where the kernel reports it | it may pass the socket on |
//! | `reader` | the first process that read from an accepted socket | missing if the connection is never read |
//! | `closer` | the process at `ESTABLISHED→FIN_WAIT1` or `CLOSE_WAIT→LAST_ACK` | `ss -K`, a worker that runs a delayed close |
//! | `listener` | the process that called `listen()` on the listening socket | pre-forking servers: the parent listens, a worker serves |
//! | `scan` | found in `/proc/*/fd` at the start ([`scan`]) | several processes may hold a socket; see [`SocketOwners::owner_of`] |
//! | `unknown` | none of these | |
//!
//! The cgroup is exact: it is the socket's own cgroup, read from the socket, also in softirq context. [`CgroupPaths`]
//! resolves its path, and [`CgroupOwner`] the container in that path.
//!
//! Lookups read `/proc` and cgroupfs, so they are cached, bounded, and take the time from the caller. Their input is
//! untrusted: processes exit between two reads, and names contain any byte. Such input leads to a missing owner, never
//! to a panic.

mod cgroup;
mod clock;
mod container;
mod memory;
mod mountinfo;
mod names;
mod netns;
mod process;
mod time_wait;

pub use cgroup::{
    Cgroup, CgroupLimits, CgroupPaths, CgroupResolver, CgroupSubtree, RecordedCgroups, cgroup_of_process,
};
pub(crate) use cgroup::{CgroupCounters, CgroupCounts};
pub(crate) use clock::{clock_offset, now};
pub(crate) use container::Container;
pub use container::{CgroupOwner, Runtime};
pub(crate) use memory::release_free_memory;
pub use names::HostNames;
pub use netns::{HostNetns, NetnsLimits, enumerate_netns, parse_spec};
pub(crate) use process::ProcessInfo;
pub use process::{ScanLimits, SocketOwners, scan};
pub(crate) use time_wait::time_wait_model;
