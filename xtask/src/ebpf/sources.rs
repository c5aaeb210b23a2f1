//! Hashes everything that determines the object except the toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use super::{build, sidecar::hex};

/// The kernel-side crate, relative to the workspace's root.
const CRATE: &str = "tracer-ebpf";

/// Hashes the kernel-side files, the build flags, the relevant parts of the workspace's manifest, and the
/// locked aya-ebpf crates. User-space dependencies are not included.
///
/// # Errors
/// If a file cannot be read, or a manifest or the lock file cannot be parsed.
pub(crate) fn hash(root: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files(&root.join(CRATE))? {
        let content = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        add(&mut hash, name.as_os_str().as_encoded_bytes());
        add(&mut hash, &content);
    }
    for flag in build::FLAGS {
        add(&mut hash, flag.as_bytes());
    }
    for part in manifest_parts(&read_toml(&root.join("Cargo.toml"))?) {
        add(&mut hash, part.as_bytes());
    }
    for package in locked(&read_toml(&root.join("Cargo.lock"))?)? {
        add(&mut hash, package.as_bytes());
    }
    Ok(hex(hash))
}

/// Adds a value with its length, so that different lists of values have different bytes.
fn add(hash: &mut Sha256, value: &[u8]) {
    hash.update((value.len() as u64).to_le_bytes());
    hash.update(value);
}

/// Returns the Rust sources and manifests below a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let context = || format!("could not list {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(context)? {
            let entry = entry.with_context(context)?;
            let path = entry.path();
            if entry.file_type().with_context(context)?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                || path.file_name().is_some_and(|name| name == "Cargo.toml")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_toml(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not valid TOML", path.display()))
}

/// Returns the relevant parts of the workspace's manifest: the edition, the aya-ebpf dependency and the
/// release profile. A missing part is empty.
fn manifest_parts(manifest: &Table) -> Vec<String> {
    const PARTS: &[&[&str]] = &[
        &["workspace", "package", "edition"],
        &["workspace", "dependencies", "aya-ebpf"],
        &["profile", "release"],
    ];
    PARTS
        .iter()
        .map(|path| {
            let mut value = manifest.get(path[0]);
            for key in &path[1..] {
                value = value.and_then(|value| value.get(key));
            }
            value.map(Value::to_string).unwrap_or_default()
        })
        .collect()
}

/// Returns name, version and checksum of every locked aya-ebpf crate, sorted.
///
/// # Errors
/// If there is none, which means that the lock file belongs to another workspace.
fn locked(lock: &Table) -> Result<Vec<String>> {
    let text = |package: &Value, key| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut packages: Vec<String> = lock
        .get("package")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|package| text(package, "name").starts_with("aya-ebpf"))
        .map(|package| ["name", "version", "checksum"].map(|key| text(package, key)).join(" "))
        .collect();
    anyhow::ensure!(
        !packages.is_empty(),
        "Cargo.lock names no aya-ebpf crate: restore the committed one with `git checkout Cargo.lock`"
    );
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
        [[package]]
        name = "clap"
        version = "4.6.0"
        checksum = "c0"

        [[package]]
        name = "aya-ebpf-macros"
        version = "0.2.0"
        checksum = "a1"

        [[package]]
        name = "aya-ebpf"
        version = "0.2.1"
        checksum = "a0"
    "#;

    const MANIFEST: &str = r#"
        [workspace.package]
        edition = "2024"
        [workspace.dependencies]
        aya-ebpf = "0.2.1"
        clap = "4"
        [profile.release]
        lto = "thin"
    "#;

    /// A workspace in a temporary folder, removed on drop.
    struct Checkout(PathBuf);

    impl Checkout {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("xtask-sources-{}-{name}", std::process::id()));
            let checkout = Self(root);
            checkout.write("Cargo.toml", MANIFEST);
            checkout.write("Cargo.lock", LOCK);
            checkout.write("tracer-ebpf/Cargo.toml", "[package]");
            checkout.write("tracer-ebpf/src/lib.rs", "mod a;");
            checkout.write("tracer-ebpf/src/a/mod.rs", "");
            checkout
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn hash(&self) -> String {
            hash(&self.0).unwrap()
        }
    }

    impl Drop for Checkout {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn hash_is_independent_of_the_folder() {
        let hash = Checkout::new("one").hash();
        assert_eq!(hash, Checkout::new("another").hash());
        assert_eq!(hash.len(), 64);
    }

    #[test]
    fn kernel_side_changes_change_the_hash() {
        let before = Checkout::new("before").hash();
        for (index, (path, content)) in [
            ("tracer-ebpf/src/lib.rs", "mod b;".to_owned()),
            ("tracer-ebpf/src/b.rs", String::new()),
            ("tracer-ebpf/Cargo.toml", "[package] # changed".to_owned()),
            ("Cargo.lock", LOCK.replace("0.2.1", "0.2.2")),
            ("Cargo.lock", LOCK.replace("a1", "a2")),
            ("Cargo.toml", MANIFEST.replace("thin", "fat")),
            ("Cargo.toml", MANIFEST.replace("2024", "2021")),
        ]
        .iter()
        .enumerate()
        {
            let checkout = Checkout::new(&format!("changed-{index}"));
            checkout.write(path, content);
            assert_ne!(checkout.hash(), before, "{path} with {content}");
        }
    }

    #[test]
    fn user_space_changes_keep_the_hash() {
        let checkout = Checkout::new("user-space");
        let before = checkout.hash();
        checkout.write("Cargo.lock", &LOCK.replace("4.6.0", "4.7.0"));
        checkout.write("Cargo.toml", &MANIFEST.replace("clap = \"4\"", "clap = \"5\""));
        checkout.write("tracer-ebpf/README.md", "text");
        checkout.write("tracer/src/lib.rs", "");
        assert_eq!(checkout.hash(), before);
    }

    #[test]
    fn locked_crates_are_those_of_aya_ebpf_in_order() {
        let packages = locked(&LOCK.parse().unwrap()).unwrap();
        assert_eq!(packages, ["aya-ebpf 0.2.1 a0", "aya-ebpf-macros 0.2.0 a1"]);
    }

    #[test]
    fn lock_file_without_aya_ebpf_is_an_error() {
        for text in ["", "version = 4", "package = 3", "[[package]]\nname = 7"] {
            let error = locked(&text.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("aya-ebpf"), "{error}");
        }
    }
}
