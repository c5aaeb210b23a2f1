//! Installs, runs and removes the files of a release in clean systems: Debian roots, an empty root, a booted systemd,
//! a container and a pod.

mod container;
mod debian;
mod elf;
mod pod;
mod red_hat;
mod root;
mod service;
mod tracer;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use self::root::Roots;
use super::{Release, image, package};
use crate::{
    apt::{self, Mirror},
    architecture::Architecture,
    packages, process,
};

/// Required Debian packages.
const PACKAGES: [&str; 7] =
    ["catatonit", "debootstrap", "podman", "rpm", "runc", "systemd", "systemd-container"];

/// Debian releases in which the archive's program must run, oldest first.
const SUITES: [&str; 3] = ["bullseye", "bookworm", "trixie"];

/// The release in which packages are installed.
const INSTALLED_IN: &str = "bookworm";

/// Checks the files in the release's folder. Programs of another architecture are inspected, but not run.
///
/// # Errors
/// On the first file that is wrong, and without root.
pub(super) fn run(release: &Release<'_>, architectures: &[Architecture], mirror: &Mirror) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the checks install packages into other roots: run `sudo -E cargo xtask dist --check`"
    );
    packages::ensure(&PACKAGES)?;
    let folder = release.workspace.root().join("target/check");
    let roots = Roots::new(&folder, apt::archive(mirror)?)?;
    process::run(Command::new("sha256sum").current_dir(&release.folder).args([
        "--check",
        "--strict",
        "SHA256SUMS",
    ]))?;
    for &architecture in architectures {
        let unpacked = unpacked(release, architecture, &folder)?;
        elf::check(&unpacked.join("bin/tcptrace-bpf"), architecture)?;
        debian::check_architecture(
            &release.folder.join(package::deb_name(&release.version, architecture)),
            architecture,
        )?;
        red_hat::check_architecture(
            &release.folder.join(package::rpm_name(&release.version, architecture)),
            architecture,
        )?;
        if architecture == Architecture::host()? {
            run_natively(release, architecture, &unpacked, &roots)?;
        }
        passed(format!("{architecture}: static program, architecture of both packages"));
    }
    Ok(())
}

fn run_natively(
    release: &Release<'_>,
    architecture: Architecture,
    unpacked: &Path,
    roots: &Roots,
) -> Result<()> {
    let program = unpacked.join("bin/tcptrace-bpf");
    let empty = roots.empty()?;
    tracer::traces_in(&empty, &program)?;
    passed("an empty root: the program traces");
    for suite in SUITES {
        let root = roots.debian(suite, &[])?;
        tracer::traces_in(&root, &program)?;
        passed(format!("Debian {suite}: the program traces"));
    }
    let deb = release.folder.join(package::deb_name(&release.version, architecture));
    debian::check(&roots.debian(INSTALLED_IN, &["systemd", "dbus"])?, &deb)?;
    passed("Debian package: installed, verified, purged without a trace");
    service::check(&roots.debian(INSTALLED_IN, &["systemd", "dbus"])?, &deb)?;
    passed("Debian package: the service runs under a booted systemd, metrics answer, the purge stops it");
    let rpm = release.folder.join(package::rpm_name(&release.version, architecture));
    red_hat::check(&roots.debian(INSTALLED_IN, &["systemd", "dbus"])?, &rpm)?;
    passed("RPM package: installed, verified, removed without a trace");
    let archive = release.folder.join(image::file_name(&release.version));
    let page = release.workspace.root().join("docs/install.md");
    let page = fs::read_to_string(&page).with_context(|| format!("could not read {}", page.display()))?;
    let (image, storage) = (image::name(&release.version), roots.folder().join("podman"));
    container::check(&archive, &image, &page, &storage)?;
    passed("image: loaded by podman, and traces the host");
    pod::check(release.workspace.root(), &format!("localhost/{image}"), &storage)?;
    passed("pod of the DaemonSet: played by podman, becomes ready and counts a connection");
    container::remove(&image, &storage)?;
    Ok(())
}

/// Unpacks the archive of an architecture.
fn unpacked(release: &Release<'_>, architecture: Architecture, folder: &Path) -> Result<std::path::PathBuf> {
    let to = folder.join(format!("archive-{architecture}"));
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).with_context(|| format!("could not create {}", to.display()))?;
    let name = format!("tcptrace-bpf-{}-{architecture}.tar.gz", release.version);
    process::run(
        Command::new("tar")
            .args(["--extract", "--strip-components=1", "--directory"])
            .arg(&to)
            .arg("--file")
            .arg(release.folder.join(name)),
    )?;
    Ok(to)
}

fn passed(what: impl std::fmt::Display) {
    eprintln!("passed: {what}");
}
