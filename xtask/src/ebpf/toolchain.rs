//! Which compiler and linker build the eBPF object: finding them, choosing, installing.

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

/// The bpf-linker that is installed when there is none.
const LINKER_VERSION: &str = "0.13.0";

/// Debian's newest Rust, for the eBPF side only; `libstd-rust-web-dev-bpf` is `core` already compiled for
/// the target, and `rust-web-src` is where the compiler takes `core`'s source lines from for BTF.
const RUST_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "libstd-rust-web-dev-bpf"];

/// The sentence for a machine on which nothing can build the object.
pub(crate) const MISSING: &str = "no toolchain for the eBPF object is installed: run `cargo xtask ebpf --install` on \
     Debian, or elsewhere `rustup toolchain install nightly --component rust-src` and install a bpf-linker of the same \
     LLVM version";

/// A compiler and a linker that can build the object.
pub(crate) struct Toolchain {
    /// The compiler's cargo.
    pub(crate) cargo: PathBuf,
    /// The compiler itself, not rustup's stand-in for it.
    pub(crate) rustc: PathBuf,
    /// Whether `core` has to be compiled as well, because the target's is not installed.
    pub(crate) build_std: bool,
    /// The search path in which the linker is found as `bpf-linker`.
    pub(crate) path: OsString,
    /// What the bytes of the object depend on.
    pub(crate) versions: Versions,
}

impl Toolchain {
    /// Chooses among the installed toolchains: the one that built the committed object, because only it
    /// can reproduce the bytes; else rustup's nightly, else Debian's. `None` when there is no other.
    ///
    /// With `install`, Debian's is installed first where apt exists, unless the choice is good already.
    ///
    /// # Errors
    /// When a program that exists cannot be run, the installation fails, or `install` was asked for and
    /// still nothing can build the object.
    pub(crate) fn choose(
        workspace: &Workspace,
        recorded: Option<&Versions>,
        install: bool,
    ) -> Result<Option<Self>> {
        let choice = Self::choose_installed(workspace, recorded)?;
        let good = choice
            .as_ref()
            .is_some_and(|toolchain| recorded.is_none_or(|recorded| *recorded == toolchain.versions));
        if good || !install {
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

/// rustup's nightly, when it has the source of `core`, which it must compile for this target.
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

/// Debian's compiler, when it has `core` for the target and its source.
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

/// Where the compiler's own library sources are: the folder above `library`.
pub(crate) fn source_of_core(rustc: &Path) -> Result<Option<PathBuf>> {
    let sysroot = process::probe(Command::new(rustc).args(["--print", "sysroot"]))?;
    let source = sysroot.map(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust"));
    Ok(source.filter(|source| source.join("library/core/src/lib.rs").exists()))
}

/// The compiler's version line, and the version of its LLVM.
fn compiler_versions(rustc: &Path) -> Result<Option<(String, String)>> {
    let verbose = process::probe(Command::new(rustc).arg("-vV"))?;
    Ok(verbose.as_deref().and_then(parse_versions))
}

fn parse_versions(verbose: &str) -> Option<(String, String)> {
    let first = verbose.lines().next()?.trim();
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.trim();
    Some((first.to_owned(), llvm.to_owned()))
}

/// The version of the `bpf-linker` in the search path.
fn linker_version(path: &OsString) -> Result<Option<String>> {
    let answer = process::probe(Command::new("env").env("PATH", path).args(["bpf-linker", "--version"]))?;
    Ok(answer.and_then(|line| line.trim().strip_prefix("bpf-linker ").map(str::to_owned)))
}

/// The caller's search path behind the workspace's own tools.
fn search_path(workspace: &Workspace) -> Result<OsString> {
    let callers = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(workspace.tools().join("bin")).chain(env::split_paths(&callers)))
        .context("the workspace's path holds a colon, which no search path can express: move the checkout")
}

/// Installs Debian's compiler and, unless it is there, a bpf-linker made for the same LLVM.
fn install_debian(workspace: &Workspace) -> Result<()> {
    packages::ensure(RUST_PACKAGES)?;
    let (_, llvm) = compiler_versions(Path::new("/usr/bin/rustc"))?
        .context("/usr/bin/rustc does not say its LLVM version: reinstall Debian's rustc-web")?;
    let Some(major) = llvm.split('.').next().filter(|major| major.parse::<u16>().is_ok()) else {
        bail!(
            "/usr/bin/rustc says LLVM version {llvm:?}, of which the first part is not a number: reinstall rustc-web"
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
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"])
            .args(["--features", &format!("llvm-{major}"), "--root"])
            .arg(workspace.tools()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_compilers_answer() {
        let answer =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let (rustc, llvm) = parse_versions(answer).unwrap();
        assert_eq!(rustc, "rustc 1.96.0 (ac68faa20 2026-05-25)");
        assert_eq!(llvm, "22.1.8");
    }

    #[test]
    fn an_answer_without_llvm_is_no_compiler_for_this() {
        assert_eq!(parse_versions("rustc 1.96.0\nrelease: 1.96.0\n"), None);
        assert_eq!(parse_versions(""), None);
    }
}
