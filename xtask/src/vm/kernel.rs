//! Chooses the newest Debian kernel of a series and unpacks it.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt::{self, Apt, PackageRecord},
    architecture::Architecture,
};

/// The series of x86-64: each long-term series from the oldest supported one on, the series used for
/// development, and the newest kernel.
pub(crate) const SERIES: [Series; 5] =
    [Series::Of(5, 10), Series::Of(6, 1), Series::Of(6, 12), Series::Of(6, 18), Series::Newest];

/// Series that an architecture must pass, and that docs/compatibility.md lists. What depends on the kernel's version is
/// the same on all architectures; a second one needs a kernel with every feature.
pub(crate) const fn documented(architecture: Architecture) -> &'static [Series] {
    match architecture {
        Architecture::X86_64 => &SERIES,
        Architecture::Aarch64 => &[Series::Of(6, 12)],
    }
}

/// A kernel series; the newest kernel of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Major and minor version, such as 6.12.
    Of(u32, u32),
    /// The newest kernel of all series.
    Newest,
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::Of(major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| format!("`{text}` is not a kernel series: use 5.10, 6.12 or newest"))
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Of(major, minor) => write!(f, "{major}.{minor}"),
            Self::Newest => f.write_str("newest"),
        }
    }
}

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// The release, as in `uname -r`.
    pub(crate) release: String,
    /// The image that qemu boots.
    pub(crate) image: PathBuf,
    /// The folder with its modules.
    pub(crate) modules: PathBuf,
}

/// Downloads and unpacks the newest kernel of a series, unless it is already there.
///
/// # Errors
/// If the mirror has no such kernel, or the packages lack a file.
pub(crate) fn obtain(apt: &Apt, architecture: Architecture, series: Series, folder: &Path) -> Result<Kernel> {
    let pattern = format!("^linux-image-[0-9.]*[0-9].*-cloud-{}$", architecture.debian());
    let record = newest(apt.search(&pattern)?, series)
        .with_context(|| format!("the mirror's suites have no kernel {series}"))?;
    let release = record.name.trim_start_matches("linux-image-").to_owned();
    // The folder name includes the package version, because a rebuilt kernel can keep its release.
    let place = folder.join(format!("{release}_{}", record.version));
    if !place.exists() {
        unpack(apt, &record, folder, &place)
            .with_context(|| format!("the kernel {release} could not be unpacked"))?;
    }
    let image = ["boot/vmlinuz-RELEASE", "usr/lib/modules/RELEASE/vmlinuz", "lib/modules/RELEASE/vmlinuz"]
        .map(|path| place.join(path.replace("RELEASE", &release)))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("the packages of {release} have no kernel image at a known path"))?;
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|path| place.join(path).join(&release))
        .into_iter()
        .find(|path| path.join("kernel").exists())
        .with_context(|| format!("the packages of {release} have no modules"))?;
    Ok(Kernel { release, image, modules })
}

fn newest(records: Vec<PackageRecord>, series: Series) -> Option<PackageRecord> {
    records
        .into_iter()
        .filter_map(|record| Some((version(&record.version)?, record)))
        .filter(|(version, _)| match series {
            Series::Newest => true,
            Series::Of(major, minor) => version[..2] == [major, minor],
        })
        .max_by(|(a, left), (b, right)| (a, &left.name).cmp(&(b, &right.name)))
        .map(|(_, record)| record)
}

/// Returns the kernel version in a package version, such as 6.12.107 in `6.12.107-1~deb12u1`.
fn version(text: &str) -> Option<[u32; 3]> {
    let mut numbers = text.split(['-', '~', '+']).next()?.split('.').map(str::parse);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some([major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)])
}

fn unpack(apt: &Apt, record: &PackageRecord, folder: &Path, place: &Path) -> Result<()> {
    // The folder is renamed when complete, so that an interrupted run leaves no incomplete kernel.
    let partial = folder.join("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    // Since 7.0 the image and the modules are separate packages.
    let parts = |name: &&String| name.starts_with("linux-binary-") || name.starts_with("linux-modules-");
    let mut packages = vec![record.name.clone()];
    packages.extend(record.depends.iter().filter(parts).cloned());
    apt.download(&packages, &partial)?;
    let unpacked = apt::extract_all(&partial, &partial)?;
    ensure!(unpacked == packages.len(), "apt downloaded {unpacked} packages, not {}", packages.len());
    fs::rename(&partial, place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, version: &str) -> PackageRecord {
        PackageRecord { name: name.to_owned(), version: version.to_owned(), depends: Vec::new() }
    }

    #[test]
    fn newest_kernel_compares_numbers() {
        let records = vec![
            record("linux-image-6.1.0-9-cloud-amd64", "6.1.99-1"),
            record("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"),
            record("linux-image-6.12.107+deb13-cloud-amd64", "6.12.107-1"),
            record("linux-image-6.1-cloud-amd64", "unknown"),
        ];
        let name = |series| newest(records.clone(), series).map(|record| record.name);
        assert_eq!(name(Series::Of(6, 1)).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(name(Series::Newest).unwrap(), "linux-image-6.12.107+deb13-cloud-amd64");
        assert_eq!(name(Series::Of(6, 11)), None);
    }

    #[test]
    fn series_parses_two_numbers_or_newest() {
        assert_eq!("6.12".parse(), Ok(Series::Of(6, 12)));
        assert_eq!("newest".parse(), Ok(Series::Newest));
        assert!("6".parse::<Series>().unwrap_err().contains("5.10"));
        assert_eq!(version("6.12.107-1~deb12u1"), Some([6, 12, 107]));
        assert_eq!(version("7.1~rc3-1"), Some([7, 1, 0]));
    }
}
