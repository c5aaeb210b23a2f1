//! Names of containers that Podman and Docker started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::{
    mount::UnmountFlags,
    process::{Pid, Signal, kill_process},
};
use tcptrace_tests::{Connection, Mode, Namespace, Tracer, sockets, speed, wait};
use tempfile::TempDir;

/// A program in a container, which connects to a port of the namespace and closes.
const CONNECT: &str = "/bin/busybox nc 127.0.0.1 $PORT </dev/null";

/// Makes the file system of a container, with one program.
fn container_root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("the package busybox-static is installed"), root.path().join("bin/busybox"))
        .unwrap();
    root
}

/// Traces while `run` starts a container that connects to the port it gets as `PORT=NUMBER`, and returns the rows of
/// both ends. The names are read below `host`.
fn trace_container(namespace: &Namespace, host: &Path, run: impl FnOnce(&str)) -> (Connection, Connection) {
    let listener = namespace.run("server", || sockets::listen("127.0.0.1:0"));
    let port = format!("PORT={}", sockets::port(&listener));
    let tracer = Tracer::json("connections", namespace, Mode::Btf, &["--host-root", host.to_str().unwrap()]);
    let accepting = thread::spawn(move || {
        let accepted = sockets::accept(&listener);
        sockets::wait_for_end(&accepted);
        // A cgroup that is newer than the last walk is known through its process, while that runs.
        wait::pause(Duration::from_secs(1));
        drop((accepted, listener));
    });
    run(&port);
    accepting.join().unwrap();
    tracer.finish_both()
}

#[track_caller]
fn assert_named(client: &Connection, server: &Connection, runtime: &str, name: &str) {
    assert_eq!(client.container_runtime.as_deref(), Some(runtime), "{client:#?}");
    assert_eq!(client.container_name.as_deref(), Some(name), "{client:#?}");
    assert_eq!((&client.k8s_container, &server.container_name), (&None, &None));
}

/// The storage of podman is below the host's root that the program gets, so no setting of this machine matters.
#[test]
fn podman_container_has_its_name() {
    let namespace = Namespace::alone();
    let (host, root) = (tempfile::tempdir().unwrap(), container_root());
    let name = format!("tcptrace-podman-{}", std::process::id());
    let storage = host.path().join("var/lib/containers/storage");
    let run = host.path().join("run");
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&storage).arg("--runroot").arg(&run);
        command.args([
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            "--runtime=runc",
        ]);
        command.args(arguments);
        namespace.run("podman", || succeed(&mut command));
    };
    // Opens the storage, whose folder the program then watches.
    podman(&["ps"]);
    let (client, server) = trace_container(&namespace, host.path(), |port| {
        // The limits are those that an unprivileged manager of this machine may set.
        let fixed = ["run", "--rm", "--network=host", "--ulimit=nofile=512:512", "--ulimit=nproc=512:512"];
        let root = root.path().to_str().unwrap();
        let program = ["--name", &name, "--env", port, "--rootfs", root, "/bin/busybox", "sh", "-c", CONNECT];
        podman(&[&fixed[..], &program].concat());
    });
    assert_named(&client, &server, "podman", &name);
}

/// Where Docker is installed. Its files have the container's name at once.
#[test]
fn docker_container_has_its_name() {
    let namespace = Namespace::alone();
    let (host, root) = (tempfile::tempdir().unwrap(), container_root());
    let Some(docker) = Docker::start(&namespace, host.path()) else {
        return speed::not_possible("the program dockerd is not installed");
    };
    let name = format!("tcptrace-docker-{}", std::process::id());
    let image = host.path().join("image.tar");
    let image = image.to_str().unwrap();
    succeed(Command::new("tar").arg("-C").arg(root.path()).args(["-cf", image, "."]));
    succeed(&mut docker.command(&["import", image, "tcptrace"]));
    let (client, server) = trace_container(&namespace, host.path(), |port| {
        let fixed = ["run", "--rm", "--network=host", "--name", &name, "--env", port];
        let program = ["tcptrace", "/bin/busybox", "sh", "-c", CONNECT];
        succeed(&mut docker.command(&[&fixed[..], &program].concat()));
    });
    assert_named(&client, &server, "docker", &name);
}

/// A daemon of Docker in a network namespace, with its files below a root of its own.
struct Docker {
    daemon: std::process::Child,
    socket: String,
    exec: PathBuf,
}

impl Docker {
    /// Starts the daemon, if it is installed.
    fn start(namespace: &Namespace, host: &Path) -> Option<Self> {
        let socket = format!("unix://{}", host.join("docker.sock").display());
        let exec = host.join("exec");
        let log = fs::File::create(host.join("dockerd.log")).unwrap();
        let mut command = Command::new("dockerd");
        command
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"])
            .arg("--data-root")
            .arg(host.join("var/lib/docker"))
            .arg("--exec-root")
            .arg(&exec)
            .arg("--pidfile")
            .arg(host.join("docker.pid"))
            .arg("--host")
            .arg(&socket)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let daemon = namespace.run("dockerd", || command.spawn());
        let daemon = match daemon {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            other => other.unwrap(),
        };
        let docker = Self { daemon, socket, exec };
        wait::until("the daemon", || {
            docker.command(&["version"]).output().unwrap().status.success().then_some(())
        });
        Some(docker)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(&self.socket).args(arguments);
        command
    }
}

/// Runs a command, which must succeed.
#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        let _ = self.daemon.wait();
        // The daemon leaves the mount of its network namespace, which would keep the folder.
        let _ = rustix::mount::unmount(self.exec.join("netns/default"), UnmountFlags::DETACH);
    }
}
