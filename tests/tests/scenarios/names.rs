//! Names of pods, from the files of a kubelet.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use rstest::rstest;
use serde_json::Value;
use socket2::Socket;
use tcptrace_tests::{
    ChildProcess, Connection, Daemon, Mode, Namespace, Stuck, StuckGroup, Tracer, cgroup::TestCgroup,
    process::Gate, sockets, tracer::TracerOutput, wait,
};
use tempfile::TempDir;

const UID: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
const NAMESPACE: &str = "shop";
const POD: &str = "web-66b6c48dd5-7l6tm";

/// A node's file system with the files of a kubelet.
struct Node {
    root: TempDir,
    /// The id of the pod's container.
    id: String,
}

impl Node {
    /// Creates a node without pods.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["var/log/pods", "var/log/containers"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Self { root, id: format!("{:064x}", std::process::id()) }
    }

    fn root(&self) -> &str {
        self.root.path().to_str().unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join(format!("var/log/pods/{NAMESPACE}_{POD}_{UID}/nginx"))
    }

    /// Adds the folder of the pod, as a kubelet does before it starts the containers.
    fn add_pod(&self) {
        fs::create_dir_all(self.folder()).unwrap();
    }

    /// Adds the link of the container, as a kubelet does right after the start.
    fn add_container(&self) {
        let link = format!("var/log/containers/{POD}_{NAMESPACE}_nginx-{}.log", self.id);
        symlink(self.folder().join("0.log"), self.root.path().join(link)).unwrap();
    }

    /// Removes the pod, as a kubelet does.
    fn remove_pod(&self) {
        fs::remove_dir_all(self.root.path().join("var/log")).unwrap();
    }

    /// Creates the container's cgroup in `parent`, with the names that the kubelet and containerd give with systemd.
    fn cgroup(&self, parent: &TestCgroup) -> PathBuf {
        let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let path =
            format!("kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{}.scope", self.id);
        parent.create_child(&path).0
    }
}

/// Moves the calling process into a cgroup.
fn enter(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
}

/// Connects from a container of the pod, calls `meanwhile` while the connection is open, and closes it.
fn connect_from_pod(namespace: &Namespace, cgroup: &Path, to: &Socket, meanwhile: impl FnOnce()) {
    let (address, go) = (sockets::local(to), Gate::new());
    let client = ChildProcess::start(namespace, "contained", || {
        enter(cgroup);
        let client = sockets::connect(address);
        go.wait();
        sockets::reset_on_close(&client);
        drop(client);
    });
    let accepted = sockets::accept(to);
    meanwhile();
    go.open();
    sockets::wait_for_error(&accepted);
    drop(accepted);
    client.wait();
}

#[track_caller]
fn assert_in_pod(row: &Connection, id: &str) {
    let names = [
        &row.container_name,
        &row.k8s_namespace,
        &row.k8s_pod,
        &row.k8s_container,
        &row.k8s_workload,
        &row.k8s_workload_kind,
    ]
    .map(|name| name.as_deref().unwrap_or("-"));
    assert_eq!(names, ["nginx", NAMESPACE, POD, "nginx", "web", "deployment"], "{row:#?}");
    assert_eq!(row.container_id.as_deref(), Some(id));
}

/// The link of the container appears while its first connection is open, and the pod is gone before a later one closes.
#[rstest]
fn connections_of_a_pod_have_its_names(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let (namespace, node) = (Namespace::alone(), Node::new());
    let parent = TestCgroup::new("names");
    let cgroup = node.cgroup(&parent);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let tracer = Tracer::json("connections", &namespace, mode, &["--host-root", node.root()]);
    node.add_pod();
    connect_from_pod(&namespace, &cgroup, &listener, || {
        // The program has looked the container up in vain.
        wait::pause(Duration::from_millis(100));
        node.add_container();
    });
    tracer.wait_for_lines(2);
    connect_from_pod(&namespace, &cgroup, &listener, || {
        wait::pause(Duration::from_millis(100));
        node.remove_pod();
    });
    let rows = tracer.finish(4);
    let (clients, servers): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.role == "client");
    for row in &clients {
        assert_in_pod(row, &node.id);
    }
    assert_eq!(clients.len(), 2);
    assert!(servers.iter().all(|row| row.k8s_pod.is_none() && row.k8s_workload.is_none()), "{servers:#?}");
}

fn replay(file: &str, arguments: &[&str]) -> TracerOutput {
    let ended = Tracer::start_unready(["-i", file].iter().chain(arguments)).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    ended
}

/// The groups of `handshakes` or `stuck` with their counts.
fn groups(ended: &TracerOutput, kind: &str) -> Vec<(String, u64)> {
    let rows = ended.rows::<Value>();
    let groups = rows.iter().filter(|row| row["type"] == kind);
    groups.map(|row| (row["group"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap())).collect()
}

/// A recording has the names: a replay needs no files of the recorded host.
#[test]
fn replay_has_the_names_of_the_recorded_host() {
    let (namespace, node) = (Namespace::alone(), Node::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.arrows").to_str().unwrap().to_owned();
    let parent = TestCgroup::new("names-replay");
    let cgroup = node.cgroup(&parent);
    node.add_pod();
    node.add_container();
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let recorder =
        Tracer::start(["record", &file, "--mode", "btf", "--duration", "10m", "--host-root", node.root()]);
    connect_from_pod(&namespace, &cgroup, &listener, || {});
    recorder.interrupt();
    node.remove_pod();

    let netns = namespace.inode().to_string();
    let rows = |options: &[&str]| {
        let fixed = ["-o", "json", "--netns", &netns];
        replay(&file, &[&fixed[..], options].concat())
    };
    let connections = rows(&["connections"]).rows::<Connection>();
    let client = connections.iter().find(|row| row.role == "client").unwrap();
    assert_in_pod(client, &node.id);

    for (by, group) in [
        ("pod", format!("{NAMESPACE}/{POD}")),
        ("workload", format!("{NAMESPACE}/web")),
        ("namespace", NAMESPACE.to_owned()),
    ] {
        let mut found = groups(&rows(&["handshakes", "--by", by]), "handshake_group");
        found.sort();
        assert_eq!(found, [("no pod".to_owned(), 1), (group, 1)], "{by}");
    }

    let count = |options: &[&str]| rows(options).rows::<Connection>().len();
    assert_eq!(count(&["--pod", POD]), 1);
    assert_eq!(count(&["--pod", &format!("other,{POD}"), "--k8s-namespace", NAMESPACE]), 1);
    assert_eq!(count(&["--k8s-namespace", "default"]), 0);
    assert_eq!(count(&["--pod", "web"]), 0);
    let transitions = rows(&["transitions", "--k8s-namespace", NAMESPACE]);
    assert!((2..=4).contains(&transitions.line_count()), "{}", transitions.text());

    let wide = replay(&file, &["-o", "wide", "--netns", &netns, "--role", "client"]).text();
    assert!(wide.contains(&format!("{NAMESPACE}/{POD}")), "{wide}");
}

#[test]
fn stuck_and_the_metrics_have_the_names_of_a_pod() {
    let (namespace, node) = (Namespace::alone(), Node::new());
    let parent = TestCgroup::new("names-stuck");
    let cgroup = node.cgroup(&parent);
    node.add_pod();
    node.add_container();
    let labels = ["--label", "k8s_namespace,k8s_pod,k8s_workload", "--host-root", node.root()];
    let daemon = Daemon::start(&namespace, &labels);
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    connect_from_pod(&namespace, &cgroup, &listener, || {
        let netns = namespace.inode().to_string();
        let stuck = |options: &[&str]| {
            let fixed =
                ["stuck", "--netns", &netns, "--host-root", node.root(), "--threshold=established=1ms"];
            let ended = Tracer::start_unready(fixed.iter().chain(options)).wait_for_exit();
            assert!(ended.status.success(), "{}", ended.stderr);
            ended
        };
        let pod = ["--k8s-namespace", NAMESPACE, "--by", "workload"];
        wait::until("the connection to be stuck", || {
            let ended = stuck(&[&pod[..], &["-o", "json"]].concat());
            let (group, members) =
                ended.text().split_once('\n').map(|(first, rest)| (first.to_owned(), rest.to_owned()))?;
            let group: StuckGroup = serde_json::from_str(&group).unwrap();
            assert_eq!((group.group.as_str(), group.k8s_pod.as_deref()), ("shop/web", Some(POD)));
            let member: Stuck = serde_json::from_str(members.lines().next().unwrap()).unwrap();
            assert_eq!(member.k8s_container.as_deref(), Some("nginx"));
            Some(())
        });
        let table = stuck(&pod).text();
        assert!(table.contains(&format!(" pod {NAMESPACE}/{POD}")), "{table}");
    });
    let labels = format!("k8s_namespace=\"{NAMESPACE}\",k8s_pod=\"{POD}\",k8s_workload=\"web\"");
    let page = wait::until("the labelled series", || {
        let page = daemon.page();
        page.contains(&labels).then_some(page)
    });
    let series =
        page.lines().find(|line| line.starts_with("tcptrace_handshakes_total{") && line.contains(&labels));
    assert!(series.is_some_and(|line| line.ends_with(" 1")), "{page}");
}
