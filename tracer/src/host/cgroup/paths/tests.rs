//! The tree is an ordinary directory: a walk reads only names and inode numbers.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-cgroup-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn make(&self, below: &str) -> CgroupId {
        let path = self.0.join(below);
        std::fs::create_dir_all(&path).unwrap();
        CgroupId(path.metadata().unwrap().ino())
    }

    fn paths(&self, cgroups: usize) -> CgroupPaths {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let hierarchy = rustix::fs::open(&self.0, flags, Mode::empty()).unwrap();
        let limits = CgroupLimits { cgroups, retry_interval: SECOND };
        CgroupPaths::walked(hierarchy, self.0.clone(), String::new(), limits, false, Duration::ZERO)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn path(paths: &mut CgroupPaths, id: CgroupId, now: Duration) -> Option<String> {
    paths.resolve(id, now).map(|cgroup| cgroup.path.clone())
}

#[test]
fn the_first_walk_finds_the_tree() {
    let tree = Tree::new("walk");
    let unit = tree.make("system.slice/nginx.service");
    let root = CgroupId(tree.0.metadata().unwrap().ino());
    let mut paths = tree.paths(64);
    assert_eq!(path(&mut paths, unit, Duration::ZERO).as_deref(), Some("/system.slice/nginx.service"));
    assert_eq!(path(&mut paths, root, Duration::ZERO).as_deref(), Some("/"));
    let owner = paths.resolve(unit, Duration::ZERO).unwrap().owner.clone();
    assert_eq!(owner.unit.as_deref(), Some("nginx.service"));
    assert_eq!(paths.counts(), CgroupCounts { walks: 1, ..CgroupCounts::default() });
    assert_eq!(paths.by_id.len(), 3);
}

#[test]
fn misses_walk_at_most_once_per_interval() {
    let tree = Tree::new("again");
    let mut paths = tree.paths(64);
    let new = tree.make("new");
    assert_eq!(path(&mut paths, new, SECOND / 2), None);
    assert_eq!(paths.counts().walks, 1);
    assert_eq!(path(&mut paths, new, SECOND).as_deref(), Some("/new"));
    assert_eq!(paths.resolve(CgroupId(u64::MAX), SECOND), None);
    assert_eq!(paths.counts().walks, 2);
    assert_eq!(paths.counts().unresolved, 2);
}

#[test]
fn removed_cgroups_stay_cached() {
    let tree = Tree::new("removed");
    let gone = tree.make("gone");
    let mut paths = tree.paths(64);
    std::fs::remove_dir(tree.0.join("gone")).unwrap();
    // A miss starts a new walk, which keeps the entry.
    assert_eq!(paths.resolve(CgroupId(u64::MAX), SECOND), None);
    assert_eq!(path(&mut paths, gone, SECOND).as_deref(), Some("/gone"));
}

#[test]
fn both_limits_hold_and_are_counted() {
    let tree = Tree::new("limit");
    for at in 0..20 {
        tree.make(&format!("c{at}"));
    }
    let mut paths = tree.paths(16);
    assert_eq!(paths.by_id.len(), 8);
    assert_eq!(paths.counts().truncated_walks, 1);
    for at in 1..=20 {
        paths.insert(CgroupId(u64::MAX - at), Some("/x".to_owned()), Duration::ZERO);
        assert!(paths.by_id.len() <= 16);
    }
    assert_eq!(paths.counts().evicted, 28 - u64::try_from(paths.by_id.len()).unwrap());
    assert_eq!(paths.counters().counts(), paths.counts());
    assert_eq!(path(&mut paths, CgroupId(u64::MAX - 20), Duration::ZERO).as_deref(), Some("/x"));
}

#[test]
fn paths_below_a_partial_mount_start_at_the_root() {
    let mount = |root: &str| Mount {
        root: root.as_bytes().to_vec(),
        point: PathBuf::from("/mnt"),
        file_system: b"cgroup2".to_vec(),
    };
    assert_eq!(prefix(&mount("/")), "");
    assert_eq!(prefix(&mount("/docker/x")), "/docker/x");
    assert_eq!(prefix(&mount("/../..")), "");
    let tree = Tree::new("part");
    let inner = tree.make("inner");
    let mut paths = tree.paths(8);
    paths.prefix = "/docker/x".to_owned();
    paths.by_id.clear();
    assert_eq!(path(&mut paths, inner, SECOND).as_deref(), Some("/docker/x/inner"));
    let root = CgroupId(tree.0.metadata().unwrap().ino());
    assert_eq!(path(&mut paths, root, SECOND).as_deref(), Some("/docker/x"));
}
