//! `cargo xtask dist`: makes all files of a release, reproducibly.

mod archive;
mod check;
mod image;
mod package;
mod sbom;
mod staged;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use self::staged::Staged;
use crate::{apt::Mirror, architecture::Architecture, cross::StaticCargo, workspace::Workspace};

/// Makes all files of a release in target/dist: for each architecture an archive, a Debian and an RPM package, all
/// with a static program; a container image for both; a bill of materials, and SHA256SUMS.
///
/// The files depend only on the commit and on the compiler: times are those of the commit, or SOURCE_DATE_EPOCH.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only these architectures
    #[arg(long, value_name = "ARCHITECTURE", value_delimiter = ',', default_values_t = Architecture::ALL)]
    architecture: Vec<Architecture>,

    /// Afterwards install, run and remove the files in clean systems. Requires Debian and root
    #[arg(long)]
    check: bool,

    /// Make nothing, and only check the files in target/dist
    #[arg(long, requires = "check")]
    made: bool,

    #[command(flatten)]
    mirror: Mirror,
}

/// What the files of a release have in common.
struct Release<'a> {
    workspace: &'a Workspace,
    /// The version in Cargo.toml.
    version: String,
    /// The time in all files, in seconds since the epoch.
    timestamp: u64,
    /// The folder of the finished files.
    folder: PathBuf,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let release = Release {
        version: version(&workspace)?,
        timestamp: archive::timestamp(workspace.root())?,
        folder: workspace.root().join("target/dist"),
        workspace: &workspace,
    };
    if !arguments.made {
        make(&release, arguments)?;
    }
    if arguments.check {
        check::run(&release, &arguments.architecture, &arguments.mirror)?;
    }
    Ok(())
}

fn make(release: &Release<'_>, arguments: &Arguments) -> Result<()> {
    // Files of an earlier run would be summed as well.
    if release.folder.exists() {
        fs::remove_dir_all(&release.folder)
            .with_context(|| format!("could not empty {}", release.folder.display()))?;
    }
    fs::create_dir_all(&release.folder)
        .with_context(|| format!("could not create {}", release.folder.display()))?;
    let host = StaticCargo::new(release.workspace, Architecture::host()?, &arguments.mirror)?;
    let manual = staged::manual(release, &host)?;
    let mut files = Vec::new();
    let mut programs = Vec::new();
    for &architecture in &arguments.architecture {
        let cargo = StaticCargo::new(release.workspace, architecture, &arguments.mirror)?;
        let program = cargo.build("tcptrace-bpf", "tcptrace-bpf", "release")?;
        let staged = Staged::new(release, &manual, &program)?;
        let name = format!("tcptrace-bpf-{}-{architecture}", release.version);
        files.push(archive::pack(&staged.tree(), &name, release.timestamp, &release.folder)?);
        files.push(package::deb(release, architecture)?);
        files.push(package::rpm(release, architecture)?);
        programs.push((architecture, program));
    }
    files.push(image::write(release, &programs)?);
    files.push(sbom::write(release)?);
    files.push(archive::write_sums(&release.folder, &files)?);
    for file in files {
        eprintln!("{}", file.display());
    }
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
