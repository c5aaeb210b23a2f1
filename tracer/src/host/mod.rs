//! Processes, cgroups, containers, network namespaces, clocks and scheduling of this host.
//!
//! The core decides which process owns a connection ([`tracer_core::owner`]). This module supplies what events do not
//! carry: [`scan`] finds the processes that hold existing sockets in `/proc/*/fd`, [`CgroupPaths`] resolves a cgroup id to
//! its path, [`CgroupOwner`] reads the container from that path, and [`OwnerNames`] has the names of the container and the
//! pod, from files of the kubelet and of container runtimes. A socket's cgroup id is exact: the program reads it
//! from the socket, also in softirq context.
//!
//! Lookups read `/proc` and cgroupfs, so they are cached, bounded, and take the time from the caller. Their input is
//! untrusted: processes exit between two reads, and names contain any byte. Such input leads to a missing owner, never
//! to a panic.

mod cgroup;
mod clock;
mod container;
mod container_names;
mod kubernetes;
mod memory;
mod mountinfo;
mod names;
mod namespaces;
mod netns;
mod netstat;
mod owner_names;
mod priority;
mod process;
mod time_wait;
mod visibility;

pub use cgroup::{
    Cgroup, CgroupLimits, CgroupPaths, CgroupResolver, CgroupSubtree, RecordedCgroups, cgroup_of_process,
};
pub(crate) use cgroup::{CgroupCounters, CgroupCounts};
pub(crate) use clock::{clock_offset, now};
pub(crate) use container::Container;
pub use container::{CgroupOwner, Runtime};
pub use kubernetes::{PodNames, WorkloadKind};
pub(crate) use memory::{memory_bytes, release_free_memory, take_and_free};
pub use names::HostNames;
pub(crate) use namespaces::NamespaceFacts;
pub use netns::{HostNetns, NetnsLimits, enumerate_netns, parse_spec};
pub use netstat::ListenDrops;
pub(crate) use netstat::NetstatFile;
pub use owner_names::OwnerNames;
pub(crate) use priority::{DEFAULT_NICE, Priority, PriorityError, give_up_priority};
pub(crate) use process::ProcessInfo;
pub use process::{ScanLimits, SocketOwners, scan};
pub(crate) use time_wait::time_wait_model;
pub(crate) use visibility::{Sight, Visibility};
