//! The file beside the committed object: what it was made from, and by what.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What is known of a committed object. Nothing in it depends on the machine or the day.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sidecar {
    /// What went in.
    pub(crate) sources: Sources,
    /// What made the object.
    pub(crate) toolchain: Versions,
    /// What came out.
    pub(crate) object: Object,
}

/// What determines the object, apart from the toolchain.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sources {
    /// See [`super::sources::hash`]; hexadecimal.
    pub(crate) sha256: String,
}

/// The programs whose versions the bytes of the object depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Versions {
    /// The line that `rustc --version` prints.
    pub(crate) rustc: String,
    /// The version of LLVM that rustc contains.
    pub(crate) llvm: String,
    /// The version of bpf-linker, which must contain the same LLVM.
    pub(crate) bpf_linker: String,
}

/// The object's identity.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    /// Of the whole file; hexadecimal.
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: usize,
}

impl Object {
    /// The identity of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { sha256: hex(Sha256::new_with_prefix(bytes)), size: bytes.len() }
    }
}

impl Sidecar {
    /// Reads and parses the file.
    ///
    /// # Errors
    /// When it cannot be read, or does not hold exactly the fields above.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("could not read {}; `cargo xtask ebpf` writes it", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{} is damaged; `cargo xtask ebpf` writes it anew", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// The file's content.
    pub(crate) fn render(&self) -> Result<String> {
        let fields = toml::to_string(self).context("the sidecar could not be written as TOML")?;
        Ok(format!(
            "# What tcptrace.bpf.o was made from; `cargo xtask ebpf` writes it, `cargo xtask ebpf --check` holds it\n\
             # against the sources.\n\n{fields}"
        ))
    }
}

/// A finished hash in hexadecimal.
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
    fn what_is_written_is_read() {
        let text = sample().render().unwrap();
        assert_eq!(Sidecar::parse(&text).unwrap(), sample());
    }

    #[test]
    fn an_object_is_known_by_sha256_and_size() {
        let object = Object::of(b"abc");
        assert_eq!(object.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(object.size, 3);
    }

    #[test]
    fn errors_name_the_field() {
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
    fn a_missing_file_says_who_writes_it() {
        let error = Sidecar::read(Path::new("/nonexistent/tcptrace.bpf.toml")).unwrap_err();
        assert!(error.to_string().contains("cargo xtask ebpf"), "{error}");
    }
}
