//! Collects the files of a release in one tree, from which archives and packages are made.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Release;
use crate::{cross::StaticCargo, process};

/// Folder of the documents. Subfolders are those of the repository, so that links work.
const DOCUMENTS: &str = "share/doc/tcptrace-bpf";

/// Files and folders that are copied from the repository to [`DOCUMENTS`].
const COPIED: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "tracer-ebpf/LICENSE",
    "docs",
    "deploy",
];

/// Where an archive installs the program, and where a package does.
const PREFIXES: [&str; 2] = ["/usr/local/bin/", "/usr/bin/"];

/// The tree. The packages' metadata in tracer/Cargo.toml names its files, so its place is the same for all
/// architectures; it holds one at a time.
pub(super) struct Staged {
    folder: PathBuf,
}

impl Staged {
    /// Collects the files of an architecture. `manual` is the result of [`manual`].
    pub(super) fn new(release: &Release<'_>, manual: &Path, program: &Path) -> Result<Self> {
        let folder = release.workspace.root().join("target/package");
        let prefix = folder.join("tree");
        empty(&folder)?;
        copy(manual, &prefix)?;
        copy(program, &prefix.join("bin/tcptrace-bpf"))?;
        fs::set_permissions(prefix.join("bin/tcptrace-bpf"), fs::Permissions::from_mode(0o755))?;
        for place in COPIED {
            copy(&release.workspace.root().join(place), &prefix.join(DOCUMENTS).join(place))?;
        }
        // A package has the program in /usr/bin.
        let unit = release.workspace.root().join("deploy/systemd/tcptrace-bpf.service");
        let text = fs::read_to_string(&unit).with_context(|| format!("could not read {}", unit.display()))?;
        ensure!(text.contains(PREFIXES[0]), "{} does not start {}…", unit.display(), PREFIXES[0]);
        let unit = folder.join("systemd/tcptrace-bpf.service");
        fs::create_dir_all(folder.join("systemd"))?;
        // cargo-deb writes its scripts only if a folder of scripts to start from is named.
        fs::create_dir_all(folder.join("debian"))?;
        fs::write(&unit, text.replace(PREFIXES[0], PREFIXES[1]))
            .with_context(|| format!("could not write {}", unit.display()))?;
        Ok(Self { folder })
    }

    /// Returns the tree, with the layout of /usr/local.
    pub(super) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }
}

/// The completion path of each shell, relative to a prefix such as /usr/local.
///
/// Elvish and PowerShell have no standard path; the user's configuration has to load their files.
const COMPLETIONS: [(&str, &str); 5] = [
    ("bash", "share/bash-completion/completions/tcptrace-bpf"),
    ("zsh", "share/zsh/site-functions/_tcptrace-bpf"),
    ("fish", "share/fish/vendor_completions.d/tcptrace-bpf.fish"),
    ("elvish", "share/elvish/lib/tcptrace-bpf.elv"),
    ("powershell", "share/powershell/tcptrace-bpf.ps1"),
];

/// Writes the man pages and completions with the program of this host, and returns their folder.
pub(super) fn manual(release: &Release<'_>, cargo: &StaticCargo) -> Result<PathBuf> {
    let folder = release.workspace.root().join("target/package-manual");
    empty(&folder)?;
    let program = cargo.build("tcptrace-bpf", "tcptrace-bpf", "release")?;
    process::run(Command::new(&program).args(["man", "--to"]).arg(folder.join("share/man/man1")))?;
    for (shell, path) in COMPLETIONS {
        let script = process::probe(Command::new(&program).args(["completions", shell]))?
            .with_context(|| format!("{} wrote no completions of {shell}", program.display()))?;
        let file = folder.join(path);
        fs::create_dir_all(file.parent().context("the path has folders")?)?;
        fs::write(&file, script).with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(folder)
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("could not empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))
}

/// Copies a file or a folder recursively. Copies are readable by everyone and writable by their owner.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(|| format!("could not list {}", from.display()))? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("could not copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("could not set the permissions of {}", to.display()))
}
