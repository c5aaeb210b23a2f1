//! `cargo xtask dist`: everything that a host gets, in one archive that is the same whenever it is made.

mod archive;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{process, workspace::Workspace};

/// Builds the program and packs it with man pages, completions, documentation and deploy/ for a release.
///
/// Writes target/dist/tcptrace-bpf-VERSION-ARCHITECTURE.tar.gz and SHA256SUMS beside it. Below its one folder
/// the archive is laid out like /usr/local, so unpacking it there with --strip-components=1 installs it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pack this program rather than build one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,

    /// Name of the architecture in the archive's name, when --binary is for another one
    #[arg(long, value_name = "NAME", default_value = env::consts::ARCH)]
    architecture: String,
}

/// Where the documents go, with the folders among them as in the repository, so that their links hold.
const DOCUMENTS: &str = "share/doc/tcptrace-bpf";

/// What is copied from the repository to [`DOCUMENTS`]; folders with all that is in them.
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
    // What an earlier run left would be packed, or summed, with what this one makes.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("could not empty {}", folder.display()))?;
    }
    let staged = folder.join(&name);
    fs::create_dir_all(&staged).with_context(|| format!("could not make {}", staged.display()))?;

    let (binary, profile) = match &arguments.binary {
        Some(file) => (file.clone(), "dev"),
        None => (build(&workspace)?, "release"),
    };
    copy(&binary, &staged.join("bin/tcptrace-bpf"))?;
    fs::set_permissions(staged.join("bin/tcptrace-bpf"), fs::Permissions::from_mode(0o755))?;
    // The profile of the program, whose dependencies are then built once.
    process::run(
        cargo(&workspace)
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

/// The version in the workspace's manifest.
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

/// Builds the program for a release and says where it is.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    process::run(cargo(workspace).args([
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

/// The cargo that started this program, in the workspace.
fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace.root());
    cargo
}

/// Copies a file, or a folder with all that is in it. Nobody but root may write the copies, all may read them.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(|| format!("could not list {}", from.display()))? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("could not copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("could not set the permissions of {}", to.display()))
}
