//! Checks the RPM package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{debian, root::Root};
use crate::{architecture::Architecture, process};

/// Checks the architecture that a package names, and that it requires nothing but a shell for its scripts.
pub(super) fn check_architecture(package: &Path, architecture: Architecture) -> Result<()> {
    let query = |query: &[&str]| -> Result<String> {
        process::probe(Command::new("rpm").args(["--query", "--package"]).args(query).arg(package))?
            .with_context(|| format!("rpm cannot read {}", package.display()))
    };
    let named = query(&["--queryformat", "%{ARCH}"])?;
    ensure!(named == architecture.name(), "{} is for {named}", package.display());
    let required = query(&["--requires"])?;
    // A package with a configuration requires itself as `config(NAME)`.
    let expected =
        |line: &&str| line.starts_with("rpmlib(") || line.starts_with("config(") || *line == "/bin/sh";
    let foreign: Vec<&str> = required.lines().filter(|line| !expected(line)).collect();
    ensure!(foreign.is_empty(), "{} requires {foreign:?}", package.display());
    Ok(())
}

/// Installs a package, checks what it installs, and removes it.
pub(super) fn check(root: &Root, package: &Path) -> Result<()> {
    let before = root.files()?;
    // No RPM package provides the shell of a Debian system.
    process::run(rpm(root).args(["--install", "--nodeps"]).arg(package))?;
    debian::installed(root)?;
    process::run(rpm(root).args(["--verify", "--nodeps", "tcptrace-bpf"]))?;
    process::run(rpm(root).args(["--erase", "tcptrace-bpf"]))?;
    let after = root.files()?;
    // On Red Hat's systems other packages own the shells' folders.
    let is_shells =
        |path: &PathBuf| ["usr/share/fish", "usr/share/zsh"].iter().any(|of| path.starts_with(of));
    let left: Vec<_> = after
        .difference(&before)
        .filter(|path| !is_shells(path) || root.folder().join(path).is_file())
        .collect();
    ensure!(left.is_empty(), "the removal left {left:?}");
    Ok(())
}

fn rpm(root: &Root) -> Command {
    let mut rpm = Command::new("rpm");
    // Debian's rpm refuses to install without the last option, and has its database in the home directory.
    rpm.arg("--root").arg(root.folder()).args(["--dbpath", "/var/lib/rpm", "--force-debian"]);
    rpm
}
