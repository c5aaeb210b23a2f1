//! Writes the bill of materials: every crate in the program, with version, licence and checksum.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::Release;
use crate::{process, tools::CargoTool};

const CARGO_CYCLONEDX: CargoTool = CargoTool { name: "cargo-cyclonedx", version: "0.5.9" };

/// Folders of the members of the workspace.
const MEMBERS: [&str; 8] = [
    "tracer",
    "tracer-core",
    "tracer-core/testing",
    "tracer-ebpf",
    "xtask",
    "tests",
    "tests/witness",
    "bench",
];

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
    // The tool writes a list beside the manifest of each member of the workspace, with the paths of this machine.
    let root = release.workspace.root();
    let written = root.join("tracer").join(format!("{name}.json"));
    let text =
        fs::read_to_string(&written).with_context(|| format!("could not read {}", written.display()))?;
    for folder in MEMBERS {
        let _ = fs::remove_file(root.join(folder).join(format!("{name}.json")));
    }
    let file = release.folder.join(format!("{name}.json"));
    fs::write(&file, text.replace(&root.display().to_string(), "/tcptrace-bpf"))
        .with_context(|| format!("could not write {}", file.display()))?;
    Ok(file)
}
