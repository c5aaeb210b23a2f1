//! Builds the guest's only file system.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    cpio::Archive,
    kernel::Kernel,
    modules,
    programs::{EXCLUDED, GuestPrograms},
    protocol::{ExcludedTests, PLAN, Plan, Suite},
};

const TRACER: &str = "/bin/tcptrace-bpf";

/// Mount points and folders that programs expect.
const FOLDERS: [&str; 8] = ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/etc", "/var"];

/// Files that programs read and that no package contains.
const FILES: [(&str, &str); 4] = [
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("/etc/group", "root:x:0:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/usr/lib/ssl/openssl.cnf", "[req]\ndistinguished_name = name\n[name]\n"),
];

/// How the tests run in the guest; see the fields of the same name in [`Plan`].
pub(crate) struct TestOptions {
    pub(crate) filters: Vec<String>,
    pub(crate) test_limit: u64,
    pub(crate) emulated: bool,
}

/// Writes the initramfs for a kernel.
pub(crate) fn write(
    path: &Path,
    kernel: &Kernel,
    programs: &GuestPrograms,
    tools: &[(String, std::path::PathBuf)],
    options: &TestOptions,
) -> Result<()> {
    let mut files: Vec<(String, Vec<u8>)> =
        FILES.iter().map(|(place, text)| ((*place).to_owned(), text.as_bytes().to_vec())).collect();
    let read = |from: &Path| fs::read(from).with_context(|| format!("could not read {}", from.display()));
    files.push(("/init".to_owned(), read(&programs.init)?));
    files.push((TRACER.to_owned(), read(&programs.tracer)?));
    for (place, from) in tools {
        files.push((place.clone(), read(from)?));
    }
    let mut plan = Plan {
        modules: Vec::new(),
        program: TRACER.to_owned(),
        suites: Vec::new(),
        filters: options.filters.clone(),
        excluded: EXCLUDED
            .iter()
            .map(|&(part, reason)| ExcludedTests { part: part.to_owned(), reason: reason.to_owned() })
            .collect(),
        test_limit: options.test_limit,
        emulated: options.emulated,
    };
    for (name, from) in &programs.suites {
        let path = format!("/tests/{name}");
        files.push((path.clone(), read(from)?));
        plan.suites.push(Suite { name: name.clone(), path });
    }
    for module in modules::resolve(&kernel.modules)? {
        let path = format!("/modules/{}.ko", module.name);
        files.push((path.clone(), module.bytes));
        plan.modules.push(path);
    }
    files.push((PLAN.to_owned(), serde_json::to_vec(&plan)?));

    let file = File::create(path).with_context(|| format!("could not create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in folders(&files) {
        archive.directory(&folder)?;
    }
    for (place, bytes) in &files {
        archive.file(place, bytes)?;
    }
    archive.finish()
}

/// Returns all folders of the files, parents before children.
fn folders(files: &[(String, Vec<u8>)]) -> BTreeSet<String> {
    let parents = files.iter().flat_map(|(place, _)| Path::new(place).ancestors().skip(1));
    let parents = parents.filter(|folder| folder.parent().is_some());
    parents.map(|folder| folder.display().to_string()).chain(FOLDERS.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_precede_their_content() {
        let files = ["/lib/x/y/z.so", "/init"].map(|place| (place.to_owned(), Vec::new()));
        let folders: Vec<_> =
            folders(&files).into_iter().filter(|folder| folder.starts_with("/lib")).collect();
        assert_eq!(folders, ["/lib", "/lib/x", "/lib/x/y"]);
    }
}
