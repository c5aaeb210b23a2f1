//! Stores results of complete runs, so that kernels can be tested one at a time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    kernel::{SERIES, Series},
    machine::MachineRun,
    results::TestedKernel,
};
use crate::ebpf::sidecar::hex;

/// Results of a complete run, and the hash of the tested program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The kernel's release.
    release: String,
    /// SHA-256 of the program under test.
    program: String,
    run: MachineRun,
}

impl Stored {
    /// Creates the results of a run of a program.
    pub(crate) fn new(release: &str, program: &Path, run: &MachineRun) -> Result<Self> {
        let bytes = fs::read(program).with_context(|| format!("could not read {}", program.display()))?;
        let program = hex(Sha256::new_with_prefix(bytes));
        Ok(Self { release: release.to_owned(), program, run: run.clone() })
    }

    /// Replaces the stored results of a series.
    pub(crate) fn write(&self, folder: &Path, series: Series) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        let path = path(folder, series);
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// Reads the stored results of all series.
    ///
    /// # Errors
    /// If results are missing, or belong to different programs.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<TestedKernel>> {
        let mut all: Vec<(Series, Self)> = Vec::new();
        for series in SERIES {
            let bytes = fs::read(path(folder, series)).with_context(|| {
                format!("{series} has no complete results: run `cargo xtask vm --kernel {series}`")
            })?;
            let stored: Self = serde_json::from_slice(&bytes).with_context(|| {
                format!("could not parse the results of {series}: run `cargo xtask vm --kernel {series}`")
            })?;
            if let Some((other, known)) = all.first() {
                ensure!(
                    known.program == stored.program,
                    "{other} and {series} were tested with different programs: run `cargo xtask vm --kernel \
                     {other},{series}`"
                );
            }
            all.push((series, stored));
        }
        Ok(all.into_iter().map(|(_, stored)| TestedKernel::new(stored.release, stored.run)).collect())
    }
}

fn path(folder: &Path, series: Series) -> PathBuf {
    folder.join(format!("{series}.json"))
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
        Stored { release: "1.2".to_owned(), program: program.to_owned(), run }
    }

    #[test]
    fn every_series_must_be_tested_with_the_same_program() {
        let folder = std::env::temp_dir().join(format!("tcptrace-stored-{}", std::process::id()));
        let message = || Stored::read_all(&folder).err().map(|error| error.to_string());
        for series in SERIES {
            assert!(message().unwrap().contains(&format!("`cargo xtask vm --kernel {series}`")));
            stored("one").write(&folder, series).unwrap();
        }
        let all = Stored::read_all(&folder).unwrap();
        assert_eq!(all.len(), SERIES.len());
        assert_eq!(all[0].count(|_| true).to_string(), "0 passed, 1 not possible");
        stored("another").write(&folder, Series::Newest).unwrap();
        assert!(message().unwrap().contains("different programs"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
