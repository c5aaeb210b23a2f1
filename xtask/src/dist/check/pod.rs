//! Runs the pod of the DaemonSet with podman.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::container;
use crate::process;

/// Limit of every wait; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// The address of the metrics in the configuration of the base.
const ADDRESS: &str = "0.0.0.0:10793";

/// The host's folders of the pod that only a node of Kubernetes has.
const NODE_FOLDERS: [&str; 2] = ["/var/log/pods", "/var/log/containers"];

/// Starts the pod of deploy/kubernetes/base from an image in `storage`, lets it trace a connection of this process, and
/// removes it.
pub(super) fn check(root: &Path, image: &str, storage: &Path) -> Result<()> {
    let base = root.join("deploy/kubernetes/base");
    let read = |name: &str| {
        let path = base.join(name);
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
    };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let configuration = read("tcptrace-bpf.toml")?;
    ensure!(configuration.contains(ADDRESS), "the configuration of the base does not listen on {ADDRESS}");
    let configuration = configuration.replace(ADDRESS, &format!("127.0.0.1:{port}"));
    let mut pod = pod(&read("daemon-set.yaml")?, image)?;
    for folder in NODE_FOLDERS {
        let own = storage.join(folder.trim_start_matches('/'));
        fs::create_dir_all(&own).with_context(|| format!("could not create {}", own.display()))?;
        pod = pod.replace(&format!("  path: {folder}\n"), &format!("  path: {}\n", own.display()));
    }
    let manifest = storage.join("pod.yaml");
    fs::write(&manifest, format!("{}---\n{pod}", config_map(&configuration)))
        .with_context(|| format!("could not write {}", manifest.display()))?;
    // A caller without CAP_SYS_RESOURCE cannot raise limits to podman's defaults.
    let settings = storage.join("containers.conf");
    fs::write(&settings, "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n")
        .with_context(|| format!("could not write {}", settings.display()))?;
    let podman = |action: &str| {
        let mut podman = container::podman(storage);
        podman.env("CONTAINERS_CONF", &settings).args(["kube", action]).arg(&manifest);
        podman
    };
    let result = process::run(&mut podman("play")).and_then(|()| traces(port));
    if result.is_err() {
        let mut logs = container::podman(storage);
        let _ = process::run(logs.args(["logs", &format!("{NAME}-tcptrace-bpf")]));
    }
    let removed = process::run(&mut podman("down"));
    result.and(removed)
}

/// The name of the pod.
const NAME: &str = "tcptrace-bpf-check";

/// Fields of the container that podman cannot take: ports in the host's network, and probes over HTTP, for which it
/// starts `curl` in the container.
const WITHOUT: [&str; 4] = ["ports", "startupProbe", "readinessProbe", "livenessProbe"];

/// podman's filter of system calls refuses bpf() with CAP_BPF up to 4.3, where it reads only this annotation.
const ANNOTATIONS: &str = "  annotations:\n    seccomp.security.alpha.kubernetes.io/pod: unconfined\n";

/// Returns the pod that a DaemonSet creates on each node, with this image and without what podman cannot take.
fn pod(daemon_set: &str, image: &str) -> Result<String> {
    let (_, template) = daemon_set.split_once("\n  template:\n").context("the DaemonSet has no template")?;
    let mut pod = "apiVersion: v1\nkind: Pod\n".to_owned();
    let mut is_left_out = false;
    for line in template.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)) {
        if let Some(field) = line.strip_prefix("      ").filter(|rest| !rest.starts_with(' ')) {
            is_left_out =
                WITHOUT.iter().any(|it| field.strip_prefix(it).is_some_and(|rest| rest.starts_with(':')));
        } else if !line.starts_with("       ") {
            is_left_out = false;
        }
        if !is_left_out {
            pod.push_str(line);
            pod.push('\n');
        }
    }
    let named = pod.replacen("metadata:\n", &format!("metadata:\n  name: {NAME}\n{ANNOTATIONS}"), 1);
    let with_image = named.replacen("image: tcptrace-bpf\n", &format!("image: {image}\n"), 1);
    ensure!(named != pod && with_image != named, "the DaemonSet has no metadata or no image `tcptrace-bpf`");
    Ok(with_image)
}

fn config_map(configuration: &str) -> String {
    let mut map =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: tcptrace-bpf\ndata:\n  tcptrace-bpf.toml: |\n"
            .to_owned();
    for line in configuration.lines() {
        map.push_str(format!("    {line}").trim_end());
        map.push('\n');
    }
    map
}

/// Checks that the pod becomes ready, and that its metrics count a connection of this process.
fn traces(port: u16) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !get(port, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        ensure!(Instant::now() < end, "the pod was not ready within {} s", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(100));
    }
    let before = closed(&get(port, "/metrics")?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    drop(TcpStream::connect(listener.local_addr()?)?);
    drop(listener.accept()?);
    while Instant::now() < end {
        if closed(&get(port, "/metrics")?) > before {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the pod's metrics did not count a connection within {} s", LIMIT.as_secs())
}

/// Returns the sum of the closed connections in a page of metrics.
fn closed(page: &str) -> f64 {
    page.lines()
        .filter(|line| line.starts_with("tcptrace_connections_closed_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_that_of_the_daemon_set() {
        let daemon_set = include_str!("../../../../deploy/kubernetes/base/daemon-set.yaml");
        let pod = pod(daemon_set, "localhost/tcptrace-bpf:1").unwrap();
        let metadata = "metadata:\n  name: tcptrace-bpf-check\n";
        assert!(
            pod.starts_with(&format!("apiVersion: v1\nkind: Pod\n{metadata}{ANNOTATIONS}  labels:\n")),
            "{pod}"
        );
        assert!(pod.contains("\nspec:\n  serviceAccountName: tcptrace-bpf\n"));
        assert!(pod.contains("      image: localhost/tcptrace-bpf:1\n"));
        for folder in NODE_FOLDERS {
            assert!(pod.contains(&format!("      path: {folder}\n")), "{folder}");
        }
        assert!(super::pod("kind: DaemonSet", "a").is_err());
    }

    #[test]
    fn the_configuration_is_a_block_of_the_config_map() {
        assert!(
            config_map("# a\n\nlisten = []\n")
                .ends_with("  tcptrace-bpf.toml: |\n    # a\n\n    listen = []\n")
        );
    }
}
