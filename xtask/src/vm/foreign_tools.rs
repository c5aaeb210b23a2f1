//! Collects the tools of a guest whose architecture is not this machine's, from Debian packages.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _},
};

use super::programs::TOOLS;
use crate::{
    apt::{self, Apt},
    architecture::Architecture,
    workspace::Workspace,
};

/// Debian packages with [`TOOLS`].
const PACKAGES: [&str; 9] =
    ["bash", "coreutils", "curl", "dash", "iproute2", "mount", "nftables", "openssl", "util-linux"];

/// Folders of programs in a package.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Returns the tools and their shared libraries, as pairs of guest path and host path.
///
/// # Errors
/// If a package lacks a tool or a library.
pub(super) fn tools(
    workspace: &Workspace,
    architecture: Architecture,
    apt: &Apt,
) -> Result<Vec<(String, PathBuf)>> {
    let root = unpacked(workspace, architecture, apt)?;
    let libraries = ["usr/lib", "lib"].map(|folder| root.join(folder).join(architecture.gnu()));
    let mut files = BTreeMap::new();
    for name in TOOLS {
        let path = PROGRAMS
            .iter()
            .map(|folder| root.join(folder).join(name))
            .find_map(|path| resolved(&root, &path))
            .with_context(|| format!("Debian's packages for {architecture} lack {name}"))?;
        add_libraries(&path, &libraries, &mut files)?;
        files.insert(format!("/bin/{name}"), path);
    }
    // Every program names the loader by its path, which is the same in all distributions.
    let loader = match architecture {
        Architecture::X86_64 => "/lib64/ld-linux-x86-64.so.2",
        Architecture::Aarch64 => "/lib/ld-linux-aarch64.so.1",
    };
    let name = Path::new(loader).file_name().context("the loader's path has no file name")?;
    let file = libraries.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    files.insert(loader.to_owned(), file.with_context(|| format!("the package libc6 lacks {loader}"))?);
    Ok(files.into_iter().collect())
}

/// Downloads and unpacks the packages, unless they are already there.
fn unpacked(workspace: &Workspace, architecture: Architecture, apt: &Apt) -> Result<PathBuf> {
    let place = workspace.root().join("target/vm").join(format!("tools-{architecture}"));
    if place.exists() {
        return Ok(place);
    }
    // The folder is renamed when complete, so that an interrupted run leaves no incomplete folder.
    let partial = place.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let downloads = partial.join("downloads");
    fs::create_dir_all(downloads.join("partial"))
        .with_context(|| format!("could not create {}", downloads.display()))?;
    apt.download_with_dependencies(&PACKAGES, &downloads)?;
    apt::extract_all(&downloads, &partial)?;
    fs::rename(&partial, &place)
        .with_context(|| format!("could not rename {} to {}", partial.display(), place.display()))?;
    Ok(place)
}

/// Follows symbolic links within `root`; `None` if the file does not exist.
fn resolved(root: &Path, path: &Path) -> Option<PathBuf> {
    let Ok(target) = fs::read_link(path) else {
        return path.exists().then(|| path.to_owned());
    };
    let target = match target.strip_prefix("/") {
        Ok(inside) => root.join(inside),
        Err(_) => path.parent()?.join(target),
    };
    resolved(root, &target)
}

/// Adds the libraries that an ELF file needs, and those that they need.
fn add_libraries(file: &Path, folders: &[PathBuf], files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
    let needed = needed(&bytes).with_context(|| format!("{} is not an ELF program", file.display()))?;
    for name in needed {
        let guest = format!("/lib/{name}");
        if files.contains_key(&guest) {
            continue;
        }
        let path = folders
            .iter()
            .map(|folder| folder.join(&name))
            .find(|path| path.exists())
            .with_context(|| format!("{} needs {name}, which no package contains", file.display()))?;
        files.insert(guest, path.clone());
        add_libraries(&path, folders, files)?;
    }
    Ok(())
}

/// Returns the names of the libraries that an ELF file needs.
fn needed(bytes: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((dynamic, link)) = sections.dynamic(endian, bytes)? else {
        return Ok(Vec::new());
    };
    let strings = sections.strings(endian, bytes, link)?;
    dynamic
        .iter()
        .filter(|entry| entry.tag(endian) == DT_NEEDED)
        .map(|entry| Ok(String::from_utf8(entry.string(endian, strings)?.to_vec())?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_a_program_are_its_needed_entries() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = needed(&own).unwrap();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        assert!(needed(b"no program").is_err());
    }

    #[test]
    fn absolute_links_stay_within_the_root() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/real"), "").unwrap();
        std::os::unix::fs::symlink("/usr/bin/real", root.path().join("usr/bin/absolute")).unwrap();
        std::os::unix::fs::symlink("absolute", root.path().join("usr/bin/relative")).unwrap();
        let found = resolved(root.path(), &root.path().join("usr/bin/relative"));
        assert_eq!(found, Some(root.path().join("usr/bin/real")));
        assert_eq!(resolved(root.path(), &root.path().join("usr/bin/none")), None);
    }
}
