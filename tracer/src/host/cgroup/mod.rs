//! Cgroups: from an id or a process to a path.

mod handle;
mod of_process;
mod paths;
mod recorded;
mod resolver;
mod subtree;

pub use of_process::{cgroup_of_process, parse_process_cgroup};
pub use paths::{Cgroup, CgroupCounts, CgroupError, CgroupLimits, CgroupPaths};
pub use recorded::RecordedCgroups;
pub use resolver::CgroupResolver;
pub use subtree::CgroupSubtree;
