//! Accesses other Debian suites on the mirror that this machine's apt uses, without changing apt's state.
//!
//! The mirror comes from apt's configuration.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{architecture::Architecture, process};

/// Suites of the main archive, oldest first. Suites that are no longer on the mirror are
/// skipped.
const SUITES: [&str; 6] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky"];

/// Suites of the security archive.
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

/// Paths of Debian's keys in different releases of the package `debian-archive-keyring`.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Maximum age of the package lists.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Mirrors that override apt's configuration.
#[derive(Args)]
pub(crate) struct Mirror {
    /// Debian's archive. Default: the one in this machine's apt configuration
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,

    /// Debian's security archive. Default: the one in this machine's apt configuration
    #[arg(long, value_name = "URI")]
    security_mirror: Option<String>,
}

/// apt with a separate state, for the packages of one architecture.
pub(crate) struct Apt {
    folder: PathBuf,
    architecture: Architecture,
}

impl Apt {
    /// Prepares the state below `folder`, and downloads the package lists if they are older than a day.
    ///
    /// # Errors
    /// If apt has no Debian mirror and none is given, or no package list can be downloaded.
    pub(crate) fn new(folder: &Path, architecture: Architecture, mirror: &Mirror) -> Result<Self> {
        let folder = folder.join(architecture.debian());
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("could not create {}", folder.join(part).display()))?;
        }
        let apt = Self { folder, architecture };
        let sources = sources(architecture, mirror)?;
        let unchanged = fs::read_to_string(apt.sources()).is_ok_and(|old| old == sources);
        if !(unchanged && apt.is_fresh()) {
            fs::write(apt.sources(), sources)?;
            apt.update()?;
        }
        Ok(apt)
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    /// A file whose modification time is the time of the last update.
    fn stamp(&self) -> PathBuf {
        self.folder.join("updated")
    }

    fn is_fresh(&self) -> bool {
        let time = fs::metadata(self.stamp()).and_then(|file| file.modified()).ok();
        time.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < MAX_AGE)
    }

    fn update(&self) -> Result<()> {
        let updated = process::run(self.command("apt-get").args(["--quiet", "update"]));
        let packages = self.search("^linux-image-")?;
        if let Err(error) = updated {
            // A suite that is no longer on the mirror fails the whole update, but the others are usable.
            ensure!(!packages.is_empty(), "no package list could be downloaded: {error}");
            eprintln!("warning: some suites could not be downloaded: {error}");
        }
        fs::write(self.stamp(), "").context("could not write the time of the update")
    }

    /// Returns the records of packages whose names match a pattern.
    pub(crate) fn search(&self, pattern: &str) -> Result<Vec<PackageRecord>> {
        let text =
            process::probe(self.command("apt-cache").args(["search", "--full", "--names-only", pattern]))?
                .context("apt-cache search failed")?;
        Ok(text.split("\n\n").filter_map(PackageRecord::parse).collect())
    }

    /// Downloads packages into `folder`.
    pub(crate) fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        process::run(self.command("apt-get").current_dir(folder).args(["--quiet", "download"]).args(packages))
    }

    /// Downloads packages and all their dependencies into `folder`.
    pub(crate) fn download_with_dependencies(&self, packages: &[&str], folder: &Path) -> Result<()> {
        process::run(
            self.command("apt-get")
                .arg(format!("-oDir::Cache::archives={}", folder.display()))
                .args(["--quiet", "--yes", "--download-only", "--no-install-recommends", "install"])
                .args(packages),
        )
    }

    /// Returns an apt command that reads and writes only below the folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, value) in [
            ("Dir::Etc::sourcelist", self.sources()),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", self.folder.join("cache")),
            // As root, apt would download as another user, who may lack access to this folder.
            ("APT::Sandbox::User", "root".into()),
            ("APT::Architecture", self.architecture.debian().into()),
            ("APT::Architectures", self.architecture.debian().into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".into()),
        ] {
            command.arg(format!("-o{name}={}", value.display()));
        }
        command
    }
}

/// Extracts all packages in `folder` to `root`, removes them, and returns their number.
pub(crate) fn extract_all(folder: &Path, root: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            process::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(root))?;
            fs::remove_file(package)?;
            count += 1;
        }
    }
    Ok(count)
}

/// A package record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageRecord {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Names of its dependencies, including alternatives.
    pub(crate) depends: Vec<String>,
}

impl PackageRecord {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let depends = field("Depends").unwrap_or_default();
        Some(Self {
            name: field("Package")?,
            version: field("Version")?,
            depends: depends
                .split([',', '|'])
                .filter_map(|one| one.split_whitespace().next())
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// Returns the URI of Debian's archive.
///
/// # Errors
/// If apt has no Debian mirror and none is given.
pub(crate) fn archive(mirror: &Mirror) -> Result<String> {
    let archive = match &mirror.mirror {
        Some(uri) => Some(uri.clone()),
        None => known("Debian")?.pop_first(),
    };
    archive.context(
        "apt on this machine has no Debian archive: run `apt-get update` if it is Debian, or name one with \
         `--mirror URI`",
    )
}

/// Returns the URIs of the archives with a label in this machine's apt configuration.
fn known(label: &str) -> Result<BTreeSet<String>> {
    let targets = process::probe(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    ]))?
    .context("apt-get is not installed, but the files are Debian packages")?;
    let prefix = format!("Debian|{label}|");
    Ok(targets.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect())
}

/// Returns a sources.list with every suite that may have a kernel.
fn sources(architecture: Architecture, mirror: &Mirror) -> Result<String> {
    let archive = archive(mirror)?;
    let security = match &mirror.security_mirror {
        Some(uri) => Some(uri.clone()),
        None => known("Debian-Security")?.pop_first(),
    };
    let keys = KEYRINGS.iter().find(|path| Path::new(path).exists());
    let keys = keys.map(|path| format!(" signed-by={path}")).unwrap_or_default();
    let architecture = architecture.debian();
    let line = |uri: &str, suite: &str| format!("deb [arch={architecture}{keys}] {uri} {suite} main\n");
    let mut text: String = SUITES.iter().map(|suite| line(&archive, suite)).collect();
    if let Some(uri) = security {
        text.extend(SECURITY_SUITES.iter().map(|suite| line(&uri, suite)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_record_has_name_version_and_dependencies() {
        let text = "Package: linux-image-7.2.13+deb14-cloud-amd64\nSource: linux (7.2.13-1)\nVersion: 7.2.13-1\n\
                    Depends: dracut | initramfs-tools (>= 0.120), linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)\n\
                    Description: Linux 7.2.13\n Version: not this one\n";
        let record = PackageRecord::parse(text).unwrap();
        assert_eq!(record.name, "linux-image-7.2.13+deb14-cloud-amd64");
        assert_eq!(record.version, "7.2.13-1");
        assert_eq!(record.depends, ["dracut", "initramfs-tools", "linux-binary-7.2.13+deb14-cloud-amd64"]);
        assert_eq!(PackageRecord::parse("\n"), None);
    }
}
