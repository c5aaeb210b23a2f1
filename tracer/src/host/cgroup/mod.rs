//! Resolves cgroup ids and processes to cgroup paths.

mod handle;
mod of_process;
mod paths;
mod recorded;
mod resolver;
mod subtree;

pub use of_process::cgroup_of_process;
pub(super) use of_process::uses_v1;
pub(super) use paths::mounted_hierarchy;
pub use paths::{Cgroup, CgroupLimits, CgroupPaths};
pub(crate) use paths::{CgroupCounters, CgroupCounts, Hierarchy};
pub use recorded::RecordedCgroups;
pub use resolver::CgroupResolver;
pub use subtree::CgroupSubtree;
