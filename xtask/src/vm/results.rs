//! Collects the results of the machines and prints them.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    machine::MachineRun,
    protocol::{GuestMessage, TestOutcome},
};

/// Checks of `doctor` that fail on kernels before a version. Any other missing feature means that the kernel rejected a
/// program that it should accept.
const LATER_CHECKS: [(&str, (u32, u32)); 3] =
    [("skip counter", (5, 12)), ("hook drop", (5, 17)), ("skip counter tracepoint", (6, 7))];

/// Returns the major and minor version of a kernel release such as `6.1.0-40-cloud-amd64`.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Results of one kernel.
pub(crate) struct TestedKernel {
    /// The requested release.
    pub(crate) release: String,
    /// Why the machine stopped early, if it did.
    pub(crate) failure: Option<String>,
    /// Checks of `doctor`, in order.
    pub(crate) checks: Vec<DoctorCheck>,
    /// Tests in order.
    pub(crate) tests: Vec<TestResult>,
    /// `uname -v`, filter names the build.
    pub(crate) version: String,
    notes: Vec<String>,
    took: Duration,
}

/// A check of `doctor`.
pub(crate) struct DoctorCheck {
    pub(crate) name: String,
    pub(crate) found: bool,
    pub(crate) detail: String,
}

/// A test and its result.
pub(crate) struct TestResult {
    pub(crate) suite: String,
    pub(crate) name: String,
    pub(crate) outcome: TestOutcome,
    pub(crate) seconds: f64,
}

/// Numbers of tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCounts {
    pub(crate) passed: usize,
    /// Passed tests that failed at first and passed on retry.
    pub(crate) retried: usize,
    pub(crate) failed: usize,
    pub(crate) not_possible: usize,
}

impl std::fmt::Display for TestCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed", self.passed)?;
        if self.retried != 0 {
            write!(f, " ({} on retry)", self.retried)?;
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

impl TestedKernel {
    pub(crate) fn new(release: String, run: MachineRun) -> Self {
        let MachineRun { messages, mut failure, took } = run;
        let (mut checks, mut tests, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut booted = String::new();
        for message in messages {
            match message {
                GuestMessage::Booted { release: actual, version } => {
                    if actual != release {
                        failure = Some(format!("the machine booted the kernel {actual}"));
                    }
                    booted = version;
                }
                GuestMessage::Note { text } => notes.push(text),
                GuestMessage::Check { name, found, detail } => {
                    checks.push(DoctorCheck { name, found, detail });
                }
                GuestMessage::Test { suite, name, outcome, seconds } => {
                    tests.push(TestResult { suite, name, outcome, seconds });
                }
                GuestMessage::Done => {}
            }
        }
        Self { release, failure, checks, tests, version: booted, notes, took }
    }

    /// Returns whether the machine finished, no test failed, and only features of later kernels are missing.
    pub(crate) fn passed(&self) -> bool {
        self.failure.is_none()
            && self.count(|_| true).failed == 0
            && self.unexpectedly_missing().next().is_none()
    }

    fn unexpectedly_missing(&self) -> impl Iterator<Item = &DoctorCheck> {
        let version = version_of(&self.release);
        let is_later = move |check: &DoctorCheck| {
            LATER_CHECKS
                .iter()
                .any(|(name, since)| check.name == *name && version.is_some_and(|it| it < *since))
        };
        self.checks.iter().filter(move |check| !check.found && !is_later(check))
    }

    /// Counts the tests that `filter` selects.
    pub(crate) fn count(&self, filter: impl Fn(&TestResult) -> bool) -> TestCounts {
        let mut counts = TestCounts::default();
        for test in self.tests.iter().filter(|test| filter(test)) {
            match test.outcome {
                TestOutcome::Passed => counts.passed += 1,
                TestOutcome::PassedOnRetry { .. } => {
                    counts.passed += 1;
                    counts.retried += 1;
                }
                TestOutcome::NotPossible { .. } => counts.not_possible += 1,
                TestOutcome::Failed { .. } => counts.failed += 1,
            }
        }
        counts
    }

    /// Returns a check of `doctor` by name.
    pub(crate) fn check(&self, name: &str) -> Option<&DoctorCheck> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Prints notes, unexpected outcomes and missing features.
    pub(crate) fn print_problems(&self) {
        for note in &self.notes {
            eprintln!("{}: {note}", self.release);
        }
        for TestResult { suite, name, outcome, seconds } in &self.tests {
            match outcome {
                TestOutcome::Passed => {}
                TestOutcome::NotPossible { reason } => {
                    eprintln!("{}: {suite}: {name}: not possible: {reason}", self.release);
                }
                TestOutcome::PassedOnRetry { reason } | TestOutcome::Failed { reason } => {
                    let result = if matches!(outcome, TestOutcome::Failed { .. }) {
                        "FAILED"
                    } else {
                        "passed on retry"
                    };
                    eprintln!("{}: {suite}: {name}: {result} after {seconds:.1} s", self.release);
                    for line in reason.lines() {
                        eprintln!("    {line}");
                    }
                }
            }
        }
        for DoctorCheck { name, detail, .. } in self.unexpectedly_missing() {
            eprintln!("{}: MISSING {name}: {detail}", self.release);
        }
        if let Some(failure) = &self.failure {
            eprintln!("{}: {failure}", self.release);
        }
    }
}

/// Returns whether a test is built into init, so that it runs on every kernel.
pub(crate) fn is_init_test(test: &TestResult) -> bool {
    test.suite == "program" || test.suite.starts_with("smoke ")
}

/// Prints a line per kernel.
pub(crate) fn print(tested: &[TestedKernel]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let header = ["KERNEL", "FOUND", "MISSING", "SMOKE", "SUITES", "TIME", "RESULT"];
    let mut rows = vec![header.map(str::to_owned)];
    for kernel in tested {
        let missing: Vec<&str> =
            kernel.checks.iter().filter(|check| !check.found).map(|check| check.name.as_str()).collect();
        rows.push([
            kernel.release.clone(),
            format!("{} of {}", kernel.checks.len() - missing.len(), kernel.checks.len()),
            if missing.is_empty() { "-".to_owned() } else { missing.join(", ") },
            kernel.count(is_init_test).to_string(),
            kernel.count(|test| !is_init_test(test)).to_string(),
            format!("{:.1} s", kernel.took.as_secs_f64()),
            if kernel.passed() { "passed" } else { "FAILED" }.to_owned(),
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

    fn tested(messages: Vec<GuestMessage>) -> TestedKernel {
        TestedKernel::new("6.1".to_owned(), MachineRun { messages, failure: None, took: Duration::ZERO })
    }

    fn check(name: &str, found: bool) -> GuestMessage {
        GuestMessage::Check { name: name.to_owned(), found, detail: String::new() }
    }

    fn test(suite: &str, outcome: TestOutcome) -> GuestMessage {
        GuestMessage::Test { suite: suite.to_owned(), name: "a".to_owned(), outcome, seconds: 1.0 }
    }

    #[test]
    fn only_features_of_later_kernels_may_be_missing() {
        assert!(tested(vec![check("skip counter tracepoint", false), check("mode btf", true)]).passed());
        for name in ["mode btf", "skip counter", "hook drop"] {
            assert!(!tested(vec![check(name, false)]).passed(), "{name}");
        }
        assert_eq!(version_of("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(version_of("7.3.4+deb13-cloud-amd64"), Some((7, 3)));
        assert_eq!(version_of("next"), None);
    }

    #[test]
    fn unsupported_test_is_counted_but_does_not_fail() {
        let reason = "no such thing".to_owned();
        let kernel = tested(vec![
            test("program", TestOutcome::Passed),
            test("owner", TestOutcome::NotPossible { reason: reason.clone() }),
            GuestMessage::Done,
        ]);
        assert!(kernel.passed());
        assert_eq!(kernel.count(is_init_test).to_string(), "1 passed");
        assert_eq!(kernel.count(|test| !is_init_test(test)).to_string(), "0 passed, 1 not possible");
        assert!(!tested(vec![test("owner", TestOutcome::Failed { reason: reason.clone() })]).passed());
        let kernel = tested(vec![test("owner", TestOutcome::PassedOnRetry { reason })]);
        assert!(kernel.passed());
        assert_eq!(kernel.count(|_| true).to_string(), "1 passed (1 on retry)");
    }

    #[test]
    fn booted_kernel_must_match_the_requested_one() {
        let booted =
            |release: &str| GuestMessage::Booted { release: release.to_owned(), version: String::new() };
        assert!(tested(vec![booted("6.1")]).passed());
        assert!(!tested(vec![booted("5.10")]).passed());
    }
}
