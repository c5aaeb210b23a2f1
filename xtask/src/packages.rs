//! Installs missing Debian packages.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Returns whether apt-get is installed.
pub(crate) fn apt_exists() -> Result<bool> {
    Ok(process::probe(Command::new("apt-get").arg("--version"))?.is_some())
}

/// Returns the packages that are not installed.
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

/// Installs missing packages, as root or through sudo. Uses the network only if a package is missing.
///
/// # Errors
/// If a package is missing and apt-get does not exist or fails.
pub(crate) fn ensure(names: &[&str]) -> Result<()> {
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !apt_exists()? {
        bail!(
            "these Debian packages are missing and apt-get does not exist; install the same programs by hand: {}",
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

/// Returns a command that runs as root: directly if this program does, otherwise through sudo.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    }
}
