//! Finds, chooses and installs the compiler and linker for the eBPF object.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::sidecar::Versions;
use crate::{packages, process, workspace::Workspace};

/// The Rust target of the programs: eBPF, little endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The bpf-linker version to install.
const LINKER_VERSION: &str = "0.13.0";

/// Debian's newest Rust, used only for the eBPF side. `libstd-rust-web-dev-bpf` contains `core` compiled for
/// the target; the compiler reads `core`'s source lines for BTF from `rust-web-src`.
const RUST_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "libstd-rust-web-dev-bpf"];

/// Error message for a machine without a toolchain.
pub(crate) const MISSING: &str = "no toolchain for the eBPF object is installed: run `cargo xtask ebpf --install` on \
     Debian, or elsewhere `rustup toolchain install nightly --component rust-src` and install a bpf-linker of the same \
     LLVM version";

/// A compiler and a linker that can build the object.
pub(crate) struct Toolchain {
    /// The compiler's cargo.
    pub(crate) cargo: PathBuf,
    /// The compiler itself, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// Whether the build must compile `core`, because it is not installed for the target.
    pub(crate) build_std: bool,
    /// Search path that contains `bpf-linker`.
    pub(crate) path: OsString,
    /// Versions that determine the object's bytes.
    pub(crate) versions: Versions,
}

impl Toolchain {
    /// Chooses an installed toolchain: the one that built the committed object, because only it can reproduce
    /// the bytes; else rustup's nightly, else Debian's. Returns `None` if there is none.
    ///
    /// With `install` and apt, installs Debian's toolchain first, unless the choice already matches.
    ///
    /// # Errors
    /// If a program cannot be run, the installation fails, or `install` is set and still no toolchain exists.
    pub(crate) fn choose(
        workspace: &Workspace,
        recorded: Option<&Versions>,
        install: bool,
    ) -> Result<Option<Self>> {
        let choice = Self::choose_installed(workspace, recorded)?;
        let matches = choice
            .as_ref()
            .is_some_and(|toolchain| recorded.is_none_or(|recorded| *recorded == toolchain.versions));
        if matches || !install {
            return Ok(choice);
        }
        if packages::apt_exists()? {
            install_debian(workspace)?;
        }
        let choice = Self::choose_installed(workspace, recorded)?;
        ensure!(choice.is_some(), MISSING);
        Ok(choice)
    }

    fn choose_installed(workspace: &Workspace, recorded: Option<&Versions>) -> Result<Option<Self>> {
        let mut installed = Self::installed(workspace)?;
        let position = installed.iter().position(|toolchain| Some(&toolchain.versions) == recorded);
        Ok((!installed.is_empty()).then(|| installed.swap_remove(position.unwrap_or(0))))
    }

    fn installed(workspace: &Workspace) -> Result<Vec<Self>> {
        let path = search_path(workspace)?;
        let Some(linker) = linker_version(&path)? else {
            return Ok(Vec::new());
        };
        let mut installed = Vec::new();
        for (cargo, rustc, build_std) in [nightly()?, debian()?].into_iter().flatten() {
            let Some((rustc_version, llvm)) = compiler_versions(&rustc)? else {
                continue;
            };
            let versions = Versions { rustc: rustc_version, llvm, bpf_linker: linker.clone() };
            installed.push(Self { cargo, rustc, build_std, path: path.clone(), versions });
        }
        Ok(installed)
    }
}

/// Returns rustup's nightly if it has the source of `core`, which must be compiled for this target.
fn nightly() -> Result<Option<(PathBuf, PathBuf, bool)>> {
    let which = |program| {
        process::probe(Command::new("rustup").args(["which", "--toolchain", "nightly", program]))
            .map(|answer| answer.map(|path| PathBuf::from(path.trim())))
    };
    let (Some(cargo), Some(rustc)) = (which("cargo")?, which("rustc")?) else {
        return Ok(None);
    };
    Ok(source_of_core(&rustc)?.map(|_| (cargo, rustc, true)))
}

/// Returns Debian's compiler if it has `core` for the target and its source.
fn debian() -> Result<Option<(PathBuf, PathBuf, bool)>> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    let libraries =
        process::probe(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let has_core = libraries.is_some_and(|folder| Path::new(folder.trim()).is_dir());
    if !has_core || !cargo.exists() || source_of_core(&rustc)?.is_none() {
        return Ok(None);
    }
    Ok(Some((cargo, rustc, false)))
}

/// Returns the folder of the compiler's library sources: the parent of `library`.
pub(crate) fn source_of_core(rustc: &Path) -> Result<Option<PathBuf>> {
    let sysroot = process::probe(Command::new(rustc).args(["--print", "sysroot"]))?;
    let source = sysroot.map(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust"));
    Ok(source.filter(|source| source.join("library/core/src/lib.rs").exists()))
}

/// Returns the compiler's version line and its LLVM version.
fn compiler_versions(rustc: &Path) -> Result<Option<(String, String)>> {
    let verbose = process::probe(Command::new(rustc).arg("-vV"))?;
    Ok(verbose.as_deref().and_then(parse_versions))
}

fn parse_versions(verbose: &str) -> Option<(String, String)> {
    let first = verbose.lines().next()?.trim();
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.trim();
    Some((first.to_owned(), llvm.to_owned()))
}

/// Returns the version of the `bpf-linker` in the search path.
fn linker_version(path: &OsString) -> Result<Option<String>> {
    let answer = process::probe(Command::new("env").env("PATH", path).args(["bpf-linker", "--version"]))?;
    Ok(answer.and_then(|line| line.trim().strip_prefix("bpf-linker ").map(str::to_owned)))
}

/// Returns the caller's search path, preceded by the workspace's tools.
fn search_path(workspace: &Workspace) -> Result<OsString> {
    let callers = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(workspace.tools().join("bin")).chain(env::split_paths(&callers))).context(
        "the workspace's path contains a colon, which a search path cannot contain: move the checkout",
    )
}

/// Installs Debian's compiler and, unless installed, a bpf-linker for the same LLVM.
fn install_debian(workspace: &Workspace) -> Result<()> {
    packages::ensure(RUST_PACKAGES)?;
    let (_, llvm) = compiler_versions(Path::new("/usr/bin/rustc"))?
        .context("/usr/bin/rustc does not print its LLVM version: reinstall Debian's rustc-web")?;
    let Some(major) = llvm.split('.').next().filter(|major| major.parse::<u16>().is_ok()) else {
        bail!(
            "/usr/bin/rustc prints LLVM version {llvm:?}, whose first part is not a number: reinstall rustc-web"
        );
    };

    if linker_version(&search_path(workspace)?)?.as_deref() == Some(LINKER_VERSION) {
        return Ok(());
    }
    let libraries = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
    packages::ensure(&[&libraries[0], &libraries[1], "libzstd-dev"])?;
    process::run(
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}"))
            // LLVM does the work and is compiled already; the linker itself is quick enough without optimization.
            .envs([
                ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
                ("CARGO_PROFILE_RELEASE_LTO", "off"),
                ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
                ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
            ])
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{major}"), "--root"])
            .arg(workspace.tools()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_from_rustc() {
        let answer =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let (rustc, llvm) = parse_versions(answer).unwrap();
        assert_eq!(rustc, "rustc 1.96.0 (ac68faa20 2026-05-25)");
        assert_eq!(llvm, "22.1.8");
    }

    #[test]
    fn version_output_without_llvm_is_rejected() {
        assert_eq!(parse_versions("rustc 1.96.0\nrelease: 1.96.0\n"), None);
        assert_eq!(parse_versions(""), None);
    }
}
