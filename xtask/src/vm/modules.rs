//! Finds and unpacks kernel modules with their dependencies. The guest has no modprobe.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use object::read::elf::{ElfFile64, FileHeader as _};
use object::{Object as _, ObjectSection as _};

/// Modules that the tests use, unless they are built in.
const WANTED: &[&str] = &[
    "tun",
    "veth",
    "dummy",
    "inet_diag",
    "tcp_diag",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_counter",
    "nft_ct",
    "nft_limit",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_quota",
    "nft_reject_inet",
    "nft_tproxy",
    "sch_netem",
];

/// A module to load.
pub(crate) struct Module {
    /// Its name.
    pub(crate) name: String,
    /// The unpacked file.
    pub(crate) bytes: Vec<u8>,
}

/// Returns the wanted modules and their dependencies, dependencies first.
///
/// # Errors
/// If a module cannot be read or unpacked. Missing modules are skipped: they are built in, or this kernel
/// does not have them.
pub(crate) fn resolve(folder: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(folder, &mut files)?;
    let mut order = DependencyOrder { files: &files, seen: HashSet::new(), modules: Vec::new() };
    for name in WANTED {
        order.add(name)?;
    }
    Ok(order.modules)
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(module_name(name), entry.path());
        }
    }
    Ok(())
}

/// Replaces `-`, which file names use, by the kernel's `_`.
fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

struct DependencyOrder<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    seen: HashSet<String>,
    modules: Vec<Module>,
}

impl DependencyOrder<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        let Some(path) = self.files.get(name) else { return Ok(()) };
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let bytes = unpacked(path)?;
        let dependencies =
            dependencies(&bytes).with_context(|| format!("{} is not a module", path.display()))?;
        for dependency in dependencies {
            self.add(&dependency)?;
        }
        self.modules.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("could not read {}", path.display())),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .with_context(|| format!("could not start {program} to unpack {}", path.display()))?;
    ensure!(output.status.success(), "{program} could not unpack {}", path.display());
    Ok(output.stdout)
}

/// Returns the modules in the line `depends=` of the section `.modinfo`, written by modpost
/// (`scripts/mod/modpost.c`).
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = ElfFile64::<object::Endianness>::parse(module)?;
    ensure!(file.elf_header().e_type(file.endian()) == object::elf::ET_REL, "it is not relocatable");
    let section = file.section_by_name(".modinfo").context("it has no section .modinfo")?;
    let lines = section.data()?.split(|&byte| byte == 0).filter_map(|line| std::str::from_utf8(line).ok());
    let depends = lines.filter_map(|line| line.strip_prefix("depends=")).next_back().unwrap_or_default();
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(module_name).collect())
}
