//! Compiles and links the object reproducibly: its bytes do not depend on the build machine.

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

/// Compiler flags, without those that contain a local path.
///
/// aya-ebpf's bindings require an architecture; the programs use nothing that depends on it. The source text
/// is embedded in the debug information because LLVM otherwise reads the lines for BTF from the file paths on
/// the build machine.
pub(crate) const FLAGS: &[&str] = &[
    r#"--cfg=bpf_target_arch="x86_64""#,
    "-Cdebuginfo=2",
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
    "-Zdwarf-version=5",
    "-Zembed-source=yes",
];

/// Builds the object and returns its stripped bytes. They are also in [`Workspace::rebuilt_object`].
///
/// # Errors
/// If cargo fails, after printing why, or the linked object lacks a section.
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
            "could not build the eBPF object; if bpf-linker could not read the compiler's output, it was built for another \
             LLVM than {}: remove it and run `cargo xtask ebpf --install`",
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

/// Returns the toolchain's cargo, without environment variables that change the build.
fn cargo(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    const BUILD_VARIABLES: &[&str] = &[
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
        if BUILD_VARIABLES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(workspace.root())
        .env("PATH", &toolchain.path)
        .env("RUSTC", &toolchain.rustc)
        // The BPF target and its inline assembly are unstable; this variable enables them in a stable
        // compiler.
        .env("RUSTC_BOOTSTRAP", "1");
    cargo
}

/// Returns local paths that would appear in the object, and their replacements. The compiler uses the last
/// one that matches.
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

/// Returns the folders where cargo unpacked external crates.
fn registries(metadata: &str) -> Result<BTreeSet<PathBuf>> {
    let metadata: serde_json::Value =
        serde_json::from_str(metadata).context("the output of `cargo metadata` is not JSON")?;
    let packages =
        metadata["packages"].as_array().context("the output of `cargo metadata` names no packages")?;
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
    fn registries_come_from_external_crates() {
        let metadata = r#"{"packages": [
            {"source": null, "manifest_path": "/w/tracer/Cargo.toml"},
            {"source": "registry+x", "manifest_path": "/home/a/.cargo/registry/src/i-1/clap-4/Cargo.toml"},
            {"source": "registry+x", "manifest_path": "/home/a/.cargo/registry/src/i-1/syn-2/Cargo.toml"}
        ]}"#;
        let found = registries(metadata).unwrap();
        assert_eq!(found, BTreeSet::from([PathBuf::from("/home/a/.cargo/registry/src/i-1")]));
    }

    #[test]
    fn invalid_metadata_is_an_error() {
        assert!(registries("").is_err());
        assert!(registries("{}").is_err());
    }
}
