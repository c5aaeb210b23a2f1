//! Each test has a root of its own, with the files that kubelets and runtimes write.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;
use crate::host::WorkloadKind;

const A: &str = "3f4e8c1d9a7b2e6f5c0d1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";
const B: &str = "b7d1f0a2c3e4958677685948372615049382716059483726150a9b8c7d6e5f40";
const UID: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
const SECOND: Duration = Duration::from_secs(1);

struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Adds a pod as a kubelet does.
    fn pod(&self, namespace: &str, pod: &str, uid: &str) {
        self.folder(&format!("var/log/pods/{namespace}_{pod}_{uid}"));
    }

    /// Adds the link of a container, which a kubelet makes after the container has started.
    fn link(&self, namespace: &str, pod: &str, uid: &str, container: &str, id: &str) {
        let links = self.folder("var/log/containers");
        let log = format!("/var/log/pods/{namespace}_{pod}_{uid}/{container}/0.log");
        symlink(log, links.join(format!("{pod}_{namespace}_{container}-{id}.log"))).unwrap();
    }

    fn names(&self) -> ContainerNames {
        ContainerNames::new(self.0.path(), Arc::default(), Duration::ZERO)
    }
}

fn cgroup(path: &str) -> Cgroup {
    Cgroup::new(path.replace("$A", A).replace("$B", B).replace("$P", UID))
}

/// Returns the names of the container with this cgroup: its own, and that of its pod.
fn named(names: &mut ContainerNames, path: &str, now: Duration) -> (Option<String>, Option<String>) {
    let cgroup = cgroup(path);
    names.fill(&cgroup, now);
    let pod = cgroup.pod().map(|pod| pod.qualified_pod().to_owned());
    (cgroup.container_name().map(str::to_owned), pod)
}

fn pair(container: &str, pod: &str) -> (Option<String>, Option<String>) {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (some(container), some(pod))
}

#[test]
fn pods_have_the_names_of_the_kubelet() {
    let root = Root::new();
    root.file("etc/hostname", "node-1\n");
    root.pod("shop", "web-66b6c48dd5-7l6tm", UID);
    root.link("shop", "web-66b6c48dd5-7l6tm", UID, "nginx", A);
    let mut names = root.names();
    let full = pair("nginx", "shop/web-66b6c48dd5-7l6tm");
    for path in [
        "/kubepods.slice/kubepods-pod1b9d6bcd_bbfd_4b2d_9b5d_ab8dfbbd4bed.slice/cri-containerd-$A.scope",
        "/kubepods/burstable/pod$P/$A",
    ] {
        assert_eq!(named(&mut names, path, SECOND), full);
    }
    // The sandbox has no log.
    assert_eq!(named(&mut names, "/kubepods/pod$P/$B", SECOND), pair("", "shop/web-66b6c48dd5-7l6tm"));
    assert_eq!(named(&mut names, "/kubepods/pod$P", SECOND), pair("", "shop/web-66b6c48dd5-7l6tm"));
    // A cgroup that does not show the pod: the link has its name.
    assert_eq!(named(&mut names, "/custom/$A", SECOND), full);
    let web = cgroup("/kubepods/pod$P/$A");
    names.fill(&web, SECOND);
    let pod = web.pod().unwrap();
    assert_eq!((pod.workload(), pod.workload_kind()), ("web", Some(WorkloadKind::Deployment)));
    assert_eq!(web.container_in_pod(), Some("nginx"));
    assert_eq!(names.counters.counts().unreadable_names, 0);
}

#[test]
fn a_name_is_found_as_soon_as_it_exists() {
    let root = Root::new();
    root.folder("var/log/pods");
    root.folder("var/log/containers");
    let mut names = root.names();
    let web = cgroup("/kubepods/pod$P/$A");
    let mut now = SECOND;
    let mut fill = |web: &Cgroup| {
        now += Duration::from_millis(20);
        names.fill(web, now);
        (web.names.container().is_some(), web.pod().is_some())
    };
    assert_eq!(fill(&web), (false, false));
    root.pod("shop", "web-0", UID);
    assert_eq!(fill(&web), (false, true));
    root.link("shop", "web-0", UID, "nginx", A);
    assert_eq!(fill(&web), (true, true));
    // The pod is gone, its cgroup is still referred to, and a new object for the same cgroup finds the names in the cache.
    fs::remove_dir_all(root.0.path().join("var/log")).unwrap();
    assert_eq!(fill(&web), (true, true));
    assert_eq!(fill(&cgroup("/kubepods/pod$P/$A")), (true, true));
}

#[test]
fn a_folder_that_did_not_exist_or_was_replaced_is_opened_later() {
    let root = Root::new();
    let mut names = root.names();
    let path = "/kubepods/pod$P";
    assert_eq!(named(&mut names, path, SECOND), pair("", ""));
    root.pod("shop", "web-0", UID);
    assert_eq!(named(&mut names, path, 2 * SECOND), pair("", ""), "not before five seconds have passed");
    assert_eq!(named(&mut names, path, 7 * SECOND), pair("", "shop/web-0"));
    fs::remove_dir_all(root.0.path().join("var/log/pods")).unwrap();
    let other = "2b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
    root.pod("shop", "web-1", other);
    let path = format!("/kubepods/pod{other}");
    for seconds in 20..23 {
        let _ = named(&mut names, &path, seconds * SECOND);
    }
    assert_eq!(named(&mut names, &path, 30 * SECOND), pair("", "shop/web-1"));
}

#[test]
fn an_unchanged_folder_is_not_read_again() {
    let root = Root::new();
    let pods = root.folder("var/log/pods");
    root.pod("shop", "web-0", UID);
    let hour_ago = std::time::SystemTime::now() - 3600 * SECOND;
    fs::File::open(&pods).unwrap().set_modified(hour_ago).unwrap();
    let mut names = root.names();
    assert!(!names.read_changed(SECOND));
    root.pod("shop", "web-1", "2b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed");
    assert!(names.read_changed(2 * SECOND));
}

#[test]
fn containers_of_docker_have_the_name_of_its_file() {
    let root = Root::new();
    let config = |name: &str| format!(r#"{{"ID":"x","Name":"{name}","State":{{"Running":true}}}}"#);
    root.file(&format!("var/lib/docker/containers/{A}/config.v2.json"), &config("/web"));
    let mut names = root.names();
    assert_eq!(named(&mut names, "/docker/$A", SECOND), pair("web", ""));
    assert_eq!(named(&mut names, "/system.slice/docker-$B.scope", SECOND), pair("", ""));
    root.file(&format!("var/lib/docker/containers/{B}/config.v2.json"), &config("/db"));
    assert_eq!(named(&mut names, "/system.slice/docker-$B.scope", 2 * SECOND), pair("db", ""));
    // The file of a container is not read twice.
    fs::remove_dir_all(root.0.path().join("var/lib/docker")).unwrap();
    assert_eq!(named(&mut names, "/docker/$B", 9 * SECOND), pair("db", ""));
}

#[test]
fn the_daemons_settings_say_where_the_files_are() {
    let root = Root::new();
    root.file("etc/docker/daemon.json", r#"{"data-root": "/data/docker", "debug": true}"#);
    root.file(&format!("data/docker/containers/{A}/config.v2.json"), r#"{"Name":"/web"}"#);
    root.file("etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\ngraphroot = \"/data/podman\"\n");
    let list = format!(r#"[{{"id":"{B}","names":["db","other"]}}]"#);
    root.file("data/podman/vfs-containers/containers.json", &list);
    let mut names = root.names();
    assert_eq!(named(&mut names, "/docker/$A", SECOND), pair("web", ""));
    assert_eq!(named(&mut names, "/machine.slice/libpod-$B.scope", SECOND), pair("db", ""));
}

#[test]
fn containers_of_podman_have_the_names_of_its_lists() {
    let root = Root::new();
    root.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n");
    let list = |id: &str, name: &str| format!(r#"[{{"id":"{id}","names":["{name}"],"layer":"x"}}]"#);
    let user = "home/ann/.local/share/containers/storage/overlay-containers/volatile-containers.json";
    root.file(user, &list(A, "web"));
    root.folder("var/lib/containers/storage/overlay-containers");
    let mut names = root.names();
    let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-$A.scope/container";
    assert_eq!(named(&mut names, rootless, SECOND), pair("web", ""));
    let rootful = "/machine.slice/libpod-$B.scope";
    assert_eq!(named(&mut names, rootful, SECOND), pair("", ""));
    let store = root.folder("var/lib/containers/storage/overlay-containers");
    fs::write(store.join("containers.json.tmp"), list(B, "db")).unwrap();
    fs::rename(store.join("containers.json.tmp"), store.join("containers.json")).unwrap();
    assert_eq!(named(&mut names, rootful, 2 * SECOND), pair("db", ""));
}

#[test]
fn containers_of_nerdctl_have_the_names_of_its_files() {
    let root = Root::new();
    root.file("var/lib/nerdctl/1935db59/names/default/web", A);
    let mut names = root.names();
    assert_eq!(named(&mut names, "/system.slice/nerdctl-$A.scope", SECOND), pair("web", ""));
    root.file("var/lib/nerdctl/1935db59/names/other/db", &format!("{B}\n"));
    assert_eq!(named(&mut names, "/system.slice/nerdctl-$B.scope", 2 * SECOND), pair("db", ""));
}

#[test]
fn symbolic_links_stay_within_the_root() {
    let root = Root::new();
    root.folder("var/log");
    root.folder(&format!("data/pods/shop_web-0_{UID}"));
    symlink("/data/pods", root.0.path().join("var/log/pods")).unwrap();
    assert_eq!(named(&mut root.names(), "/kubepods/pod$P", SECOND), pair("", "shop/web-0"));
}

#[test]
fn invalid_and_hostile_files_give_no_name() {
    let root = Root::new();
    root.file("etc/docker/daemon.json", "{");
    root.file("etc/containers/storage.conf", "[storage\n");
    root.file(&format!("var/lib/docker/containers/{A}/config.v2.json"), r#"{"Name":"/\u001b[31m"}"#);
    root.file(&format!("var/lib/docker/containers/{B}/config.v2.json"), "null");
    root.file(
        "var/lib/containers/storage/overlay-containers/containers.json",
        r#"[{"id":"x","names":null}]"#,
    );
    let pods = root.folder("var/log/pods");
    fs::create_dir(pods.join(std::ffi::OsStr::from_bytes(b"shop_\xff_x"))).unwrap();
    root.pod("Shop", "web-0", UID);
    root.file("var/lib/nerdctl/1935db59/names/default/web", "not an id");
    let mut names = root.names();
    for path in ["/docker/$A", "/docker/$B", "/kubepods/pod$P/$A", "/machine.slice/libpod-$A.scope"] {
        assert_eq!(named(&mut names, path, SECOND), pair("", ""), "{path}");
    }
}

#[test]
fn the_limits_hold_and_are_counted() {
    let mut names = Names::default();
    for number in 0..=MAX_ENTRIES {
        names.add_container(&format!("{number:064x}"), "web", None);
        names.add_pod_folder(&format!("shop_web_{number:032x}"));
    }
    assert_eq!((names.containers.len(), names.pods.len(), names.omitted), (MAX_ENTRIES, MAX_ENTRIES, 2));

    let root = Root::new();
    root.pod("shop", "web-0", UID);
    let mut full = root.names();
    full.names = names;
    assert_eq!(named(&mut full, "/kubepods/pod$P", SECOND), pair("", "shop/web-0"), "a full map is cleared");
    let counts = full.counters.counts();
    assert_eq!((counts.evicted, counts.omitted_names), (2 * MAX_ENTRIES as u64, 2));
}

#[test]
fn ids_of_machines_are_their_names() {
    let mut names = Root::new().names();
    assert_eq!(named(&mut names, "/lxc.payload.web-1", SECOND), pair("web-1", ""));
    assert_eq!(named(&mut names, "/system.slice/nginx.service", SECOND), pair("", ""));
}
