//! Writes the bill of materials: every crate in the program, with version, licence and checksum.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::Release;
use crate::{process, tools::CargoTool};

const CARGO_CYCLONEDX: CargoTool = CargoTool { name: "cargo-cyclonedx", version: "0.5.9" };

/// Writes the list in CycloneDX, which scanners read.
///
/// It is a file beside the program and not data within, because then the packed program is the one that cargo builds.
pub(super) fn write(release: &Release<'_>) -> Result<PathBuf> {
    let name = format!("tcptrace-bpf-{}.cdx", release.version);
    process::run(
        CARGO_CYCLONEDX
            .command(release.workspace)?
            .args(["cyclonedx", "--manifest-path", "tracer/Cargo.toml", "--format", "json", "--quiet"])
            .args(["--override-filename", &name])
            .env("SOURCE_DATE_EPOCH", release.timestamp.to_string()),
    )?;
    let written = release.workspace.root().join("tracer").join(format!("{name}.json"));
    let file = release.folder.join(format!("{name}.json"));
    fs::rename(&written, &file)
        .with_context(|| format!("could not rename {} to {}", written.display(), file.display()))?;
    Ok(file)
}
