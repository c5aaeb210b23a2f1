//! Checks the service under a booted systemd, in a container of systemd-nspawn.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::root::Root;

const LIMIT: Duration = Duration::from_secs(180);

/// Runs in the booted system, step by step with [`check`], which runs on the host. The unit powers the system off when it
/// ends.
const SCRIPT: &str = "\
#!/bin/sh -eu
dpkg --install /package.deb
test \"$(systemctl is-enabled tcptrace-bpf || :)\" = disabled
test \"$(systemctl is-active tcptrace-bpf || :)\" = inactive
sed -i \"s/^listen = .*/listen = [\\\"127.0.0.1:$(cat /port)\\\"]/\" /etc/tcptrace-bpf/tcptrace-bpf.toml
systemctl start tcptrace-bpf || { systemctl status --no-pager --full tcptrace-bpf; exit 1; }
touch /started
while test ! -e /answered; do sleep 0.1; done
dpkg --purge tcptrace-bpf
test \"$(systemctl is-active tcptrace-bpf || :)\" = inactive
test ! -e /etc/tcptrace-bpf
touch /removed
";

const UNIT: &str = "\
[Unit]
Description=Check of the package
[Service]
Type=oneshot
ExecStart=/check.sh
ExecStopPost=/bin/systemctl --no-block --force poweroff
StandardOutput=append:/check.log
StandardError=append:/check.log
";

/// Boots the root, installs the package there, starts the service, reads its metrics, and purges the package.
pub(super) fn check(root: &Root, package: &Path) -> Result<()> {
    root.copy_in(package, "/package.deb")?;
    // The system shares the host's network.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    fs::write(root.path("/port"), port.to_string())?;
    fs::write(root.path("/check.sh"), SCRIPT)?;
    fs::set_permissions(root.path("/check.sh"), fs::Permissions::from_mode(0o755))?;
    let units = root.path("/etc/systemd/system");
    fs::write(units.join("check.service"), UNIT)?;
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    symlink("../check.service", units.join("multi-user.target.wants/check.service"))?;

    let console = fs::File::create(root.path("/console.log"))?;
    let mut system = Command::new("systemd-nspawn")
        .args(["--quiet", "--register=no", "--keep-unit", "--boot", "--capability=all"])
        .arg("--system-call-filter=bpf perf_event_open")
        .arg("--directory")
        .arg(root.folder())
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .context("could not start systemd-nspawn")?;
    let result = answers(root, port, || Ok(system.try_wait()?.is_none()));
    // Gives the system the time to power off after the check, and ends it after an error.
    let end = Instant::now() + Duration::from_secs(30);
    while result.is_ok() && system.try_wait()?.is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
    }
    let _ = system.kill();
    system.wait()?;
    result.with_context(|| {
        let text = |path| fs::read_to_string(root.path(path)).unwrap_or_default();
        format!("the check in the booted system failed: {}\n{}", text("/check.log"), text("/console.log"))
    })
}

fn answers(root: &Root, port: u16, mut runs: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let mut wait = |file: &str| -> Result<()> {
        while !root.path(file).exists() {
            ensure!(runs()?, "the system ended before it made {file}");
            ensure!(Instant::now() < end, "the system did not make {file} within {} s", LIMIT.as_secs());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    wait("/started")?;
    let metrics = get(port, "/metrics")?;
    ensure!(metrics.starts_with("HTTP/1.1 200 "), "/metrics answered: {metrics}");
    ensure!(metrics.contains("\ntcptrace_mode_info{"), "/metrics has no tcptrace_mode_info: {metrics}");
    fs::write(root.path("/answered"), "")?;
    wait("/removed")
}

fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
