//! `cargo xtask ebpf`: building the eBPF object, and holding the committed one against its sources.
//!
//! The object is committed so that building the tracer takes stable Rust and nothing else.

mod build;
mod object;
pub(crate) mod sidecar;
mod sources;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{
    sidecar::{Object, Sidecar, Sources},
    toolchain::Toolchain,
};
use crate::workspace::Workspace;

/// Builds the eBPF object from `tracer-ebpf` and writes it, with what it was made from, to `tracer/bpf`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when the committed object is not what the sources make.
    #[arg(long)]
    check: bool,

    /// Install the toolchain from Debian's packages when it is missing. Implied by CI=true.
    #[arg(long)]
    install: bool,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let install = arguments.install || in_ci();
    if arguments.check { check(&workspace, install) } else { write(&workspace, install) }
}

/// Whether this runs in continuous integration, where the machine is disposable.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Builds the object from the sources without committing it, and returns where it is.
///
/// # Errors
/// When no toolchain is installed and `install` does not allow to change that, or the build fails.
pub(crate) fn rebuild(workspace: &Workspace, install: bool) -> Result<PathBuf> {
    build::build(workspace, &toolchain(workspace, install)?)?;
    Ok(workspace.rebuilt_object())
}

/// The toolchain to build with, the committed object's own if that is installed.
fn toolchain(workspace: &Workspace, install: bool) -> Result<Toolchain> {
    // A sidecar that is missing or damaged is about to be written, or not needed.
    let recorded = Sidecar::read(&workspace.sidecar()).ok();
    let recorded = recorded.as_ref().map(|sidecar| &sidecar.toolchain);
    Toolchain::choose(workspace, recorded, install)?.context(toolchain::MISSING)
}

fn write(workspace: &Workspace, install: bool) -> Result<()> {
    let toolchain = toolchain(workspace, install)?;
    let bytes = build::build(workspace, &toolchain)?;
    let sidecar = Sidecar {
        sources: Sources { sha256: sources::hash(workspace.root())? },
        toolchain: toolchain.versions,
        object: Object::of(&bytes),
    };
    save(&workspace.committed_object(), &bytes)?;
    save(&workspace.sidecar(), sidecar.render()?.as_bytes())?;
    eprintln!(
        "wrote {}: {} bytes, by {}",
        name(workspace, &workspace.committed_object()),
        bytes.len(),
        sidecar.toolchain.rustc
    );
    Ok(())
}

fn check(workspace: &Workspace, install: bool) -> Result<()> {
    let object_path = workspace.committed_object();
    let object_name = name(workspace, &object_path);
    let sidecar = Sidecar::read(&workspace.sidecar())?;
    let committed = fs::read(&object_path)
        .with_context(|| format!("could not read {object_name}; `cargo xtask ebpf` writes it"))?;
    ensure!(
        Object::of(&committed) == sidecar.object,
        "{object_name} is not the object its sidecar describes: run `cargo xtask ebpf` and commit both files"
    );
    ensure!(
        sources::hash(workspace.root())? == sidecar.sources.sha256,
        "{object_name} was built from other sources than these: run `cargo xtask ebpf` and commit what it writes"
    );

    let Some(toolchain) = Toolchain::choose(workspace, Some(&sidecar.toolchain), install)? else {
        eprintln!("{object_name} fits its sources by hash; it was not rebuilt: {}", toolchain::MISSING);
        return Ok(());
    };
    let rebuilt = build::build(workspace, &toolchain)?;
    if toolchain.versions != sidecar.toolchain {
        eprintln!(
            "warning: {object_name} was built by {}, LLVM {}, bpf-linker {}; here are {}, LLVM {}, bpf-linker {}, \
             which need not make the same bytes. The sources compile, and their hash fits",
            sidecar.toolchain.rustc,
            sidecar.toolchain.llvm,
            sidecar.toolchain.bpf_linker,
            toolchain.versions.rustc,
            toolchain.versions.llvm,
            toolchain.versions.bpf_linker,
        );
        return Ok(());
    }
    ensure!(
        rebuilt == committed,
        "the toolchain that is recorded for {object_name} makes other bytes from these sources: compare it with {}, \
         then run `cargo xtask ebpf` and commit what it writes",
        name(workspace, &workspace.rebuilt_object())
    );
    eprintln!("{object_name} is what the sources make, byte for byte ({} bytes)", committed.len());
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("could not write {}", path.display()))
}

/// A path as people know it: relative to the workspace.
fn name(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(workspace.root()).unwrap_or(path).display().to_string()
}
