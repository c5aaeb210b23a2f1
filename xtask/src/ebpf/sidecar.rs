//! Reads and writes the sidecar of the committed object, which records its sources and toolchain.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Origin of a committed object, independent of machine and date.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sidecar {
    /// The sources.
    pub(crate) sources: Sources,
    /// The toolchain.
    pub(crate) toolchain: Versions,
    /// The object.
    pub(crate) object: Object,
}

/// Everything that determines the object except the toolchain.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sources {
    /// See [`super::sources::hash`]; hexadecimal.
    pub(crate) sha256: String,
}

/// Versions of the programs that determine the object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Versions {
    /// The output of `rustc --version`.
    pub(crate) rustc: String,
    /// The version of rustc's LLVM.
    pub(crate) llvm: String,
    /// The version of bpf-linker, which must use the same LLVM.
    pub(crate) bpf_linker: String,
}

/// The object's identity.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    /// SHA-256 of the file; hexadecimal.
    pub(crate) sha256: String,
    /// Size in bytes.
    pub(crate) size: usize,
}

impl Object {
    /// Returns the identity of an object.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { sha256: hex(Sha256::new_with_prefix(bytes)), size: bytes.len() }
    }
}

impl Sidecar {
    /// Reads and parses the file.
    ///
    /// # Errors
    /// If the file cannot be read, or does not have exactly the fields above.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("could not read {}; `cargo xtask ebpf` writes it", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{} is invalid; `cargo xtask ebpf` rewrites it", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Returns the file's content.
    pub(crate) fn render(&self) -> Result<String> {
        let fields = toml::to_string(self).context("could not render the sidecar as TOML")?;
        Ok(format!(
            "# Sources and toolchain of tcptrace.bpf.o. Written by `cargo xtask ebpf`; `cargo xtask ebpf --check`\n\
             # compares it with the sources.\n\n{fields}"
        ))
    }
}

/// Returns a hash in hexadecimal.
pub(crate) fn hex(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sidecar {
        Sidecar {
            sources: Sources { sha256: "ab".repeat(32) },
            toolchain: Versions {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
                llvm: "22.1.8".to_owned(),
                bpf_linker: "0.13.0".to_owned(),
            },
            object: Object::of(b"abc"),
        }
    }

    #[test]
    fn sidecar_round_trips() {
        let text = sample().render().unwrap();
        assert_eq!(Sidecar::parse(&text).unwrap(), sample());
    }

    #[test]
    fn object_has_sha256_and_size() {
        let object = Object::of(b"abc");
        assert_eq!(object.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(object.size, 3);
    }

    #[test]
    fn parse_errors_name_the_field() {
        let text = sample().render().unwrap();
        for (from, to, field) in [
            ("size = 3\n", "", "size"),
            ("size = 3", "size = -1", "size"),
            ("size = 3", "size = \"3\"", "size"),
            ("llvm = ", "clang = ", "clang"),
        ] {
            let damaged = text.replace(from, to);
            assert_ne!(damaged, text);
            let error = format!("{:#}", Sidecar::parse(&damaged).unwrap_err());
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn missing_sidecar_error_names_the_command() {
        let error = Sidecar::read(Path::new("/nonexistent/tcptrace.bpf.toml")).unwrap_err();
        assert!(error.to_string().contains("cargo xtask ebpf"), "{error}");
    }
}
