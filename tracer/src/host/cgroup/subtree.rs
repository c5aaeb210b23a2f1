//! A cgroup and its descendants, the value of `--cgroup`.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use crate::host::mountinfo::own_mounts;

/// A cgroup and its descendants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupSubtree(String);

impl CgroupSubtree {
    /// Parses the path of a cgroup's directory, such as `/sys/fs/cgroup/system.slice`, or a path within the hierarchy,
    /// such as `/system.slice/nginx.service`. The cgroup may be created later.
    ///
    /// # Errors
    ///
    /// Returns a sentence for the user when the path is not absolute.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!(
                "`{text}` is not an absolute cgroup path; give one such as /system.slice/nginx.service or /sys/fs/cgroup/system.slice"
            ));
        }
        // The innermost mount above the directory is its hierarchy.
        let mounts = own_mounts().unwrap_or_default();
        let within = mounts
            .iter()
            .filter(|mount| mount.file_system == b"cgroup2" || mount.file_system == b"cgroup")
            .filter_map(|mount| Path::new(text).strip_prefix(&mount.point).ok())
            .min_by_key(|rest| rest.as_os_str().len());
        let path = match within {
            Some(rest) => format!("/{}", String::from_utf8_lossy(rest.as_os_str().as_bytes())),
            None => text.to_owned(),
        };
        Ok(Self(path.trim_end_matches('/').to_owned()))
    }

    /// Returns whether the subtree contains the cgroup with this path.
    pub fn contains(&self, path: &str) -> bool {
        path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_contains_itself_and_its_descendants() {
        let slice = CgroupSubtree::parse("/system.slice/").unwrap();
        assert!(slice.contains("/system.slice"));
        assert!(slice.contains("/system.slice/nginx.service"));
        assert!(!slice.contains("/system.slice2"));
        assert!(!slice.contains("/"));
        assert!(CgroupSubtree::parse("/").unwrap().contains("/anything"));
    }

    #[test]
    fn a_directory_becomes_a_path_in_its_hierarchy() {
        let mounts = own_mounts().unwrap();
        let mount = mounts.iter().find(|mount| mount.file_system == b"cgroup2").expect("cgroup2 is mounted");
        let text = mount.point.join("some.slice/unit.service");
        let subtree = CgroupSubtree::parse(text.to_str().unwrap()).unwrap();
        assert_eq!(subtree, CgroupSubtree("/some.slice/unit.service".to_owned()));
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(CgroupSubtree::parse("nginx.service").unwrap_err().contains("`nginx.service`"));
    }
}
