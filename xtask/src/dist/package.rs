//! Makes Debian and RPM packages of the staged files. tracer/Cargo.toml lists their content.

use std::path::PathBuf;

use anyhow::Result;

use super::Release;
use crate::{architecture::Architecture, process, tools::CargoTool};

const CARGO_DEB: CargoTool = CargoTool { name: "cargo-deb", version: "3.8.0" };
const CARGO_GENERATE_RPM: CargoTool = CargoTool { name: "cargo-generate-rpm", version: "0.21.1" };

/// The revision of the packages of a version.
const REVISION: &str = "1";

/// Makes the Debian package of the staged architecture.
pub(super) fn deb(release: &Release<'_>, architecture: Architecture) -> Result<PathBuf> {
    let file = release.folder.join(deb_name(&release.version, architecture));
    process::run(
        CARGO_DEB
            .command(release.workspace)?
            .args(["deb", "--package", "tcptrace-bpf", "--no-build", "--no-strip", "--no-dbgsym", "--quiet"])
            .args(["--target", architecture.target(), "--deb-revision", REVISION, "--output"])
            .arg(&file)
            .env("SOURCE_DATE_EPOCH", release.timestamp.to_string()),
    )?;
    Ok(file)
}

/// Makes the RPM package of the staged architecture.
pub(super) fn rpm(release: &Release<'_>, architecture: Architecture) -> Result<PathBuf> {
    let file = release.folder.join(rpm_name(&release.version, architecture));
    process::run(
        CARGO_GENERATE_RPM
            .command(release.workspace)?
            // A static program requires nothing. Gzip is read by every version of rpm.
            .args([
                "generate-rpm",
                "--package",
                "tracer",
                "--auto-req",
                "disabled",
                "--payload-compress",
                "gzip",
            ])
            .args([
                "--arch",
                architecture.name(),
                "--source-date",
                &release.timestamp.to_string(),
                "--output",
            ])
            .arg(&file)
            .arg(format!("--set-metadata=release=\"{REVISION}\"")),
    )?;
    Ok(file)
}

/// Returns the usual name of a Debian package.
pub(super) fn deb_name(version: &str, architecture: Architecture) -> String {
    format!("tcptrace-bpf_{version}-{REVISION}_{}.deb", architecture.debian())
}

/// Returns the usual name of an RPM package.
pub(super) fn rpm_name(version: &str, architecture: Architecture) -> String {
    format!("tcptrace-bpf-{version}-{REVISION}.{architecture}.rpm")
}
