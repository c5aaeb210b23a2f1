//! What the machines reported, for people to read.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    machine::Run,
    protocol::{Outcome, Verdict},
};

/// Things that the program's doctor may miss on a kernel that is in order. Without anything else, some program
/// of ours was refused that should not have been.
const MAY_BE_MISSING: [&str; 2] = ["skip counter", "skip counter tracepoint"];

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
    /// Those of the passed that did so only when run again alone.
    pub(crate) alone: usize,
    pub(crate) failed: usize,
    pub(crate) not_possible: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed", self.passed)?;
        if self.alone != 0 {
            write!(f, " ({} only alone)", self.alone)?;
        }
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

    /// Whether the machine ended well, no test failed, and nothing is missing that every kernel has.
    pub(crate) fn passed(&self) -> bool {
        self.trouble.is_none()
            && self.count(|_| true).failed == 0
            && self.unexpectedly_missing().next().is_none()
    }

    fn unexpectedly_missing(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.found && !MAY_BE_MISSING.contains(&check.name.as_str()))
    }

    /// Counts the tests that `which` selects.
    pub(crate) fn count(&self, which: impl Fn(&Test) -> bool) -> Counts {
        let mut counts = Counts::default();
        for test in self.tests.iter().filter(|test| which(test)) {
            match test.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::PassedAlone { .. } => {
                    counts.passed += 1;
                    counts.alone += 1;
                }
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
                Outcome::PassedAlone { reason } | Outcome::Failed { reason } => {
                    let result = if matches!(outcome, Outcome::Failed { .. }) {
                        "FAILED"
                    } else {
                        "passed only alone"
                    };
                    eprintln!("{}: {suite}: {name}: {result} after {seconds:.1} s", self.release);
                    for line in reason.lines() {
                        eprintln!("    {line}");
                    }
                }
            }
        }
        for Check { name, detail, .. } in self.unexpectedly_missing() {
            eprintln!("{}: MISSING {name}: {detail}", self.release);
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
    let header = ["KERNEL", "FOUND", "MISSING", "SMOKE", "SUITES", "TIME", "RESULT"];
    let mut rows = vec![header.map(str::to_owned)];
    for one in tested {
        let missing: Vec<&str> =
            one.checks.iter().filter(|check| !check.found).map(|check| check.name.as_str()).collect();
        rows.push([
            one.release.clone(),
            format!("{} of {}", one.checks.len() - missing.len(), one.checks.len()),
            if missing.is_empty() { "-".to_owned() } else { missing.join(", ") },
            one.count(own).to_string(),
            one.count(|test| !own(test)).to_string(),
            format!("{:.1} s", one.took.as_secs_f64()),
            if one.passed() { "passed" } else { "FAILED" }.to_owned(),
        ]);
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(verdicts: Vec<Verdict>) -> Tested {
        Tested::new("6.1".to_owned(), Run { verdicts, trouble: None, took: Duration::ZERO })
    }

    fn check(name: &str, found: bool) -> Verdict {
        Verdict::Check { name: name.to_owned(), found, detail: String::new() }
    }

    fn test(suite: &str, outcome: Outcome) -> Verdict {
        Verdict::Test { suite: suite.to_owned(), name: "a".to_owned(), outcome, seconds: 1.0 }
    }

    #[test]
    fn only_what_a_kernel_may_lack_can_be_missing() {
        assert!(tested(vec![check("skip counter", false), check("mode btf", true)]).passed());
        assert!(!tested(vec![check("mode btf", false)]).passed());
    }

    #[test]
    fn a_test_that_is_not_possible_is_counted_and_no_failure() {
        let reason = "no such thing".to_owned();
        let one = tested(vec![
            test("program", Outcome::Passed),
            test("owner", Outcome::NotPossible { reason: reason.clone() }),
            Verdict::Done,
        ]);
        assert!(one.passed());
        assert_eq!(one.count(own).to_string(), "1 passed");
        assert_eq!(one.count(|test| !own(test)).to_string(), "0 passed, 1 not possible");
        assert!(!tested(vec![test("owner", Outcome::Failed { reason: reason.clone() })]).passed());
        let one = tested(vec![test("owner", Outcome::PassedAlone { reason })]);
        assert!(one.passed());
        assert_eq!(one.count(|_| true).to_string(), "1 passed (1 only alone)");
    }

    #[test]
    fn the_kernel_that_ran_must_be_the_one_that_was_meant() {
        let booted = |release: &str| Verdict::Booted { release: release.to_owned(), version: String::new() };
        assert!(tested(vec![booted("6.1")]).passed());
        assert!(!tested(vec![booted("5.10")]).passed());
    }
}
