//! Builds static programs for this and other architectures.
//!
//! A static program contains glibc and runs on any distribution. Another architecture needs Rust's standard library
//! for it: rustup's, if installed, else Debian's, with Debian's compiler of the same version.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt::{Apt, Mirror},
    architecture::Architecture,
    packages, process,
    workspace::Workspace,
};

/// Debian's newest Rust, for architectures whose standard library the caller's toolchain lacks.
const RUST_PACKAGES: [&str; 2] = ["rustc-web", "cargo-web"];

/// The Debian package with that compiler's standard library.
const STANDARD_LIBRARY: &str = "libstd-rust-web-dev";

/// A cargo that builds static programs for one architecture.
#[derive(Debug)]
pub(crate) struct StaticCargo {
    architecture: Architecture,
    root: PathBuf,
    /// The program, and the compiler if it is not the one that cargo would choose.
    cargo: OsString,
    rustc: Option<PathBuf>,
    /// The linker, if the target's is not this machine's.
    linker: Option<String>,
    flags: String,
    /// Cargo's target folder. Each compiler has its own: a second compiler in the same folder rebuilds everything.
    target: PathBuf,
}

impl StaticCargo {
    /// Finds the compiler, and installs what is missing.
    ///
    /// # Errors
    /// If a package is missing and cannot be installed.
    pub(crate) fn new(workspace: &Workspace, architecture: Architecture, mirror: &Mirror) -> Result<Self> {
        let foreign = architecture != Architecture::host()?;
        if foreign {
            packages::ensure(&architecture.cross_packages())?;
        }
        let linker = foreign.then(|| format!("{}-gcc", architecture.gnu()));
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        if has_standard_library(Path::new(&rustc), architecture)? {
            let flags = flags(workspace, None)?;
            let target = workspace.root().join("target/static");
            let root = workspace.root().to_owned();
            return Ok(Self { architecture, root, cargo, rustc: None, linker, flags, target });
        }
        packages::ensure(&RUST_PACKAGES)?;
        let sysroot = sysroot(workspace, architecture, mirror)?;
        Ok(Self {
            architecture,
            root: workspace.root().to_owned(),
            cargo: "/usr/bin/cargo".into(),
            rustc: Some("/usr/bin/rustc".into()),
            linker,
            flags: flags(workspace, Some(&sysroot))?,
            target: workspace.root().join("target/static-debian"),
        })
    }

    /// Returns cargo with a subcommand, such as `build`.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let target = self.architecture.target();
        let variable =
            |part: &str| format!("CARGO_TARGET_{}_{part}", target.to_uppercase().replace('-', "_"));
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(&self.root)
            .args([subcommand, "--locked", "--target", target])
            .env("CARGO_TARGET_DIR", &self.target)
            .env(variable("RUSTFLAGS"), &self.flags);
        if let Some(linker) = &self.linker {
            command.env(variable("LINKER"), linker);
        }
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc);
        }
        command
    }

    /// Builds a program in a profile and returns its path.
    ///
    /// # Errors
    /// If the build fails.
    pub(crate) fn build(&self, package: &str, program: &str, profile: &str) -> Result<PathBuf> {
        process::run(self.command("build").args([
            "--package",
            package,
            "--bin",
            program,
            "--profile",
            profile,
        ]))?;
        let folder = if profile == "dev" { "debug" } else { profile };
        Ok(self.target.join(self.architecture.target()).join(folder).join(program))
    }
}

/// Returns the flags of a static program that contains no path of the machine that built it.
///
/// It stays position independent, so that the kernel can place it at a random address.
fn flags(workspace: &Workspace, sysroot: Option<&Path>) -> Result<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set: set one, as cargo needs it as well")?;
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/cargo", home.display()),
        format!("--remap-path-prefix={}=/tcptrace-bpf", workspace.root().display()),
    ];
    flags.extend(sysroot.map(|sysroot| format!("--sysroot={}", sysroot.display())));
    ensure!(
        flags.iter().all(|flag| !flag.contains(' ')),
        "a path of the checkout or of cargo contains a space, which RUSTFLAGS cannot contain: move it"
    );
    Ok(flags.join(" "))
}

fn has_standard_library(rustc: &Path, architecture: Architecture) -> Result<bool> {
    let folder = process::probe(Command::new(rustc).args([
        "--print",
        "target-libdir",
        "--target",
        architecture.target(),
    ]))?;
    Ok(folder.is_some_and(|folder| Path::new(folder.trim()).is_dir()))
}

/// Returns a sysroot of Debian's compiler for another architecture. Unpacks the standard library if the compiler has
/// changed.
fn sysroot(workspace: &Workspace, architecture: Architecture, mirror: &Mirror) -> Result<PathBuf> {
    let version = process::probe(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Version}",
        RUST_PACKAGES[0],
    ]))?
    .context("dpkg-query does not know rustc-web, which has just been installed")?;
    let place =
        workspace.tools().join(format!("rust-{}-{}", architecture.debian(), version.replace('/', "_")));
    if place.join("lib").exists() {
        return Ok(place);
    }
    let apt = Apt::new(&workspace.root().join("target/apt"), architecture, mirror)?;
    let partial = place.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).with_context(|| format!("could not create {}", partial.display()))?;
    apt.download(&[format!("{STANDARD_LIBRARY}={version}")], &partial)
        .with_context(|| format!("the mirror has no {STANDARD_LIBRARY} {version} for {architecture}"))?;
    crate::apt::extract_all(&partial, &partial)?;
    // The compiler expects `lib/rustlib` in its sysroot; the package has it in /usr.
    symlink("usr/lib", partial.join("lib"))?;
    fs::rename(&partial, &place)
        .with_context(|| format!("could not rename {} to {}", partial.display(), place.display()))?;
    Ok(place)
}
