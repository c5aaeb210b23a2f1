//! The outcomes of whole runs, kept so that the kernels need not all be tested in one go.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    kernel::{SERIES, Series},
    machine::Run,
    outcome::Tested,
};
use crate::ebpf::sidecar::hex;

/// What a whole run gave, and of which program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// The kernel's release.
    release: String,
    /// SHA-256 of the program under test.
    program: String,
    run: Run,
}

impl Stored {
    /// The outcome of a run of this program.
    pub(crate) fn new(release: &str, program: &Path, run: &Run) -> Result<Self> {
        let bytes = fs::read(program).with_context(|| format!("could not read {}", program.display()))?;
        let program = hex(Sha256::new_with_prefix(bytes));
        Ok(Self { release: release.to_owned(), program, run: run.clone() })
    }

    /// Replaces the outcome of a series.
    pub(crate) fn write(&self, folder: &Path, series: Series) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        let path = path(folder, series);
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// The outcomes of all series.
    ///
    /// # Errors
    /// When one is missing, or they are of different programs.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Tested>> {
        let mut all: Vec<(Series, Self)> = Vec::new();
        for series in SERIES {
            let bytes = fs::read(path(folder, series)).with_context(|| {
                format!("{series} has not been tested as a whole: run `cargo xtask vm --kernel {series}`")
            })?;
            let one: Self = serde_json::from_slice(&bytes).with_context(|| {
                format!("the outcome of {series} is not understood: run `cargo xtask vm --kernel {series}`")
            })?;
            if let Some((other, known)) = all.first() {
                ensure!(
                    known.program == one.program,
                    "{other} and {series} were tested with different programs: run `cargo xtask vm --kernel \
                     {other},{series}`"
                );
            }
            all.push((series, one));
        }
        Ok(all.into_iter().map(|(_, one)| Tested::new(one.release, one.run)).collect())
    }
}

fn path(folder: &Path, series: Series) -> PathBuf {
    folder.join(format!("{series}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use super::super::protocol::{Outcome, Verdict};

    fn stored(program: &str) -> Stored {
        let outcome = Outcome::NotPossible { reason: "no such thing".to_owned() };
        let test =
            Verdict::Test { suite: "scenarios".to_owned(), name: "a".to_owned(), outcome, seconds: 1.5 };
        let run = Run { verdicts: vec![test, Verdict::Done], trouble: None, took: Duration::from_secs(1) };
        Stored { release: "1.2".to_owned(), program: program.to_owned(), run }
    }

    #[test]
    fn every_series_must_have_been_tested_with_the_same_program() {
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
