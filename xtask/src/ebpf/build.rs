//! Compiling and linking the object, so that its bytes do not depend on where that is done.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    object,
    toolchain::{TARGET, Toolchain, source_of_core},
};
use crate::{process, workspace::Workspace};

/// The compiler's flags, without those that name a place on this machine.
///
/// The architecture is named because aya-ebpf's bindings want one; nothing in the programs uses what it
/// selects. The source text travels in the debug information because LLVM otherwise reads the lines
/// for BTF from whatever lies at a file's path on the building machine.
pub(crate) const FLAGS: &[&str] = &[
    r#"--cfg=bpf_target_arch="x86_64""#,
    "-Cdebuginfo=2",
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
    "-Zdwarf-version=5",
    "-Zembed-source=yes",
];

/// Builds the object and returns its bytes, stripped. They are also in [`Workspace::rebuilt_object`].
///
/// # Errors
/// When cargo fails, which has then printed why, or the linked object is not what a loader needs.
pub(crate) fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let mut flags: Vec<OsString> = FLAGS.iter().map(Into::into).collect();
    for (from, to) in renamed_paths(workspace, toolchain)? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }

    let mut cargo = cargo(workspace, toolchain);
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f")))
        .args(["build", "--package", "tracer-ebpf", "--bin", "tcptrace", "--features", "programs"])
        .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(workspace.ebpf_target());
    if toolchain.build_std {
        cargo.args(["-Z", "build-std=core"]);
    }
    process::run(&mut cargo).with_context(|| {
        format!(
            "the eBPF object was not built; if bpf-linker could not read what the compiler made, it was built for \
             another LLVM than {}: remove it and run `cargo xtask ebpf --install`",
            toolchain.versions.llvm
        )
    })?;

    let linked = workspace.ebpf_target().join(TARGET).join("release/tcptrace");
    let linked =
        fs::read(&linked).with_context(|| format!("cargo left no object at {}", linked.display()))?;
    let stripped = object::strip_dwarf(&linked)?;
    let rebuilt = workspace.rebuilt_object();
    fs::write(&rebuilt, &stripped).with_context(|| format!("could not write {}", rebuilt.display()))?;
    Ok(stripped)
}

/// The toolchain's cargo, free of what the caller's cargo or environment would change about the build.
fn cargo(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    const CHANGE_THE_BUILD: &[&str] = &[
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "LD_LIBRARY_PATH",
        "RUSTC_",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    let mut cargo = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        if CHANGE_THE_BUILD.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(workspace.root())
        .env("PATH", &toolchain.path)
        .env("RUSTC", &toolchain.rustc)
        // The BPF target and its inline assembly are unstable; a released compiler takes them with this.
        .env("RUSTC_BOOTSTRAP", "1");
    cargo
}

/// Which places of this machine would show in the object, and what stands there instead. The compiler
/// takes the last one that fits.
fn renamed_paths(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut renamed = vec![(workspace.root().to_owned(), "/tcptrace-bpf")];
    if let Some(source) = source_of_core(&toolchain.rustc)? {
        renamed.push((source, "/rust"));
    }
    let mut metadata = cargo(workspace, toolchain);
    metadata.args(["metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]);
    let metadata = process::probe(&mut metadata)?.context(
        "`cargo metadata --locked` failed: if Cargo.lock is older than a Cargo.toml, run `cargo check` and commit it",
    )?;
    renamed.extend(registries(&metadata)?.into_iter().map(|folder| (folder, "/cargo")));
    Ok(renamed)
}

/// The folders below which cargo unpacked the crates that are not the workspace's own.
fn registries(metadata: &str) -> Result<BTreeSet<PathBuf>> {
    let metadata: serde_json::Value =
        serde_json::from_str(metadata).context("the answer of `cargo metadata` is not JSON")?;
    let packages =
        metadata["packages"].as_array().context("the answer of `cargo metadata` names no packages")?;
    Ok(packages
        .iter()
        .filter(|package| package["source"].is_string())
        .filter_map(|package| Path::new(package["manifest_path"].as_str()?).ancestors().nth(2))
        .map(Path::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_those_of_foreign_crates() {
        let metadata = r#"{"packages": [
            {"source": null, "manifest_path": "/w/tracer/Cargo.toml"},
            {"source": "registry+x", "manifest_path": "/home/a/.cargo/registry/src/i-1/clap-4/Cargo.toml"},
            {"source": "registry+x", "manifest_path": "/home/a/.cargo/registry/src/i-1/syn-2/Cargo.toml"}
        ]}"#;
        let found = registries(metadata).unwrap();
        assert_eq!(found, BTreeSet::from([PathBuf::from("/home/a/.cargo/registry/src/i-1")]));
    }

    #[test]
    fn metadata_that_is_none_is_an_error() {
        assert!(registries("").is_err());
        assert!(registries("{}").is_err());
    }
}
