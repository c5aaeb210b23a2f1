//! Builds and collects the programs of the guest: the tracer, init, the test programs, tools and libraries.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::foreign_tools;
use crate::{
    apt::{Apt, Mirror},
    architecture::Architecture,
    cross::StaticCargo,
    process,
    workspace::Workspace,
};

/// Workspace packages whose tests run in the guest.
const PACKAGES: &[&str] = &["tcptrace-bpf", "tracer-core", "tcptrace-tests"];

/// Test programs that run in the guest besides unit tests. Tests of the documentation are excluded: their
/// result is the same on every kernel, and the guest does not have the files.
const TESTS: &[&str] = &["core", "owner", "scenarios", "skips", "snapshot"];

/// Tests excluded from the guest: a part of their names, and the reason.
pub(crate) const EXCLUDED: &[(&str, &str)] = &[
    (
        "prometheus::",
        "needs Prometheus, which exceeds the machine's memory; its input is the same on every kernel",
    ),
    (
        "page::browser_",
        "needs Chromium, which exceeds the machine's memory; the page is the same on every kernel",
    ),
    (
        "containers::",
        "needs Podman and Docker, which exceed the machine's memory; their files are the same on every kernel",
    ),
];

/// Programs that the tests start.
pub(super) const TOOLS: &[&str] = &[
    "bash", "curl", "ip", "mount", "nft", "openssl", "setpriv", "sh", "sleep", "ss", "true", "umount",
    "unshare",
];

/// The workspace's programs for the guest.
pub(crate) struct GuestPrograms {
    /// The guest's init process.
    pub(crate) init: PathBuf,
    /// The program under test.
    pub(crate) tracer: PathBuf,
    /// Test programs: name and path.
    pub(crate) suites: Vec<(String, PathBuf)>,
}

/// How the guest's programs are built: for this machine's architecture with shared libraries, like any other build of
/// the workspace; for another one static, because its libraries are not installed here.
pub(crate) struct GuestBuild<'a> {
    workspace: &'a Workspace,
    architecture: Architecture,
    foreign: Option<StaticCargo>,
}

impl<'a> GuestBuild<'a> {
    /// Prepares the build, and installs what another architecture needs.
    pub(crate) fn new(workspace: &'a Workspace, architecture: Architecture, mirror: &Mirror) -> Result<Self> {
        let is_foreign = architecture != Architecture::host()?;
        let foreign = is_foreign.then(|| StaticCargo::new(workspace, architecture, mirror)).transpose()?;
        Ok(Self { workspace, architecture, foreign })
    }

    /// Builds the workspace's programs for the guest.
    ///
    /// Without the test suites, the build uses profile `dev`, which a test run has already built; for another architecture
    /// `release`, which makes the program that is released. With the suites it uses the optimized profile `vm`, because the
    /// emulated processor is slow.
    pub(crate) fn programs(&self, with_suites: bool) -> Result<GuestPrograms> {
        let profile = match (with_suites, &self.foreign) {
            (true, _) => "vm",
            (false, None) => "dev",
            (false, Some(_)) => "release",
        };
        let programs: &[&str] = if profile == "dev" {
            // Exactly what `cargo xtask test` builds: a part of it would have other features, and take minutes.
            &["--workspace", "--all-targets"]
        } else {
            &["-p", "tcptrace-bpf", "-p", "xtask", "--bin", "tcptrace-bpf", "--bin", "vm-init"]
        };
        let built = self.cargo("build", profile, programs)?;
        let program = |name: &str| {
            let is_program = |artifact: &&Artifact| artifact.target.name == name && !artifact.profile.test;
            let found = built.iter().find(|artifact| is_program(artifact) && artifact.executable.is_some());
            let executable = found.and_then(|artifact| artifact.executable.clone());
            let executable =
                executable.with_context(|| format!("cargo did not report the path of {name}"))?;
            self.stripped(&executable)
        };
        let (init, tracer) = (program("vm-init")?, program("tcptrace-bpf")?);
        if !with_suites {
            return Ok(GuestPrograms { init, tracer, suites: Vec::new() });
        }
        let mut test = vec!["--no-run"];
        test.extend(PACKAGES.iter().flat_map(|package| ["-p", package]));
        test.extend(TESTS.iter().flat_map(|name| ["--test", name]));
        test.push("--lib");
        let suites = self
            .cargo("test", profile, &test)?
            .into_iter()
            .filter(|artifact| artifact.profile.test)
            .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
            .map(|(name, executable)| Ok((name, self.stripped(&executable)?)))
            .collect::<Result<_>>()?;
        Ok(GuestPrograms { init, tracer, suites })
    }

    /// Returns the tools and all shared libraries, as pairs of guest path and host path.
    ///
    /// # Errors
    /// If a tool is missing.
    pub(crate) fn tools(&self, programs: &GuestPrograms, apt: &Apt) -> Result<Vec<(String, PathBuf)>> {
        if self.foreign.is_some() {
            return foreign_tools::tools(self.workspace, self.architecture, apt);
        }
        installed_tools(programs)
    }

    /// Copies a program without its debug information, which would exceed the guest's memory.
    fn stripped(&self, program: &Path) -> Result<PathBuf> {
        let folder = self.workspace.root().join("target/vm/programs").join(self.architecture.name());
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        let name = program.file_name().context("cargo named a program without a file name")?;
        let copy = folder.join(name);
        let strip = match self.foreign {
            Some(_) => format!("{}-strip", self.architecture.gnu()),
            None => "strip".to_owned(),
        };
        process::run(Command::new(strip).arg("--strip-debug").arg("-o").arg(&copy).arg(program))?;
        Ok(copy)
    }

    fn cargo(&self, subcommand: &str, profile: &str, arguments: &[&str]) -> Result<Vec<Artifact>> {
        let mut cargo = self.foreign.as_ref().map_or_else(
            || {
                let mut cargo = self.workspace.cargo();
                cargo.arg(subcommand);
                cargo
            },
            |cargo| cargo.command(subcommand),
        );
        cargo
            .args(arguments)
            .args(["--profile", profile, "--message-format=json-render-diagnostics"])
            .stderr(Stdio::inherit());
        let output = cargo.output().context("could not start cargo")?;
        ensure!(output.status.success(), "cargo could not build the guest's programs; its message is above");
        // Skips cargo's other messages, which have other fields.
        Ok(serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter::<serde_json::Value>()
            .filter_map(|message| serde_json::from_value(message.ok()?).ok())
            .collect())
    }
}

/// A compiler artifact in cargo's JSON messages.
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

fn installed_tools(programs: &GuestPrograms) -> Result<Vec<(String, PathBuf)>> {
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
            .with_context(|| format!("{name} is not installed, but the tests use it"))?;
        libraries.extend(libraries_of(&path)?);
        files.push((format!("/bin/{name}"), path));
    }
    files.extend(libraries.into_iter().map(|library| (library.clone(), PathBuf::from(library))));
    Ok(files)
}

fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let listed = process::probe(Command::new("ldd").arg(program))?
        .with_context(|| format!("ldd could not list the libraries of {}", program.display()))?;
    Ok(listed.lines().filter_map(library).collect())
}

/// Returns the path in a line of ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld…
/// (0x…)`.
fn library(line: &str) -> Option<String> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_parsed_from_ldd() {
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f03c3bce000)"), None);
        assert_eq!(library("\tlibc.so.6 => /lib/libc.so.6 (0x00007f03c38bf000)").unwrap(), "/lib/libc.so.6");
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00)").unwrap(), "/lib64/ld-linux-x86-64.so.2");
    }
}
