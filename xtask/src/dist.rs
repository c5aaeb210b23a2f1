//! `cargo xtask dist`: packs the release archive reproducibly.

mod archive;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{process, workspace::Workspace};

/// Packs the program with man pages, completions, documentation and deploy/ for a release.
///
/// Writes target/dist/tcptrace-bpf-VERSION-ARCHITECTURE.tar.gz and SHA256SUMS. The archive's top folder has
/// the layout of /usr/local: unpack it there with --strip-components=1 to install.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,

    /// Architecture in the archive's name, if --binary is for another one
    #[arg(long, value_name = "NAME", default_value = env::consts::ARCH)]
    architecture: String,
}

/// Folder of the documents. Subfolders are those of the repository, so that links work.
const DOCUMENTS: &str = "share/doc/tcptrace-bpf";

/// Files and folders that are copied from the repository to [`DOCUMENTS`].
const COPIED: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "tracer-ebpf/LICENSE",
    "docs",
    "deploy",
];

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let name = format!("tcptrace-bpf-{}-{}", version(&workspace)?, arguments.architecture);
    let folder = workspace.root().join("target/dist");
    // Files of an earlier run would be packed or summed as well.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("could not empty {}", folder.display()))?;
    }
    let staged = folder.join(&name);
    fs::create_dir_all(&staged).with_context(|| format!("could not create {}", staged.display()))?;

    let (binary, profile) = match &arguments.binary {
        Some(file) => (file.clone(), "dev"),
        None => (build(&workspace)?, "release"),
    };
    copy(&binary, &staged.join("bin/tcptrace-bpf"))?;
    fs::set_permissions(staged.join("bin/tcptrace-bpf"), fs::Permissions::from_mode(0o755))?;
    // Uses the profile of the program, so that dependencies are built once.
    process::run(
        workspace
            .cargo()
            .args([
                "run",
                "--quiet",
                "--locked",
                "--package",
                "tcptrace-bpf",
                "--example",
                "manual",
                "--profile",
            ])
            .args([profile, "--"])
            .arg(&staged),
    )?;
    for place in COPIED {
        copy(&workspace.root().join(place), &staged.join(DOCUMENTS).join(place))?;
    }

    let packed = archive::pack(&staged, archive::timestamp(workspace.root())?)?;
    let sums = archive::write_sums(&folder, &[&packed])?;
    fs::remove_dir_all(&staged).with_context(|| format!("could not remove {}", staged.display()))?;
    eprintln!("{}\n{}", packed.display(), sums.display());
    Ok(())
}

/// Reads the version from the workspace's manifest.
fn version(workspace: &Workspace) -> Result<String> {
    let manifest = workspace.root().join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("could not read {}", manifest.display()))?;
    let manifest: toml::Table = text.parse().context("Cargo.toml of the workspace is not TOML")?;
    let version = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("package")?.get("version")?.as_str())
        .context("Cargo.toml of the workspace has no workspace.package.version")?;
    Ok(version.to_owned())
}

/// Builds the release program and returns its path.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    process::run(workspace.cargo().args([
        "build",
        "--locked",
        "--release",
        "--package",
        "tcptrace-bpf",
        "--bin",
        "tcptrace-bpf",
    ]))?;
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.root().join("target"), PathBuf::from);
    Ok(target.join("release/tcptrace-bpf"))
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
