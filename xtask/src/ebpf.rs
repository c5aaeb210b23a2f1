//! `cargo xtask ebpf`: builds the eBPF object, and compares the committed object with its sources.
//!
//! The object is committed so that building the tracer requires only stable Rust.

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

/// Builds the eBPF object from `tracer-ebpf` and writes it, with a record of its sources and toolchain, to
/// `tracer/bpf`
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail if the committed object does not match its sources
    #[arg(long)]
    check: bool,

    /// Install a missing toolchain from Debian packages. Implied by CI=true
    #[arg(long)]
    install: bool,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let install = arguments.install || in_ci();
    if arguments.check { check(&workspace, install) } else { write(&workspace, install) }
}

/// Returns whether this runs in continuous integration, where the machine is disposable.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Builds the object without changing the committed one, and returns its path.
///
/// # Errors
/// If no toolchain is installed and `install` is false, or the build fails.
pub(crate) fn rebuild(workspace: &Workspace, install: bool) -> Result<PathBuf> {
    build::build(workspace, &toolchain(workspace, install)?)?;
    Ok(workspace.rebuilt_object())
}

/// Chooses the toolchain: that of the committed object if it is installed.
fn toolchain(workspace: &Workspace, install: bool) -> Result<Toolchain> {
    // A missing or invalid sidecar is no error here: it is rewritten, or not needed.
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
        "{object_name} does not match its sidecar: run `cargo xtask ebpf` and commit both files"
    );
    ensure!(
        sources::hash(workspace.root())? == sidecar.sources.sha256,
        "{object_name} was built from other sources: run `cargo xtask ebpf` and commit both files"
    );

    let Some(toolchain) = Toolchain::choose(workspace, Some(&sidecar.toolchain), install)? else {
        eprintln!(
            "{object_name} matches the hash of its sources; it was not rebuilt: {}",
            toolchain::MISSING
        );
        return Ok(());
    };
    let rebuilt = build::build(workspace, &toolchain)?;
    if toolchain.versions != sidecar.toolchain {
        eprintln!(
            "warning: {object_name} was built by {}, LLVM {}, bpf-linker {}; here are {}, LLVM {}, bpf-linker {}, \
             which may produce other bytes. The sources compile, and their hash matches",
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
        "the recorded toolchain of {object_name} produces other bytes from these sources: compare it with {}, \
         then run `cargo xtask ebpf` and commit what it writes",
        name(workspace, &workspace.rebuilt_object())
    );
    eprintln!("{object_name} matches its sources byte for byte ({} bytes)", committed.len());
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("could not write {}", path.display()))
}

/// Returns a path relative to the workspace, for messages.
fn name(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(workspace.root()).unwrap_or(path).display().to_string()
}
