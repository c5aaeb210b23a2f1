//! Stores results of runs, so that kernels can be tested one at a time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    compatibility::TestedCommit,
    kernel::{self, Series},
    machine::MachineRun,
    results::TestedKernel,
};
use crate::{architecture::Architecture, ebpf::sidecar::hex};

/// How much of a run was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// `doctor` and the smoke test, which every run begins with.
    Smoke,
    /// All tests.
    Complete,
}

/// Results of a run, and the tested program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The kernel's release.
    release: String,
    /// The commit of the checkout.
    commit: String,
    /// SHA-256 of the program under test.
    program: String,
    run: MachineRun,
}

impl Stored {
    /// Creates the results of a run of a program.
    pub(crate) fn new(release: &str, commit: &str, program: &Path, run: &MachineRun) -> Result<Self> {
        let bytes = fs::read(program).with_context(|| format!("could not read {}", program.display()))?;
        let program = hex(Sha256::new_with_prefix(bytes));
        Ok(Self { release: release.to_owned(), commit: commit.to_owned(), program, run: run.clone() })
    }

    /// Replaces the stored results of a series.
    pub(crate) fn write(
        &self,
        folder: &Path,
        extent: Extent,
        architecture: Architecture,
        series: Series,
    ) -> Result<()> {
        let path = path(folder, extent, architecture, series);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        }
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// Reads the stored results of all documented kernels of x86-64, and of other architectures that were tested.
    ///
    /// # Errors
    /// If results are missing, come from different commits, or an architecture's from different programs.
    pub(crate) fn read_all(folder: &Path, extent: Extent) -> Result<TestedCommit> {
        let mut all = Vec::new();
        for architecture in Architecture::ALL {
            let kernels = kernel::documented(architecture);
            let is_stored = |series: &Series| path(folder, extent, architecture, *series).exists();
            // The page has no column for an architecture that was not tested.
            if architecture == Architecture::X86_64 || kernels.iter().any(is_stored) {
                all.extend(Self::read(folder, extent, architecture)?);
            }
        }
        let commit = all.first().map(|stored| stored.commit.clone()).unwrap_or_default();
        let other = all.iter().find(|stored| stored.commit != commit);
        ensure!(
            other.is_none(),
            "the kernels were tested at different commits, {commit} and {}: run `cargo xtask vm` for both architectures",
            other.map(|stored| stored.commit.as_str()).unwrap_or_default()
        );
        let kernels = all.into_iter().map(|stored| TestedKernel::new(stored.release, stored.run)).collect();
        Ok(TestedCommit { commit, kernels })
    }

    fn read(folder: &Path, extent: Extent, architecture: Architecture) -> Result<Vec<Self>> {
        let smoke = if extent == Extent::Smoke { " --smoke" } else { "" };
        let mut all: Vec<(Series, Self)> = Vec::new();
        for &series in kernel::documented(architecture) {
            let command = format!("`cargo xtask vm --arch {architecture} --kernel {series}{smoke}`");
            let bytes = fs::read(path(folder, extent, architecture, series))
                .with_context(|| format!("{series} has no results: run {command}"))?;
            let stored: Self = serde_json::from_slice(&bytes)
                .with_context(|| format!("could not parse the results of {series}: run {command}"))?;
            if let Some((other, known)) = all.first() {
                ensure!(
                    known.program == stored.program,
                    "{other} and {series} were tested with different programs: run `cargo xtask vm --arch \
                     {architecture} --kernel {other},{series}{smoke}`"
                );
            }
            all.push((series, stored));
        }
        Ok(all.into_iter().map(|(_, stored)| stored).collect())
    }
}

fn path(folder: &Path, extent: Extent, architecture: Architecture, series: Series) -> PathBuf {
    let extent = match extent {
        Extent::Smoke => "smoke",
        Extent::Complete => "complete",
    };
    folder.join(extent).join(format!("{series}-{architecture}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use super::super::protocol::{GuestMessage, TestOutcome};

    fn stored(program: &str) -> Stored {
        let outcome = TestOutcome::NotPossible { reason: "no such thing".to_owned() };
        let test =
            GuestMessage::Test { suite: "scenarios".to_owned(), name: "a".to_owned(), outcome, seconds: 1.5 };
        let run = MachineRun {
            messages: vec![test, GuestMessage::Done],
            failure: None,
            took: Duration::from_secs(1),
        };
        Stored { release: "1.2".to_owned(), commit: "abc".to_owned(), program: program.to_owned(), run }
    }

    #[test]
    fn every_kernel_must_be_tested_with_the_same_program() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for (extent, smoke) in [(Extent::Smoke, " --smoke"), (Extent::Complete, "")] {
            let message = || Stored::read_all(folder, extent).err().map(|error| error.to_string());
            let kernels = kernel::documented(Architecture::X86_64);
            for &series in kernels {
                let command = format!("`cargo xtask vm --arch x86_64 --kernel {series}{smoke}`");
                assert!(message().unwrap().contains(&command));
                stored("x86_64").write(folder, extent, Architecture::X86_64, series).unwrap();
            }
            assert_eq!(Stored::read_all(folder, extent).unwrap().kernels.len(), kernels.len());
            // Each architecture has a program of its own.
            stored("aarch64").write(folder, extent, Architecture::Aarch64, Series::Of(6, 12)).unwrap();
            let all = Stored::read_all(folder, extent).unwrap();
            assert_eq!((all.kernels.len(), all.commit.as_str()), (kernels.len() + 1, "abc"));
            assert_eq!(all.kernels[0].count(|_| true).to_string(), "0 passed, 1 not possible");
            let newer = Stored { commit: "def".to_owned(), ..stored("aarch64") };
            newer.write(folder, extent, Architecture::Aarch64, Series::Of(6, 12)).unwrap();
            assert!(message().unwrap().contains("different commits, abc and def"));
            stored("another").write(folder, extent, Architecture::X86_64, Series::Newest).unwrap();
            assert!(message().unwrap().contains("different programs"));
        }
    }
}
