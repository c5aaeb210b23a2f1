//! What runs in the guest: our own programs, the tools that the tests start, and the libraries of both.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

/// Packages of the workspace whose tests run in the guest.
const PACKAGES: &[&str] = &["tcptrace-bpf", "tcptrace-tests"];

/// Their test programs, besides those of the libraries: all but what compares the documentation, which is
/// the same on every kernel and not in the guest.
const TESTS: &[&str] = &["core", "owner", "scenarios", "snapshot"];

/// Tests that do not run in the guest: a part of their names, and why not.
pub(crate) const LEFT_OUT: &[(&str, &str)] = &[(
    "prometheus::",
    "needs Prometheus, which would fill the machine's memory; what it reads is the same on every kernel",
)];

/// Programs of this machine that tests start.
const TOOLS: &[&str] =
    &["bash", "curl", "ip", "nft", "openssl", "setpriv", "sh", "sleep", "ss", "true", "unshare"];

/// Our own programs.
pub(crate) struct Programs {
    /// The first process.
    pub(crate) init: PathBuf,
    /// The program under test.
    pub(crate) tracer: PathBuf,
    /// Test programs: name and file.
    pub(crate) suites: Vec<(String, PathBuf)>,
}

/// Builds everything that runs in the guest.
///
/// Without the test programs, it is what `cargo build` makes, and so is there already after a test run. With
/// them it is optimised: there is much to do for an emulated processor.
pub(crate) fn build(workspace: &Workspace, with_suites: bool) -> Result<Programs> {
    let profile = if with_suites { "vm" } else { "dev" };
    let programs =
        ["build", "-p", "tcptrace-bpf", "-p", "xtask", "--bin", "tcptrace-bpf", "--bin", "vm-init"];
    let built = cargo(workspace, profile, &programs)?;
    let program = |name: &str| {
        let found = built.iter().find(|artifact| artifact.target.name == name);
        let executable = found.and_then(|artifact| artifact.executable.clone());
        let executable = executable.with_context(|| format!("cargo does not say where it put {name}"))?;
        stripped(workspace, &executable)
    };
    let (init, tracer) = (program("vm-init")?, program("tcptrace-bpf")?);
    if !with_suites {
        return Ok(Programs { init, tracer, suites: Vec::new() });
    }
    let mut test = vec!["test", "--no-run"];
    test.extend(PACKAGES.iter().flat_map(|package| ["-p", package]));
    test.extend(TESTS.iter().flat_map(|name| ["--test", name]));
    test.push("--lib");
    let suites = cargo(workspace, profile, &test)?
        .into_iter()
        .filter(|artifact| artifact.profile.test)
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .map(|(name, executable)| Ok((name, stripped(workspace, &executable)?)))
        .collect::<Result<_>>()?;
    Ok(Programs { init, tracer, suites })
}

/// A copy of a program without its debug information, which would fill the guest's memory.
fn stripped(workspace: &Workspace, program: &Path) -> Result<PathBuf> {
    let folder = workspace.root().join("target/vm/programs");
    fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    let name = program.file_name().context("cargo named a program without a file name")?;
    let copy = folder.join(name);
    let mut strip = Command::new("strip");
    process::run(strip.arg("--strip-debug").arg("-o").arg(&copy).arg(program))?;
    Ok(copy)
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

fn cargo(workspace: &Workspace, profile: &str, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace.root())
        .args(arguments)
        .args(["--profile", profile, "--message-format=json-render-diagnostics"])
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

/// The tools of this machine and the libraries they and our own programs load, by their places here and in the
/// guest.
///
/// # Errors
/// When a tool is missing.
pub(crate) fn tools(programs: &Programs) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let mut libraries = BTreeSet::new();
    let suites = programs.suites.iter().map(|(_, path)| path);
    for path in [&programs.init, &programs.tracer].into_iter().chain(suites) {
        libraries.extend(libraries_of(path)?);
    }
    for name in TOOLS {
        let path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .map(|folder| Path::new(folder).join(name))
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("the program {name}, which the tests start, is not installed"))?;
        libraries.extend(libraries_of(&path)?);
        files.push((format!("/bin/{name}"), path));
    }
    files.extend(libraries.into_iter().map(|library| (library.clone(), PathBuf::from(library))));
    Ok(files)
}

fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let listed = process::probe(Command::new("ldd").arg(program))?
        .with_context(|| format!("ldd cannot list the libraries of {}", program.display()))?;
    Ok(listed.lines().filter_map(library).collect())
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
