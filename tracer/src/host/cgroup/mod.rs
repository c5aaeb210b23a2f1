//! Resolves cgroup ids and processes to cgroup paths.

mod handle;
mod of_process;
mod paths;
mod recorded;
mod resolver;
mod subtree;

pub use of_process::cgroup_of_process;
pub use paths::{Cgroup, CgroupLimits, CgroupPaths};
pub(crate) use paths::{CgroupCounters, CgroupCounts};
pub use recorded::RecordedCgroups;
pub use resolver::CgroupResolver;
pub use subtree::CgroupSubtree;
