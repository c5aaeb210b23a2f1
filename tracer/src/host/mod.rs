//! How a socket gets its owner (process, cgroup, container, network namespace), and how sure we are.
//!
//! The kernel's transition event names the process only where the process itself caused the
//! transition; in every other case `current` is whoever the softirq interrupted, on loopback
//! plausibly and wrongly the peer. So an owner is put together from several sources, and every answer
//! says which one it came from ([`OwnerSource`]). From the surest to the least sure:
//!
//! | source | what it means | how it can be wrong |
//! |---|---|---|
//! | `connect` | the process at `CLOSE→SYN_SENT` | MPTCP, NFS: a kernel worker connects |
//! | `accept` | the process that `accept()` returned the socket to, where the kernel lets us see it | it may hand the socket on |
//! | `reader` | the first process that read from an accepted socket | a connection that is never read has none |
//! | `closer` | the process at `ESTABLISHED→FIN_WAIT1` or `CLOSE_WAIT→LAST_ACK` | `ss -K`, a worker doing a delayed close |
//! | `listener` | the process that called `listen()` on the socket this one was accepted from | pre-forking servers: the parent listens, a worker serves |
//! | `scan` | found in `/proc/*/fd` at the start ([`scan`]) | several processes may hold a socket; see [`SocketOwners::owner_of`] |
//! | `unknown` | none of these | |
//!
//! The cgroup is not guessed: it is the one the socket was made in, read from the socket itself, also
//! in softirq context. [`CgroupPaths`] finds its path, [`CgroupOwner`] the container in that path.
//!
//! Nothing here belongs on the path of an event. Look-ups read `/proc` and cgroupfs, so they are
//! cached, bounded, and take the time from the caller. What they read is hostile or gone: processes
//! end between two reads, and names hold any byte. Either costs an answer, never the program.

mod cgroup;
mod clock;
mod container;
mod mountinfo;
mod names;
mod netns;
mod process;
mod time_wait;

pub use cgroup::{
    Cgroup, CgroupCounts, CgroupError, CgroupLimits, CgroupPaths, CgroupResolver, CgroupSubtree,
    RecordedCgroups, cgroup_of_process, parse_process_cgroup,
};
pub use clock::{clock_offset, now};
pub use container::{CgroupOwner, Container, Runtime};
pub use names::HostNames;
pub use netns::{NetNamespaces, NetNs, NetnsError, NetnsLimits, NetnsSpec, enumerate_netns, parse_spec};
pub use process::{ProcessInfo, ScanCounts, ScanLimits, SocketOwners, scan};
pub use time_wait::time_wait_model;
