//! Debian packages: what is missing, and installing it.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Whether apt can be asked at all.
pub(crate) fn apt_exists() -> Result<bool> {
    Ok(process::probe(Command::new("apt-get").arg("--version"))?.is_some())
}

/// Those of the packages that are not installed.
pub(crate) fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut missing = Vec::new();
    for name in names {
        let status = process::probe(Command::new("dpkg-query").args([
            "--show",
            "--showformat=${db:Status-Status}",
            name,
        ]))?;
        if status.as_deref() != Some("installed") {
            missing.push(*name);
        }
    }
    Ok(missing)
}

/// Installs those of the packages that are missing, as root or through sudo. Asks the network only
/// when something is missing.
///
/// # Errors
/// When something is missing and there is no apt, or apt fails.
pub(crate) fn ensure(names: &[&str]) -> Result<()> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !apt_exists()? {
        bail!(
            "these Debian packages, or what holds the same programs here, are missing and there is no apt-get to \
             install them with: {}",
            missing.join(" ")
        );
    }
    process::run(as_root("apt-get").args(["update", "--quiet"]))?;
    process::run(
        as_root("env")
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--quiet", "--yes"])
            .arg("--no-install-recommends")
            .args(missing),
    )
}

/// A command that runs as root: directly when this program does, otherwise through sudo.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    }
}
