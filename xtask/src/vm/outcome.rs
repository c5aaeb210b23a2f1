//! What the machines reported, for people to read.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    machine::Run,
    protocol::{Outcome, Verdict},
};

/// A kernel that was booted.
pub(crate) struct Tested {
    /// The release that was asked for.
    pub(crate) release: String,
    /// How the machine ended, if not well.
    pub(crate) trouble: Option<String>,
    /// What the program's doctor found, in its order.
    pub(crate) checks: Vec<Check>,
    /// Every test that ran, in order.
    pub(crate) tests: Vec<Test>,
    /// `uname -v`: which build it was.
    pub(crate) version: String,
    notes: Vec<String>,
    took: Duration,
}

/// A thing that the program's doctor looked for.
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) found: bool,
    pub(crate) detail: String,
}

/// A test that ran.
pub(crate) struct Test {
    pub(crate) suite: String,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
}

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) not_possible: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed", self.passed)?;
        if self.failed != 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        if self.not_possible != 0 {
            write!(f, ", {} not possible", self.not_possible)?;
        }
        Ok(())
    }
}

impl Tested {
    pub(crate) fn new(release: String, run: Run) -> Self {
        let Run { verdicts, mut trouble, took } = run;
        let (mut checks, mut tests, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut booted = String::new();
        for verdict in verdicts {
            match verdict {
                Verdict::Booted { release: actual, version } => {
                    if actual != release {
                        trouble = Some(format!("the machine ran the kernel {actual}"));
                    }
                    booted = version;
                }
                Verdict::Note { text } => notes.push(text),
                Verdict::Check { name, found, detail } => checks.push(Check { name, found, detail }),
                Verdict::Test { suite, name, outcome, seconds } => {
                    tests.push(Test { suite, name, outcome, seconds });
                }
                Verdict::Done => {}
            }
        }
        Self { release, trouble, checks, tests, version: booted, notes, took }
    }

    /// Whether the machine ended well and no test failed.
    pub(crate) fn passed(&self) -> bool {
        self.trouble.is_none() && self.count(|_| true).failed == 0
    }

    /// Counts the tests that `which` selects.
    pub(crate) fn count(&self, which: impl Fn(&Test) -> bool) -> Counts {
        let mut counts = Counts::default();
        for test in self.tests.iter().filter(|test| which(test)) {
            match test.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::NotPossible { .. } => counts.not_possible += 1,
                Outcome::Failed { .. } => counts.failed += 1,
            }
        }
        counts
    }

    /// What a check of the doctor found.
    pub(crate) fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Prints everything that is not simply in order.
    pub(crate) fn explain(&self) {
        for note in &self.notes {
            eprintln!("{}: {note}", self.release);
        }
        for Test { suite, name, outcome, seconds } in &self.tests {
            match outcome {
                Outcome::Passed => {}
                Outcome::NotPossible { reason } => {
                    eprintln!("{}: {suite}: {name}: not possible: {reason}", self.release);
                }
                Outcome::Failed { reason } => {
                    eprintln!("{}: {suite}: {name}: FAILED after {seconds:.1} s", self.release);
                    for line in reason.lines() {
                        eprintln!("    {line}");
                    }
                }
            }
        }
        if let Some(trouble) = &self.trouble {
            eprintln!("{}: {trouble}", self.release);
        }
    }
}

/// Whether a test is one of init's own, which run on every kernel.
pub(crate) fn own(test: &Test) -> bool {
    test.suite == "program" || test.suite.starts_with("smoke ")
}

/// Prints a line per kernel.
pub(crate) fn print(tested: &[Tested]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let header = ["KERNEL", "BTF", "TRACEPOINT", "FENTRY", "SMOKE", "SUITES", "TIME", "RESULT"];
    let mut rows = vec![header.map(str::to_owned)];
    for one in tested {
        let found = |name: &str| match one.check(name) {
            Some(check) if check.found => "found".to_owned(),
            Some(_) => "missing".to_owned(),
            None => "unknown".to_owned(),
        };
        rows.push([
            one.release.clone(),
            found("mode btf"),
            found("mode tracepoint"),
            found("fentry"),
            one.count(own).to_string(),
            one.count(|test| !own(test)).to_string(),
            format!("{:.1} s", one.took.as_secs_f64()),
            if one.passed() { "passed" } else { "FAILED" }.to_owned(),
        ]);
    }
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
