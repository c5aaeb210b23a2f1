//! Writes the container image: an OCI archive with the program for each architecture and nothing else.
//!
//! The formats are those of the OCI Image Format Specification 1.1: image-layout.md, image-index.md, manifest.md and
//! config.md.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Release, archive};
use crate::{architecture::Architecture, ebpf::sidecar::hex, process};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The port of the agent, from deploy/systemd/tcptrace-bpf.toml.
const PORT: &str = "10793/tcp";

/// Writes the archive.
pub(super) fn write(release: &Release<'_>, programs: &[(Architecture, PathBuf)]) -> Result<PathBuf> {
    let folder = release.workspace.root().join("target/image");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("could not empty {}", folder.display()))?;
    }
    let layout = Layout { blobs: folder.join("layout/blobs/sha256") };
    fs::create_dir_all(&layout.blobs)
        .with_context(|| format!("could not create {}", layout.blobs.display()))?;
    let mut manifests = Vec::new();
    for (architecture, program) in programs {
        let layer = Layer::pack(release, &folder.join(architecture.name()), program)?;
        let mut manifest = layout.manifest(release, *architecture, &layer)?;
        manifest["platform"] = json!({"architecture": architecture.oci(), "os": "linux"});
        manifests.push(manifest);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let mut index = layout.add_json(INDEX, &index)?;
    index["annotations"] = json!({"org.opencontainers.image.ref.name": name(&release.version)});
    let files = [
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ("index.json", json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]})),
    ];
    for (name, content) in files {
        let path = folder.join("layout").join(name);
        fs::write(&path, serde_json::to_vec(&content)?)
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    let file = release.folder.join(file_name(&release.version));
    process::run(archive::tar(&folder.join("layout"), release.timestamp).arg("--file").arg(&file).args([
        "oci-layout",
        "index.json",
        "blobs",
    ]))?;
    Ok(file)
}

/// Returns the name of the archive.
pub(super) fn file_name(version: &str) -> String {
    format!("tcptrace-bpf-{version}-oci.tar")
}

/// Returns the name of the image.
pub(super) fn name(version: &str) -> String {
    format!("tcptrace-bpf:{version}")
}

/// A packed layer.
struct Layer {
    compressed: Vec<u8>,
    /// SHA-256 of the layer before compression.
    diff_id: String,
}

impl Layer {
    /// Packs a program and the folders that it needs.
    fn pack(release: &Release<'_>, folder: &Path, program: &Path) -> Result<Self> {
        let root = folder.join("root");
        for name in ["usr/bin", "usr/share/doc/tcptrace-bpf"] {
            fs::create_dir_all(root.join(name))?;
        }
        let place = root.join("usr/bin/tcptrace-bpf");
        fs::copy(program, &place).with_context(|| format!("could not copy {}", program.display()))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
            fs::copy(
                release.workspace.root().join(licence),
                root.join("usr/share/doc/tcptrace-bpf").join(licence),
            )?;
        }
        let tar = folder.join("layer.tar");
        process::run(archive::tar(&root, release.timestamp).arg("--file").arg(&tar).arg("usr"))?;
        let diff_id = digest(&fs::read(&tar)?);
        process::run(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(&tar))?;
        let compressed = folder.join("layer.tar.gz");
        let compressed =
            fs::read(&compressed).with_context(|| format!("could not read {}", compressed.display()))?;
        Ok(Self { compressed, diff_id })
    }
}

/// The folder of an image layout.
struct Layout {
    blobs: PathBuf,
}

impl Layout {
    /// Adds the image of an architecture and returns the descriptor of its manifest.
    fn manifest(&self, release: &Release<'_>, architecture: Architecture, layer: &Layer) -> Result<Value> {
        let created = Timestamp::from_second(i64::try_from(release.timestamp)?)?.to_string();
        let labels = json!({
            "org.opencontainers.image.title": "tcptrace-bpf",
            "org.opencontainers.image.description": "Traces every TCP state transition of a Linux host",
            "org.opencontainers.image.version": release.version,
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            "org.opencontainers.image.created": created,
        });
        let config = json!({
            "architecture": architecture.oci(),
            "os": "linux",
            "created": created,
            "config": {
                "Entrypoint": ["/usr/bin/tcptrace-bpf"],
                "Env": ["PATH=/usr/bin"],
                "ExposedPorts": {PORT: {}},
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": created, "comment": "tcptrace-bpf"}],
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add_json(CONFIG, &config)?,
            "layers": [self.add(LAYER, &layer.compressed)?],
            "annotations": labels,
        });
        self.add_json(MANIFEST, &manifest)
    }

    fn add_json(&self, media_type: &str, content: &Value) -> Result<Value> {
        self.add(media_type, &serde_json::to_vec(content)?)
    }

    /// Adds a blob and returns its descriptor.
    fn add(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        let path = self.blobs.join(digest.trim_start_matches("sha256:"));
        fs::write(&path, bytes).with_context(|| format!("could not write {}", path.display()))?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(Sha256::new_with_prefix(bytes)))
}
