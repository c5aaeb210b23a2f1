//! Checks the Debian package.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::root::Root;
use crate::{architecture::Architecture, process};

/// Path of the package in a root.
const PACKAGE: &str = "/tmp/tcptrace-bpf.deb";
/// The configuration, which a user may change.
const CONFIGURATION: &str = "/etc/tcptrace-bpf/tcptrace-bpf.toml";
const UNIT: &str = "tcptrace-bpf.service";

/// Checks the architecture that a package names.
pub(super) fn check_architecture(package: &Path, architecture: Architecture) -> Result<()> {
    let named = process::probe(Command::new("dpkg-deb").arg("--field").arg(package).arg("Architecture"))?
        .with_context(|| format!("dpkg-deb cannot read {}", package.display()))?;
    ensure!(named.trim() == architecture.debian(), "{} is for {}", package.display(), named.trim());
    Ok(())
}

/// Installs a package, checks what it installs, removes it and purges it.
pub(super) fn check(root: &Root, package: &Path) -> Result<()> {
    let before = root.files()?;
    root.copy_in(package, PACKAGE)?;
    process::run(root.command("dpkg").args(["--install", PACKAGE]))?;
    fs::remove_file(root.path(PACKAGE))?;
    installed(root)?;
    let enabled = process::probe(root.command("systemctl").args(["--root=/", "is-enabled", UNIT]))?;
    ensure!(enabled.is_none(), "the installation enabled the service");

    // A removal keeps the changed configuration, and a purge does not.
    let changed = "listen = [\"127.0.0.1:9\"]\n";
    fs::write(root.path(CONFIGURATION), changed)?;
    process::run(root.command("dpkg").args(["--remove", "tcptrace-bpf"]))?;
    ensure!(
        fs::read_to_string(root.path(CONFIGURATION)).is_ok_and(|text| text == changed),
        "the removal did not keep {CONFIGURATION}"
    );
    process::run(root.command("dpkg").args(["--purge", "tcptrace-bpf"]))?;
    let after = root.files()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "the purge left {left:?}");
    Ok(())
}

/// Checks the files that a package has installed.
pub(super) fn installed(root: &Root) -> Result<()> {
    let version = process::probe(root.command("/usr/bin/tcptrace-bpf").arg("--version"))?;
    ensure!(
        version.is_some_and(|version| version.starts_with("tcptrace-bpf ")),
        "the installed program does not start"
    );
    process::run(root.command("/usr/bin/tcptrace-bpf").args([
        "serve",
        "--check",
        "--config",
        CONFIGURATION,
    ]))?;
    process::run(root.command("systemd-analyze").args(["verify", "--man=no", UNIT]))?;
    for file in [
        "/usr/share/bash-completion/completions/tcptrace-bpf",
        "/usr/share/fish/vendor_completions.d/tcptrace-bpf.fish",
        "/usr/share/doc/tcptrace-bpf/docs/index.md",
        "/usr/share/doc/tcptrace-bpf/deploy/prometheus/alerting.rules.yaml",
    ] {
        ensure!(root.path(file).is_file(), "the package lacks {file}");
    }
    let page = ["/usr/share/man/man1/tcptrace-bpf.1", "/usr/share/man/man1/tcptrace-bpf.1.gz"];
    ensure!(page.iter().any(|page| root.path(page).is_file()), "the package lacks {}", page[0]);
    Ok(())
}
