//! From a bare kernel to a machine that the program can run on.

use std::{fs, fs::File, process::Command};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    mount::{MountFlags, mount},
    system::finit_module,
};

use crate::report::Report;

/// Type, place. `devtmpfs` comes before what lies in it.
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
        // Those within sysfs exist already and cannot be made.
        let _ = fs::create_dir_all(place);
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("{kind} cannot be mounted at {place}"))?;
    }
    Ok(())
}

/// Loads the modules; one that fails is noted, for the tests that need it say so themselves.
pub(crate) fn load_modules(paths: &[String], report: &mut Report) -> Result<()> {
    for path in paths {
        let file = File::open(path).with_context(|| format!("{path} cannot be opened"))?;
        if let Err(error) = finit_module(&file, c"", 0) {
            report.note(format!("the module {path} cannot be loaded: {error}"))?;
        }
    }
    Ok(())
}

pub(crate) fn raise_loopback() -> Result<()> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .env("PATH", crate::run::PATH)
        .status()
        .context("ip cannot start")?;
    ensure!(status.success(), "the loopback interface cannot be raised");
    Ok(())
}
