//! What runs in the guest: our own programs, linked statically, and the tools that the tests start.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

/// The only machine that is emulated.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Packages of the workspace whose tests run in the guest.
const PACKAGES: &[&str] = &["tcptrace-bpf", "tcptrace-tests"];

/// Their test programs, besides those of the libraries: all but what compares the documentation, which is
/// the same on every kernel and not in the guest.
const TESTS: &[&str] = &["core", "owner", "scenarios", "snapshot"];

/// Programs of this machine that tests start.
const TOOLS: &[&str] = &["bash", "ip", "nft", "setpriv", "sh", "sleep", "ss", "true", "unshare"];

/// Our own programs.
pub(crate) struct Programs {
    /// The first process.
    pub(crate) init: PathBuf,
    /// The program under test.
    pub(crate) tracer: PathBuf,
    /// Test programs: name and file.
    pub(crate) suites: Vec<(String, PathBuf)>,
}

/// Builds everything that runs in the guest, the test programs only if they are wanted.
pub(crate) fn build(workspace: &Workspace, with_suites: bool) -> Result<Programs> {
    let programs =
        ["build", "-p", "tcptrace-bpf", "-p", "xtask", "--bin", "tcptrace-bpf", "--bin", "vm-init"];
    let built = cargo(workspace, &programs)?;
    let program = |name: &str| {
        let found = built.iter().find(|artifact| artifact.target.name == name);
        let executable = found.and_then(|artifact| artifact.executable.clone());
        executable.with_context(|| format!("cargo does not say where it put {name}"))
    };
    let (init, tracer) = (program("vm-init")?, program("tcptrace-bpf")?);
    if !with_suites {
        return Ok(Programs { init, tracer, suites: Vec::new() });
    }
    let mut test = vec!["test", "--no-run"];
    test.extend(PACKAGES.iter().flat_map(|package| ["-p", package]));
    test.extend(TESTS.iter().flat_map(|name| ["--test", name]));
    test.push("--lib");
    let suites = cargo(workspace, &test)?
        .into_iter()
        .filter(|artifact| artifact.profile.test)
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .collect();
    Ok(Programs { init, tracer, suites })
}

/// What cargo says about a thing it built, as far as it matters here.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace.root())
        .args(arguments)
        .args([
            "--profile",
            "vm",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
            "--target-dir",
        ])
        .arg(workspace.root().join("target/vm/build"))
        // The guest has no libraries but those of the tools.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stderr(Stdio::inherit());
    let output = cargo.output().context("could not start cargo")?;
    ensure!(
        output.status.success(),
        "cargo could not build what runs in the guest; its own message is above"
    );
    // Its other messages have other fields.
    Ok(serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<serde_json::Value>()
        .filter_map(|message| serde_json::from_value(message.ok()?).ok())
        .collect())
}

/// The tools of this machine and the libraries they load, by their places here and in the guest.
///
/// # Errors
/// When a tool is missing.
pub(crate) fn tools() -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let mut libraries = BTreeSet::new();
    for name in TOOLS {
        let path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .map(|folder| Path::new(folder).join(name))
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("the program {name}, which the tests start, is not installed"))?;
        let listed = process::probe(Command::new("ldd").arg(&path))?
            .with_context(|| format!("ldd cannot list the libraries of {}", path.display()))?;
        libraries.extend(listed.lines().filter_map(library));
        files.push((format!("/bin/{name}"), path));
    }
    files.extend(libraries.into_iter().map(|library| (library.clone(), PathBuf::from(library))));
    Ok(files)
}

/// The path in a line of ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld… (0x…)`.
fn library(line: &str) -> Option<String> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f03c3bce000)"), None);
        assert_eq!(library("\tlibc.so.6 => /lib/libc.so.6 (0x00007f03c38bf000)").unwrap(), "/lib/libc.so.6");
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00)").unwrap(), "/lib64/ld-linux-x86-64.so.2");
    }
}
