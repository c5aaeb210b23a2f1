//! Prepares the booted machine: mounts, modules, network.

use std::{fs, fs::File, process::Command};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    mount::{MountFlags, mount},
    system::finit_module,
};

use crate::report::Report;

/// Type and mount point, parents before children.
const MOUNTS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

pub(crate) fn mount_everything() -> Result<()> {
    for (kind, place) in MOUNTS {
        // Mount points in sysfs exist already and cannot be created.
        let _ = fs::create_dir_all(place);
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("could not mount {kind} at {place}"))?;
    }
    Ok(())
}

/// Loads the modules. A failure is only noted, because the tests that need the module report it.
pub(crate) fn load_modules(paths: &[String], report: &mut Report) -> Result<()> {
    for path in paths {
        let file = File::open(path).with_context(|| format!("could not open {path}"))?;
        if let Err(error) = finit_module(&file, c"", 0) {
            report.note(format!("could not load the module {path}: {error}"))?;
        }
    }
    Ok(())
}

pub(crate) fn bring_up_loopback() -> Result<()> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .env("PATH", crate::run::PATH)
        .status()
        .context("could not start ip")?;
    ensure!(status.success(), "could not bring up the loopback interface");
    Ok(())
}
