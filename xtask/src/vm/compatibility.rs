//! Writes `docs/compatibility.md`: the tested kernels, and the features of each.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    protocol::TestOutcome,
    results::{TestedKernel, is_init_test},
};

const HEAD: &str = "\
<!-- Written by `cargo xtask vm --write-compatibility`; do not edit. -->
# Kernels

`cargo xtask vm` boots each of these Debian kernels in a virtual machine, runs `tcptrace-bpf doctor` and the kernel
tests there, and reports the results below. Kernels of x86-64 end in `amd64`, those of 64-bit Arm in `arm64`. The program probes each kernel feature at start and never derives it from
the version, so it supports kernels between these and kernels of other distributions. Run `tcptrace-bpf doctor` to
check your kernel.

The processor is emulated. Scenarios therefore open fewer connections, have longer limits, and allow larger differences
between reported and measured durations: 20 ms or 5 % instead of 2 ms or 2 %, and 20 or 30 ms instead of 2 or 3 ms
beyond the bounds of a client's round-trip sample and of a SYN cookie's time. Four tests run in parallel. A failed test
runs again alone; if it passes then, it counts as passed and is listed below the table.
";

/// Name of the test program with the scenarios.
const SCENARIOS: &str = "scenarios";

/// Headings of the parts that are written separately.
const FEATURES: &str = "\n## Features by kernel\n\n";
const TESTS: &str = "\n## Tests by kernel\n\n";

/// Kernels tested with one commit.
pub(crate) struct TestedCommit {
    /// The commit.
    pub(crate) commit: String,
    /// The kernels in the order of the page.
    pub(crate) kernels: Vec<TestedKernel>,
}

/// Writes the page. Without `tests`, which take an hour for each architecture, the page keeps its part about them.
///
/// # Errors
/// If the page cannot be read or written, or has no part about the tests and gets none.
pub(crate) fn write(path: &Path, features: &TestedCommit, tests: Option<&TestedCommit>) -> Result<()> {
    let tests = if let Some(tests) = tests {
        tests_part(tests)?
    } else {
        let page = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        let (_, part) = page.split_once(TESTS).with_context(|| {
            format!("{} has no test results to keep: run `cargo xtask vm` without --smoke", path.display())
        })?;
        part.to_owned()
    };
    let page = [HEAD, FEATURES, &features_part(features)?, TESTS, &tests].concat();
    fs::write(path, page).with_context(|| format!("could not write {}", path.display()))
}

/// Returns what `doctor` found on each kernel.
fn features_part(tested: &TestedCommit) -> Result<String> {
    let mut part = format!("At commit {}.\n\n", tested.commit);
    head(&mut part, &tested.kernels)?;
    for name in features(&tested.kernels) {
        let cells = tested.kernels.iter().map(|kernel| match kernel.check(name) {
            Some(check) if check.found => "yes".to_owned(),
            Some(_) => "**no**".to_owned(),
            None => "unknown".to_owned(),
        });
        row(&mut part, name, cells)?;
    }
    row(
        &mut part,
        "program checks, both modes",
        tested.kernels.iter().map(|kernel| kernel.count(is_init_test).to_string()),
    )?;
    let mut missing = Reasons::default();
    for kernel in &tested.kernels {
        for check in kernel.checks.iter().filter(|check| !check.found) {
            missing.add(&check.name, format!("missing: {}", check.detail), &kernel.release);
        }
    }
    missing.list(&mut part)?;
    Ok(part)
}

/// Returns how many tests passed on each kernel, and why others did not.
fn tests_part(tested: &TestedCommit) -> Result<String> {
    let mut part = format!("At commit {}.\n\n", tested.commit);
    head(&mut part, &tested.kernels)?;
    row(
        &mut part,
        "tracer tests",
        tested
            .kernels
            .iter()
            .map(|kernel| kernel.count(|test| !is_init_test(test) && test.suite != SCENARIOS).to_string()),
    )?;
    row(
        &mut part,
        "scenarios",
        tested.kernels.iter().map(|kernel| kernel.count(|test| test.suite == SCENARIOS).to_string()),
    )?;
    let mut reasons = Reasons::default();
    for kernel in &tested.kernels {
        for test in &kernel.tests {
            let reason = match &test.outcome {
                TestOutcome::Passed => continue,
                TestOutcome::PassedOnRetry { .. } => "passed on retry".to_owned(),
                TestOutcome::NotPossible { reason } => format!("not possible: {reason}"),
                // The failure message is only useful to developers.
                TestOutcome::Failed { .. } => "**failed**".to_owned(),
            };
            reasons.add(&test.name, reason, &kernel.release);
        }
        if let Some(failure) = &kernel.failure {
            reasons.add("the machine", failure.clone(), &kernel.release);
        }
    }
    reasons.list(&mut part)?;
    Ok(part)
}

/// Begins a table with a column per kernel.
fn head(part: &mut String, kernels: &[TestedKernel]) -> Result<()> {
    row(part, "", kernels.iter().map(|kernel| format!("`{}`", kernel.release)))?;
    row(part, "---", kernels.iter().map(|_| "---".to_owned()))?;
    row(part, "build", kernels.iter().map(|kernel| build(&kernel.version)))
}

fn row(page: &mut String, head: &str, cells: impl Iterator<Item = String>) -> Result<()> {
    write!(page, "| {head} |")?;
    for cell in cells {
        write!(page, " {cell} |")?;
    }
    page.push('\n');
    Ok(())
}

/// Returns the package version in `uname -v`, such as 6.12.107-1 in `#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1
/// (2026-05-01)`.
fn build(version: &str) -> String {
    let mut words = version.split_whitespace().skip_while(|word| *word != "Debian");
    words.nth(1).unwrap_or(version).to_owned()
}

/// Returns the names of all checks on any kernel, in order. The check `kernel` only names the kernel.
fn features(tested: &[TestedKernel]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for check in tested.iter().flat_map(|kernel| &kernel.checks) {
        if check.name != "kernel" && !names.contains(&check.name.as_str()) {
            names.push(&check.name);
        }
    }
    names
}

/// Why something is missing or did not pass: name, reason, kernels.
#[derive(Default)]
struct Reasons<'a>(BTreeMap<(&'a str, String), Vec<&'a str>>);

impl<'a> Reasons<'a> {
    fn add(&mut self, name: &'a str, reason: String, kernel: &'a str) {
        self.0.entry((name, reason)).or_default().push(kernel);
    }

    fn list(self, part: &mut String) -> Result<()> {
        if !self.0.is_empty() {
            part.push('\n');
        }
        for ((name, reason), kernels) in self.0 {
            writeln!(part, "- {name}, on {}: {reason}", kernels.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use super::super::{machine::MachineRun, protocol::GuestMessage};

    fn tested(release: &str, fentry: bool) -> TestedKernel {
        let check = |name: &str, found, detail: &str| GuestMessage::Check {
            name: name.to_owned(),
            found,
            detail: detail.to_owned(),
        };
        let messages = vec![
            GuestMessage::Booted {
                release: release.to_owned(),
                version: "#1 SMP Debian 1.2.3-4 (date)".to_owned(),
            },
            check("kernel", true, release),
            check("fentry", fentry, "refused"),
            GuestMessage::Done,
        ];
        TestedKernel::new(release.to_owned(), MachineRun { messages, failure: None, took: Duration::ZERO })
    }

    #[test]
    fn page_has_a_column_per_kernel_and_reasons() {
        let kernels = vec![tested("5.10", false), tested("6.1", true), tested("6.12", false)];
        let all = TestedCommit { commit: "abc".to_owned(), kernels };
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), &all, Some(&all)).unwrap();
        let page = || fs::read_to_string(file.path()).unwrap();
        for part in [
            "At commit abc.\n\n|  | `5.10` | `6.1` | `6.12` |\n| --- | --- | --- | --- |\n| build | 1.2.3-4 | 1.2.3-4 | 1.2.3-4 |\n",
            "| fentry | **no** | yes | **no** |",
            "\n- fentry, on 5.10, 6.12: missing: refused\n\n## Tests by kernel\n",
            "| scenarios | 0 passed | 0 passed | 0 passed |",
        ] {
            assert!(page().contains(part), "{part} not in:\n{}", page());
        }
        assert!(!page().contains("| kernel |"));

        // New features keep the results of the tests.
        let newer = TestedCommit { commit: "def".to_owned(), kernels: vec![tested("7.1", true)] };
        write(file.path(), &newer, None).unwrap();
        let commits: Vec<_> =
            page().lines().filter(|line| line.starts_with("At ")).map(str::to_owned).collect();
        assert_eq!(commits, ["At commit def.", "At commit abc."]);
        fs::write(file.path(), "").unwrap();
        let error = write(file.path(), &newer, None).unwrap_err().to_string();
        assert!(error.contains("no test results to keep"), "{error}");
    }

    #[test]
    fn build_is_the_package_version() {
        assert_eq!(build("#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-05-01)"), "6.12.107-1");
        assert_eq!(build("#1 SMP custom"), "#1 SMP custom");
    }
}
